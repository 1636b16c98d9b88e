"""Make the pages of the ledger, report.md and report.html, from its entries and the drawn figures alone.

The same entries and figures give the same bytes. report.html is one file that asks for nothing from the network.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from experiments.lab.experiment import Report
from experiments.lab.files import replacing
from experiments.lab.side_by_side import SideBySide
from experiments.ledger.claim import GROUPS, SUBJECT
from experiments.ledger.first_screen import first_screen
from experiments.ledger.glossary import symbols
from experiments.ledger.questions import questions
from experiments.ledger.quoted.reply import reply
from experiments.ledger.strips import WIDTH, strip
from experiments.ledger.svg import inlined, sharing_letters
from experiments.ledger.table import Entry, problems, visible
from experiments.ledger.text import allowed, duration, interval, mathematics, method, number, plain, short, subscripts
from experiments.ledger.verdict import ERROR, VERDICTS

TITLE = "Does LoRA’s α theory hold?"
MARKS = {"supported": "✔", "refuted": "✘", "inconclusive": "◇", "not testable here": "–", "not run": "", "new": "★"}
FEW = 5
"""Quantities that readings may have in common, to stand beside each other in one table."""


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
    tables: Sequence[SideBySide] = ()
    """What the experiments lay out as the paper does."""


class Part(NamedTuple):
    """Hold the statements of one source, by their groups, with what it is and how many have each verdict."""

    name: str
    groups: Mapping[str, Sequence[Entry]]
    key: str
    title: str
    address: str
    counts: Mapping[str, int]


class Alike(NamedTuple):
    """Hold readings that were judged by the same quantities, each of them with what is allowed."""

    quantities: tuple[tuple[str, str], ...]
    readings: Sequence[Entry]


def write_pages(ledger: Sequence[Entry], page: Page, out: Path) -> None:
    """Write `out`/report.md and `out`/report.html."""
    sources = parts(ledger)
    ordered = [entry for part in sources for group in part.groups.values() for entry in group]
    wanted = figure_places(ordered, page)
    figures = {name: figure for name in wanted if (figure := inlined(page.figures / f"{name}.svg", name))}
    places = {name: place for name, place in wanted.items() if name in figures}
    letters, drawn = sharing_letters(figures)
    content = {
        "title": page.title,
        "lines": first_screen(ledger),
        "questions": questions(ledger) if ledger else [],
        "parts": sources,
        "ledger": ordered,
        "problems": problems(ledger),
        "marks": MARKS,
        "counts": counts(ledger),
        "confidence": 1 - ERROR,
        "measurements": len({entry["measurement"] or entry["id"] for entry in ledger}),
        "same": shared_measurements(ledger),
        "unsound": unsound(ledger),
        "shared": shared_provenance(ledger),
        "span": span(ledger),
        "places": places,
        "figures": drawn,
        "letters": letters,
        "width": WIDTH,
        "sentences": page.sentences,
        "tables": page.tables,
        "speed": page.speed,
        "alphas": page.alphas,
    }
    for name in ("report.md", "report.html"):
        with replacing(out / name) as temporary:
            temporary.write_text(_templates().get_template(f"{name}.j2").render(content), encoding="utf-8")


@cache
def _templates() -> Environment:
    pages = Environment(
        loader=PackageLoader("experiments.ledger"),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    pages.filters.update(
        number=number, interval=interval, allowed=allowed, duration=duration, short=short, method=method
    )
    pages.filters.update(reply=reply)
    pages.filters.update(plain=plain, sub=subscripts, math=mathematics, strip=strip, symbols=symbols, alike=alike)
    return pages


def _shown(value: Any) -> Any:
    """Write a value for the page: text in which every character shows itself."""
    if isinstance(value, Markup):
        return Markup(visible(str(value)))
    return visible(value) if isinstance(value, str) else value


def parts(ledger: Sequence[Entry]) -> list[Part]:
    """Set the statements of every source apart, each in the groups that it has, in their order."""
    papers = {entry["paper"]["key"]: entry["paper"] for entry in ledger}
    return [_part(paper, [e for e in ledger if e["paper"]["key"] == key]) for key, paper in papers.items()]


def _part(paper: Mapping[str, str], ledger: Sequence[Entry]) -> Part:
    groups = {group: found for group in GROUPS if (found := [e for e in ledger if e["group"] == group])}
    name = "The paper’s statements" if paper["key"] == SUBJECT else paper["name"]
    return Part(name, groups, paper["key"], paper["title"], paper["address"], counts(ledger))


def figure_places(ledger: Sequence[Entry], page: Page) -> dict[str, str]:
    """Name for every figure that has been drawn where it stands, once: on the first card that wants it."""
    wanted = [(entry["figure"]["name"], entry["id"]) for entry in ledger if entry["figure"]]
    wanted += [(name, "speed") for name in (page.speed.figures if page.speed else ())]
    drawn = [(name, place) for name, place in wanted if (page.figures / f"{name}.svg").exists()]
    return dict(reversed(drawn))


def counts(items: Iterable[Entry]) -> dict[str, int]:
    """Count those that have each verdict, in the order of `VERDICTS`."""
    found = Counter(item["verdict"] for item in items)
    return {verdict: found[verdict] for verdict in VERDICTS}


def unsound(ledger: Iterable[Entry]) -> list[str]:
    """List the decided claims whose near control was run and not refuted: there the verdict says little."""
    decided = [e for e in ledger if e["control"] and e["verdict"] in ("supported", "refuted")]
    return [e["id"] for e in decided if e["control"]["verdict"] in ("supported", "inconclusive")]


def shared_measurements(ledger: Sequence[Entry]) -> dict[str, list[str]]:
    """Name for every claim the others that rest on the same measurement."""
    return {
        entry["id"]: [o["id"] for o in ledger if o is not entry and o["measurement"] == entry["measurement"]]
        for entry in ledger
        if entry["measurement"]
    }


def alike(readings: Sequence[Entry]) -> list[Alike]:
    """Gather readings judged by the same few quantities, to be a table; those that stand alone come together last."""
    groups: dict[tuple[tuple[str, str], ...], list[Entry]] = {}
    for reading in readings:
        key = tuple((f["quantity"], allowed(f)) for f in reading["findings"] or [])
        groups.setdefault(key, []).append(reading)
    tables = [Alike(q, found) for q, found in groups.items() if len(found) > 1 and 0 < len(q) <= FEW]
    placed = {id(reading) for table in tables for reading in table.readings}
    alone = [reading for reading in readings if id(reading) not in placed]
    return [*tables, Alike((), alone)] if alone else tables


def shared_provenance(ledger: Iterable[Entry]) -> dict[str, str]:
    """Say what holds for every number of the ledger; "differs" where claims were computed in different ways."""
    values: dict[str, set[str]] = {}
    for entry in ledger:
        for name, value in (entry["provenance"] or {}).items():
            values.setdefault(name, set()).add(str(value))
    values.pop("created", None)
    return {name: found.pop() if len(found) == 1 else "differs, see each claim" for name, found in values.items()}


def span(ledger: Iterable[Entry]) -> tuple[str, str] | None:
    """Say when the first and the last of the numbers were computed, as far as that is known."""
    times = [str(e["provenance"]["created"]) for e in ledger if "created" in (e["provenance"] or {})]
    return (min(times), max(times)) if times else None
