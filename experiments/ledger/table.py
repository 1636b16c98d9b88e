"""Read back a ledger as it was written, as a table."""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.lab import json_files
from experiments.lab.errors import RecordError
from experiments.lab.json_files import Check, by_name, each, fields, is_number, is_text, is_truth, one_of, or_none
from experiments.ledger.claim import GROUPS
from experiments.ledger.verdict import VERDICTS
from signal_drift.display import Table, displayed_as
from signal_drift.errors.words import printable, shown

Entry = dict[str, Any]
SCHEMA = "signal_drift/ledger/1"
"""What a ledger.json says that it is; `docs/ledger.schema.json` describes it."""
PAPER = ("key", "name", "title", "address")
"""What an entry says of the source of its claim."""


def _entries(entries: "Entries") -> Table:
    counts = {v: sum(entry["verdict"] == v for entry in entries) for v in VERDICTS}
    title = f"{len(entries)} claims: {', '.join(f'{n} {v}' for v, n in counts.items() if n)}"
    rows = [(e["id"], e["verdict"], e["statement"]) for e in entries]
    return Table(title, ("claim", "verdict", "statement"), rows, most=len(rows))


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
    return Entries(visible(read_file(path)["claims"]))


def read_file(path: Path) -> dict[str, Any]:
    """Return a ledger.json whole: its schema, its manifest and its claims, every text as it is written.

    Raises `RecordError` for a file that is not one, or one of another schema.
    """
    try:
        found = json_files.read(path, lambda x: True)
        if not is_file(found):
            raise ValueError(_refusal(found))
        return found
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RecordError(f"ledger: {str(path)!r} is no ledger.json ({reason})") from None


def _refusal(found: Any) -> str:
    """Why what a file holds is no ledger."""
    if isinstance(found, list):
        return f"a list without a schema, as before {SCHEMA}"
    stated = found.get("schema") if isinstance(found, dict) else None
    other = isinstance(stated, str) and stated != SCHEMA
    return f"its schema is {shown(stated)}, known is {SCHEMA!r}" if other else "not what it has to be"


def visible(value: Any) -> Any:
    """Escape what would command a terminal in every text of an entry, all but the ends of lines."""
    if isinstance(value, str):
        return "\n".join(map(printable, value.split("\n")))
    if isinstance(value, list):
        return [visible(x) for x in value]
    return {visible(k): visible(x) for k, x in value.items()} if isinstance(value, dict) else value


def is_pair(x: Any) -> bool:
    """Tell whether these are the ends of an interval or a band, None where it is unbounded."""
    return isinstance(x, list) and len(x) == 2 and all(map(or_none(is_number), x))


def is_name(x: Any) -> bool:
    """Tell whether a text can name a file and a place on a page."""
    return isinstance(x, str) and re.fullmatch(r"[\w-]+", x) is not None


def is_seeds(x: Any) -> bool:
    return isinstance(x, int) and not isinstance(x, bool) and 0 < x < 10**9


def is_share(x: Any) -> bool:
    return is_number(x) and 0 <= x <= 1


def is_level(x: Any) -> bool:
    return is_number(x) and 0 < x < 1


is_verdict = one_of(VERDICTS)
is_finding = fields(
    {
        **dict.fromkeys(("quantity", "predicted", "method", "tolerance"), is_text),
        "band": is_pair,
        "measured": or_none(is_number),
        "interval": or_none(is_pair),
        "confidence": is_level,
        "seeds": or_none(is_seeds),
        "verdict": is_verdict,
    },
    power=is_share,
    problem=is_text,
)
is_reading = fields(
    {
        **dict.fromkeys(("name", "problem", "statement", "command", "sentence", "reason"), is_text),
        "verdict": is_verdict,
        "findings": each(is_finding),
    },
    sound=is_truth,
)
JUDGED: Mapping[str, Check] = {
    **dict.fromkeys(("sentence", "reason", "evidence_wanted"), is_text),
    **dict.fromkeys(("command", "predicted", "tolerance", "narrowest"), or_none(is_text)),
    **dict.fromkeys(("measured", "seconds"), or_none(is_number)),
    "power": or_none(is_share),
    "verdict": is_verdict,
    "interval": or_none(is_pair),
    "findings": each(is_finding),
    "control": or_none(is_reading),
    "readings": each(is_reading),
    "figure": or_none(fields({"name": is_name, "caption": is_text})),
    "provenance": by_name(is_text),
}
"""What is said of a statement on one problem, and as its homes decide it together."""
is_cell = fields(
    {
        **JUDGED,
        "label": is_text,
        "statement": or_none(is_text),
        "seeds": or_none(is_seeds),
        "records": or_none(is_text),
    }
)
is_entry = fields(
    {
        **JUDGED,
        **dict.fromkeys(("source", "statement", "formula", "setting", "measurement", "rerun"), is_text),
        "id": is_name,
        "group": one_of(GROUPS),
        "ours": is_truth,
        "paper": fields(dict.fromkeys(PAPER, is_text)),
        "assumptions": each(is_text),
        "problems": by_name(is_cell),
    }
)


def is_digest(x: Any) -> bool:
    return isinstance(x, str) and re.fullmatch(r"[0-9a-f]{64}", x, re.ASCII) is not None


def is_ledger(x: Any) -> bool:
    """Tell whether these are entries as `ledger.entry` makes them, one for each claim."""
    return each(is_entry)(x) and len({entry["id"] for entry in x}) == len(x)


is_manifest = fields(
    {"commit": is_text, "claims": is_digest, "code": by_name(is_digest), "records": by_name(is_digest)}
)
is_file = fields({"schema": one_of([SCHEMA]), "manifest": is_manifest, "claims": is_ledger})
