"""Writes the front page, every statement on every problem, and a page for each source, from docs/ledger.json alone.

Site and report belong together: a report in which a statement has another verdict than in the ledger stops the build.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from experiments.ledger.first_screen import first_screen
from experiments.ledger.pages import MARKS, counts, parts, shared_provenance, span
from experiments.ledger.table import Entry, problems, read
from experiments.ledger.text import plain

HERE = Path(__file__).parent


def pages(docs: Path, readme: str) -> dict[str, str]:
    """Return the text of every page by its path, of the ledger and the report in `docs`."""
    ledger, report = read(docs / "ledger.json"), (docs / "report.md").read_text(encoding="utf-8")
    for entry in ledger:
        check_told(entry, report)
    sources = {f"papers/{part.key}": part for part in parts(ledger)}
    title, lede = re.findall(r"\A# (.+)\n\n(.+)", report)[0]
    content = {
        "title": title,
        "lede": lede,
        "lines": first_screen(ledger),
        "sources": sources,
        "problems": problems(ledger),
        "marks": MARKS,
        "counts": counts,
        "shared": shared_provenance(ledger),
        "span": span(ledger),
        "digest": hashlib.sha256((docs / "ledger.json").read_bytes()).hexdigest(),
        "guides": guides(docs, readme),
    }
    made = {"index.md": render("index.md.j2", content)}
    for path, part in sources.items():
        made[f"{path}.md"] = render("paper.md.j2", content | {"part": part})
    return made


def check_told(entry: Entry, report: str) -> None:
    """Raise `ValueError` unless the report says of a statement what the ledger does."""
    told = re.search(rf"^### {re.escape(entry['id'])}\n\n(?:\S )?\*\*(.+?)\.\*\*", report, re.MULTILINE)
    if told is None or told[1].lower() != entry["verdict"]:
        found = f"{told[1].lower()!r}" if told else "nothing"
        raise ValueError(f"report.md: says {found} of {entry['id']}, ledger.json {entry['verdict']!r}; make reference")


def guides(docs: Path, readme: str) -> list[str]:
    """List the pages of `docs` in the order in which README leads to them, then those that it does not name."""
    named = re.findall(r"\]\(docs/([\w-]+)\.md\)", readme.partition("\n## Where next")[2])
    return list(dict.fromkeys([*named, *sorted(path.stem for path in docs.glob("*.md"))]))


def links(ids: Sequence[str], to_docs: str) -> str:
    """Link statements to their sections of the report."""
    return ", ".join(f"[{name}]({to_docs}/report.md#{name.lower()})" for name in ids)


def render(template: str, content: Mapping[str, object]) -> str:
    found = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters.update(plain=plain, links=links)
    return found.get_template(template).render(content)
