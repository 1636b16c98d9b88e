"""Read back a ledger as it was written, as a table."""

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from experiments.lab.errors import RecordError
from experiments.ledger.verdict import VERDICTS
from signal_drift.display import Table, displayed_as

Entry = dict[str, Any]


def _entries(entries: "Entries") -> Table:
    counts = {v: sum(entry["verdict"] == v for entry in entries) for v in VERDICTS}
    title = f"{len(entries)} claims: {', '.join(f'{n} {v}' for v, n in counts.items() if n)}"
    return Table(title, ("claim", "verdict", "statement"), [(e["id"], e["verdict"], e["statement"]) for e in entries])


def problems(ledger: Sequence[Entry]) -> dict[str, str]:
    """Name every problem of the ledger that was asked anything, with what it is."""
    cells = [(name, cell) for entry in ledger for name, cell in entry["problems"].items()]
    asked = {name for name, cell in cells if cell["verdict"] not in ("not run", "not testable here")}
    return {name: cell["label"] for name, cell in cells if name in asked}


@displayed_as(_entries)
class Entries(tuple[Entry, ...]):
    """Hold the claims of a ledger in its order."""

    __slots__ = ()

    def of(self, ids: Collection[str]) -> "Entries":
        """Select those with one of the `ids`."""
        return Entries(entry for entry in self if entry["id"] in ids)


def read(path: Path) -> Entries:
    """Return the entries of a ledger.json. Raises `RecordError` for a file that is not one."""
    try:
        entries = Entries(json.loads(path.read_text(encoding="utf-8")))
        _entries(entries)  # has what the table shows
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordError(f"ledger: {str(path)!r} is no ledger.json ({type(error).__name__})") from None
    return entries
