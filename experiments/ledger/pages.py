"""Make the pages of the ledger, report.md and report.html, from its entries and the drawn figures alone.

The same entries and figures give the same bytes. report.html is one file that asks for nothing from the network.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from experiments.lab.experiment import Report
from experiments.lab.files import replacing
from experiments.ledger.ledger import SOUND
from experiments.ledger.strips import WIDTH, strip
from experiments.ledger.svg import inline
from experiments.ledger.table import Entry
from experiments.ledger.text import digits, duration, interval, number, plain, subscripts
from experiments.ledger.verdict import VERDICTS

TITLE = "What holds of the theory of LoRA’s scaling factor"


class Page(NamedTuple):
    """Holds what a report shows beside the entries of the ledger."""

    figures: Path
    """The folder with <name>.svg for the names that the entries mention."""
    sentences: Mapping[str, Sequence[str]] = {}
    """What the experiments say in words, by the experiment and the problem."""
    speed: Report | None = None
    """What the benchmark says, where it was run."""
    title: str = TITLE
    alphas: Sequence[tuple[str, float, float]] = ()
    """(layer, V2, V1): what the scaling rules give a model of the reader's own."""


def write_pages(ledger: Sequence[Entry], page: Page, out: Path) -> None:
    """Write `out`/report.md and `out`/report.html."""
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
    speed = page.speed.figures if page.speed else ()
    names = dict.fromkeys([*(name for entry in ledger for name in entry["figures"]), *speed])
    drawn = {name: page.figures / f"{name}.svg" for name in names if (page.figures / f"{name}.svg").exists()}
    content = {
        "title": page.title,
        "ledger": ledger,
        "problems": problems(ledger),
        "counts": counts(ledger),
        "controls": counts(entry["control"] for entry in ledger if entry["control"]),
        "unsound": unsound(ledger),
        "shared": shared_provenance(ledger),
        "span": span(ledger),
        "figures": {name: inline(path.read_text(encoding="utf-8"), name) for name, path in drawn.items()},
        "width": WIDTH,
        "sentences": page.sentences,
        "speed": page.speed,
        "alphas": page.alphas,
    }
    for name in ("report.md", "report.html"):
        with replacing(out / name) as temporary:
            temporary.write_text(pages.get_template(f"{name}.j2").render(content), encoding="utf-8")


def problems(ledger: Sequence[Entry]) -> dict[str, str]:
    """Name every problem of the ledger that was asked anything, with what it is."""
    cells = [(name, cell) for entry in ledger for name, cell in entry["problems"].items()]
    asked = {name for name, cell in cells if cell["verdict"] not in ("not run", "not testable here")}
    return {name: cell["label"] for name, cell in cells if name in asked}


def counts(items: Iterable[Entry]) -> dict[str, int]:
    """Count those that have each verdict, in the order of `VERDICTS`."""
    found = Counter(item["verdict"] for item in items)
    return {verdict: found[verdict] for verdict in VERDICTS}


def unsound(ledger: Iterable[Entry]) -> list[str]:
    """List the claims whose control was run and not refuted: there the verdict says nothing."""
    return [e["id"] for e in ledger if e["control"] and e["control"]["verdict"] not in SOUND]


def headline(item: Entry) -> Entry | None:
    """Pick the finding that stands for the whole: the one whose number is quoted, else the first of its verdict."""
    quoted = item.get("measured"), item.get("interval")
    return max(
        item["findings"],
        key=lambda f: ((f["measured"], f["interval"]) == quoted, f["verdict"] == item["verdict"]),
        default=None,
    )


def shared_provenance(ledger: Iterable[Entry]) -> dict[str, str]:
    """Say what holds for every number of the ledger; "differs" where claims were computed in different ways."""
    values: dict[str, set[str]] = {}
    for entry in ledger:
        for name, value in entry["provenance"].items():
            values.setdefault(name, set()).add(str(value))
    values.pop("created", None)
    return {name: found.pop() if len(found) == 1 else "differs, see each claim" for name, found in values.items()}


def span(ledger: Iterable[Entry]) -> tuple[str, str] | None:
    """Say when the first and the last of the numbers were computed, as far as that is known."""
    times = [str(e["provenance"]["created"]) for e in ledger if "created" in e["provenance"]]
    return (min(times), max(times)) if times else None


def control_words(verdict: str) -> str:
    """Say what the verdict of a control means for that of the claim."""
    if verdict == "refuted":
        return "refuted, as it must be"
    return verdict if verdict == "not run" else f"{verdict}, but must be refuted: this claim's verdict means nothing"
