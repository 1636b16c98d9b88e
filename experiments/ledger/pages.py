"""The pages made from the ledger: report.md and report.html, from its entries and the drawn figures alone.

The same entries and figures give the same bytes. report.html is one file that asks for nothing from the network.
"""

import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from experiments.claims.verdict import VERDICTS
from experiments.lab.experiment import Report
from experiments.lab.files import replacing
from experiments.ledger.strips import WIDTH, strip

Entry = Mapping[str, Any]


def write_pages(ledger: Sequence[Entry], figures: Path, out: Path, speed: Report | None = None) -> None:
    """Write `out`/report.md and `out`/report.html; `figures` holds <name>.svg for the names the entries mention.

    `speed` is what the benchmark says, where it was run.
    """
    pages = Environment(
        loader=PackageLoader("experiments.ledger"),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    pages.filters.update(number=number, interval=interval, digits=digits, duration=duration)
    pages.filters.update(plain=plain, sub=subscripts, strip=strip, headline=headline, control_words=control_words)
    names = dict.fromkeys([*(name for entry in ledger for name in entry["figures"]), *(speed.figures if speed else ())])
    drawn = {name: figures / f"{name}.svg" for name in names if (figures / f"{name}.svg").exists()}
    content = {
        "ledger": ledger,
        "counts": counts(ledger),
        "controls": counts(entry["control"] for entry in ledger if entry["control"]),
        "unsound": unsound(ledger),
        "shared": shared_provenance(ledger),
        "span": span(ledger),
        "figures": {name: inline(path.read_text(encoding="utf-8"), name) for name, path in drawn.items()},
        "width": WIDTH,
        "speed": speed,
    }
    for name in ("report.md", "report.html"):
        with replacing(out / name) as temporary:
            temporary.write_text(pages.get_template(f"{name}.j2").render(content), encoding="utf-8")


def counts(items: Iterable[Entry]) -> dict[str, int]:
    """How many have each verdict, in the order of `VERDICTS`."""
    found = Counter(item["verdict"] for item in items)
    return {verdict: found[verdict] for verdict in VERDICTS}


def unsound(ledger: Iterable[Entry]) -> list[str]:
    """The claims whose control was run and not refuted: there the verdict says nothing."""
    return [e["id"] for e in ledger if e["control"] and e["control"]["verdict"] not in {"refuted", "not run"}]


def headline(item: Entry) -> Entry | None:
    """The finding that stands for the whole: the one whose number the item quotes, else the first of its verdict."""
    quoted = item.get("measured"), item.get("interval")
    return max(
        item["findings"],
        key=lambda f: ((f["measured"], f["interval"]) == quoted, f["verdict"] == item["verdict"]),
        default=None,
    )


def shared_provenance(ledger: Iterable[Entry]) -> dict[str, str]:
    """What holds for every number of the ledger; "differs" where claims were computed in different ways."""
    values: dict[str, set[str]] = {}
    for entry in ledger:
        for name, value in entry["provenance"].items():
            values.setdefault(name, set()).add(str(value))
    values.pop("created", None)
    return {name: found.pop() if len(found) == 1 else "differs, see each claim" for name, found in values.items()}


def span(ledger: Iterable[Entry]) -> tuple[str, str] | None:
    """When the first and the last of the numbers were computed, as far as that is known."""
    times = [str(e["provenance"]["created"]) for e in ledger if "created" in e["provenance"]]
    return (min(times), max(times)) if times else None


def control_words(verdict: str) -> str:
    """What the verdict of a control says of the claim's own."""
    if verdict == "refuted":
        return "refuted, as it must be"
    return verdict if verdict == "not run" else f"{verdict}, but must be refuted: this claim's verdict means nothing"


def digits(item: Entry) -> int:
    """How many significant digits tell the numbers of a finding apart: 5, where needed up to 10."""
    pairs = (item.get("band"), item.get("interval"), (item["measured"],))
    values = {x for pair in pairs if pair is not None for x in pair if x is not None}
    return next((n for n in range(5, 10) if len({f"{x:.{n}g}" for x in values}) == len(values)), 10)


def number(value: float | None, precision: int = 5) -> str:
    """A number with so many significant digits; a dash for what is not known."""
    return "–" if value is None else f"{value:.{precision}g}"


def interval(pair: Sequence[float | None] | None, precision: int = 5) -> str:
    """[low, high], with a round bracket at an end that is not bounded."""
    if pair is None:
        return "–"
    low, high = pair
    left = "(−∞" if low is None else f"[{number(low, precision)}"
    return f"{left}, {'∞)' if high is None else f'{number(high, precision)}]'}"


def duration(seconds: float | None) -> str:
    """Seconds below two minutes, then minutes, then hours."""
    if seconds is None:
        return "–"
    if seconds < 120:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def plain(text: str) -> str:
    """Text on one line in which Markdown finds no table, tag, emphasis, code, mathematics or link."""
    markup = r"[\\`*|~$]|<(?=[A-Za-z/!?])|&(?=#?\w+;)|(?<=\])[(\[]|(?<!\w)_|_(?!\w)"
    return re.sub(markup, r"\\\g<0>", " ".join(text.split()))


def subscripts(text: str) -> Markup:
    """Text as HTML in which the indices of symbols stand low: H_ℓ, ΔW_Signal, ‖·‖_F, but not update_scaling."""
    symbol, index = r"((?<![A-Za-z_])[A-Za-z\u0370-\u03ff]|[‖∇²\]])", r"(ℓ|[A-Za-z0-9]+(?![A-Za-z0-9_]))"
    return Markup(re.sub(f"{symbol}_{index}", r"\1<sub>\2</sub>", str(escape(text))))


class Inline(NamedTuple):
    """A figure as part of an HTML page: the content of its <svg> and the frame that it is drawn in."""

    frame: str
    markup: str


def inline(svg: str, name: str) -> Inline:
    """The figure without what only a file of its own needs; its ids start with `name`, so that none clashes.

    Metadata and the style sheet are left out, which would hold for the whole page. Coordinates are rounded to a
    hundredth of a point.
    """
    root = ET.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            if _local(child.tag) in {"metadata", "style"}:
                parent.remove(child)
    for element in root.iter():
        attributes = {_local(key): _own(_local(key), value, name) for key, value in element.attrib.items()}
        element.tag = _local(element.tag)
        element.attrib.clear()
        element.attrib.update(attributes)
        element.tail = (element.tail or "").strip()
    return Inline(root.attrib["viewBox"], "".join(ET.tostring(child, encoding="unicode") for child in root))


def _local(name: str) -> str:
    """A name without its XML namespace, as HTML writes it."""
    return name.rpartition("}")[2]


def _own(key: str, value: str, name: str) -> str:
    """An attribute's value with every id and every reference to one made the figure's own."""
    if key == "id":
        return f"{name}-{value}"
    if key == "href":
        return re.sub("^#", f"#{name}-", value)
    if key == "d":
        return re.sub(r"\d+\.\d+", _rounded, " ".join(value.split()))
    return value.replace("url(#", f"url(#{name}-")


def _rounded(found: re.Match[str]) -> str:
    return f"{float(found[0]):.2f}".rstrip("0").rstrip(".")
