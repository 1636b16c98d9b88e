"""Bad ledgers cannot hurt: they are refused in one line, or shown without a character that is not seen."""

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bad_files import ESCAPE, damaged, unprintable, within

from experiments.doors import costs
from experiments.lab.errors import RecordError
from experiments.lab.experiment import Report, Row
from experiments.ledger import table
from experiments.ledger.ledger import write
from experiments.ledger.pages import Page, write_pages

DOCS = Path(__file__).parents[3] / "docs"
SCRIPT = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def sound() -> list[dict[str, Any]]:
    """Three entries of the reference run."""
    return json.loads((DOCS / "ledger.json").read_text(encoding="utf-8"))["claims"][9:12]


def filed(ledger: Any) -> str:
    """The file that has these claims; nothing here looks whether the digests hold."""
    digest = "0" * 64
    manifest = {"commit": "", "claims": digest, "code": {}, "records": {}}
    return json.dumps({"schema": table.SCHEMA, "manifest": manifest, "claims": ledger})


def shown(path: Path, out: Path) -> str:
    """Read a ledger and show it in every way there is; or return the line in which it is refused."""
    try:
        entries = table.read(path)
    except RecordError as error:
        return str(error)
    write(entries, out)
    write_pages(entries, Page(out / "figures"), out)
    html = (out / "report.html").read_text(encoding="utf-8")
    assert SCRIPT not in html
    markdown = (out / "report.md").read_text(encoding="utf-8")
    return repr(entries) + vars(table.Entries)["_repr_html_"](entries) + html + markdown


def refused_or_repr(path: Path) -> str:
    try:
        return repr(table.read(path))
    except RecordError as error:
        return str(error)


def places(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a ledger, as the keys and indices that lead to it."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [above, *(place for key, x in inner for place in places(x, (*above, key)))]


WRONG = (None, True, -3, 1e300, 10**400, "", ESCAPE, SCRIPT, "../../etc/passwd", r"\frac{", "x" * 10_000, [], {}, [[]])


def value(ledger: list, draw: random.Random) -> str:
    """Another value, or another type, in one place."""
    *above, last = draw.choice(places(ledger)[1:])
    node: Any = ledger
    for key in above:
        node = node[key]
    node[last] = draw.choice(WRONG)
    return filed(ledger)


def key(ledger: list, draw: random.Random) -> str:
    """A field less, a field more, or one under another name."""
    node = draw.choice(ledger)
    node = draw.choice([node, *node["problems"].values(), *node["findings"]])
    name = draw.choice(list(node))
    draw.choice([lambda: node.pop(name), lambda: node.update({ESCAPE: node[name]})])()
    return filed(ledger)


def text(ledger: list, draw: random.Random) -> str:
    """Write what JSON forbids or nobody has to read."""
    whole, name = filed(ledger), draw.choice(list(ledger[0]))
    other = draw.choice(["NaN", "Infinity", "1e999", "9" * 5000, '"\\ud800"', "[" * 200_000, f'1, "{name}": 1'])
    return draw.choice([whole.replace(f'"{name}": ', f'"{name}": {other}, "x": ', 1), "[" * 200_000, whole + whole])


def twice(ledger: list, draw: random.Random) -> str:
    return filed([*ledger, draw.choice(ledger)])


@pytest.mark.parametrize(("harm", "count"), [(value, 40), (key, 10), (text, 10), (twice, 2)])
def test_a_bad_ledger_is_refused_in_one_line_or_shown_safely(
    harm: Callable[[list, random.Random], str], count: int, sound: list, tmp_path: Path
) -> None:
    path = tmp_path / "bad" / "ledger.json"
    path.parent.mkdir()
    refused = 0
    for seed in range(count):
        path.write_text(harm(copy.deepcopy(sound), random.Random(seed)), encoding="utf-8")
        with within(5):
            seen = shown(path, tmp_path)
        assert not unprintable(seen), seed
        refused += seen.startswith(f"ledger: {str(path)!r} is no ledger.json (") and "\n" not in seen
    assert refused >= count / 2


def test_damaged_bytes_of_a_ledger_are_refused_or_shown_safely(sound: list, tmp_path: Path) -> None:
    path, whole = tmp_path / "bad.json", filed(sound).encode()
    for seed in range(20):
        path.write_bytes(damaged(whole, random.Random(seed)))
        with within(5):
            assert not unprintable(refused_or_repr(path))


def test_a_ledger_that_says_a_thing_twice_is_refused(sound: list, tmp_path: Path) -> None:
    path, whole = tmp_path / "bad.json", filed(sound)
    path.write_text(whole, encoding="utf-8")
    assert table.read(path) == tuple(sound)
    path.write_text(whole.replace('"verdict": ', '"verdict": "supported", "verdict": ', 1), encoding="utf-8")
    assert (
        refused_or_repr(path) == f"ledger: {str(path)!r} is no ledger.json ({path.name}: has the key 'verdict' twice)"
    )


def test_every_text_of_a_ledger_is_shown_as_text(sound: list, tmp_path: Path) -> None:
    """In all places at once: no character that is not seen, and no tag, gets onto a page."""

    def soiled(x: Any, name: str = "") -> Any:
        if isinstance(x, dict):
            return {k: soiled(y, k) for k, y in x.items()}
        if isinstance(x, list):
            return [soiled(y, name) for y in x]
        kept = name in ("id", "group", "verdict", "name", "key") or not isinstance(x, str)
        return x if kept else x + ESCAPE + SCRIPT

    path = tmp_path / "bad.json"
    path.write_text(filed(soiled(sound)), encoding="utf-8")
    seen = shown(path, tmp_path)
    assert "alert(1)" in seen
    assert not unprintable(seen)


def test_what_a_page_says_beside_the_ledger_is_shown_as_text(tmp_path: Path) -> None:
    soiled = ESCAPE + SCRIPT
    speed = Report([Row(soiled, soiled, soiled, soiled)], [soiled], {})
    page = Page(tmp_path, {soiled: [soiled]}, speed, title=soiled, alphas=[(soiled, 1.0, 2.0)])
    write_pages(table.Entries(), page, tmp_path)
    html, markdown = ((tmp_path / f"report.{kind}").read_text(encoding="utf-8") for kind in ("html", "md"))
    assert min(html.count(r"\x1b[31mred"), markdown.count(r"\x1b[31mred")) > 8
    assert not unprintable(html + markdown)
    assert SCRIPT not in html


@pytest.mark.parametrize("kind", ["damaged", "no figure", "a folder"])
def test_a_figure_that_cannot_be_read_has_not_been_drawn(kind: str, sound: list, tmp_path: Path) -> None:
    entries = table.Entries(entry for entry in sound if entry["figure"])
    place = tmp_path / "figures" / f"{entries[0]['figure']['name']}.svg"
    place.parent.mkdir()
    if kind == "a folder":
        place.mkdir()
    else:
        place.write_text("<svg><g" if kind == "damaged" else "<svg/>", encoding="utf-8")
    write_pages(entries, Page(tmp_path / "figures"), tmp_path)
    assert "has not been drawn" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_costs_that_cannot_be_read_are_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "costs.json"
    monkeypatch.setattr(costs, "FILE", path)
    for content in ("", "[" * 200_000, "[]", '{"a": 3}', '{"a": {"b": "c"}}', '{"a": {"b": NaN}}'):
        path.write_text(content, encoding="utf-8")
        costs._costs.cache_clear()
        assert costs.spent("a") == {}
    costs._costs.cache_clear()
