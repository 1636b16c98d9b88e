"""Quotes from a ledger what is known of the rules for α: verdict, sentence and power, on each problem by its label.

A ledger is a file, as `python -m experiments ledger` and `python -m experiments verify` write it.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from signal_drift.display import number
from signal_drift.errors import InputError
from signal_drift.errors.arguments import is_real
from signal_drift.errors.words import printable, shown
from signal_drift.files import read_json

SCHEMA = "signal_drift/ledger/1"
"""What a ledger says that it is; docs/ledger.schema.json describes it."""
RULES = ("V1", "V2", "F1c-square-root", "V-protocol", "X16-best-alpha")
"""The claims that say which α is best, or what a rule for it is worth."""
CLAIMS = (*RULES, "X8")
"""Those, and the one that the size of the first step is taken from, which says nothing of what is best."""
VERDICTS = ("supported", "refuted", "inconclusive", "not testable here", "not run")
POWER = 0.5
"""Support with less power does not count: a truth two margins off would more likely than not have passed too."""


class Judged(NamedTuple):
    """Holds what was found, in the ledger's words; `power` is None where nothing was decided."""

    verdict: str
    sentence: str
    power: float | None


class Known(NamedTuple):
    """Holds one claim: as its homes decide it together, and on each problem by the problem's label."""

    claim: str
    statement: str
    judged: Judged
    problems: dict[str, Judged]

    @property
    def recommended(self) -> bool:
        """Tell whether it is a rule that is supported as stated and on a problem, with a power of at least `POWER`."""
        enough = self.judged.verdict == "supported" and (self.judged.power or 0.0) >= POWER
        return self.claim in RULES and enough and bool(_where(self, "supported"))


def read_ledger(path: str | Path) -> tuple[Known, ...]:
    """Read what a ledger has of `CLAIMS`, in this order.

    Raises `InputError` for what is no JSON, is of another schema, or has none of the claims, or one twice; and where
    the claims are not those whose SHA-256 its manifest states, for it was altered after it was written.
    """
    whole = read_json(Path(path))
    stated = whole.get("schema") if isinstance(whole, dict) else None
    if stated != SCHEMA:
        raise InputError(f"ledger: must be of the schema {SCHEMA!r}, got {shown(stated)}")
    found = whole.get("claims")
    if not isinstance(found, list) or not all(isinstance(x, dict) and isinstance(x.get("id"), str) for x in found):
        raise InputError(f"ledger: claims must be a list of objects with an id, got {shown(found)}")
    _check_digest(found, whole.get("manifest"))
    entries = {entry["id"]: entry for entry in found}
    if len(entries) < len(found):
        twice, _ = Counter(entry["id"] for entry in found).most_common(1)[0]
        raise InputError(f"ledger: has the claim {shown(twice)} twice")
    known = tuple(_known(claim, entries[claim]) for claim in CLAIMS if claim in entries)
    if not known:
        raise InputError(f"ledger: has none of {', '.join(CLAIMS)}, got {len(found)} claims")
    return known


def conclusion(known: Sequence[Known]) -> str:
    """Say which rules are supported as stated and where, and recommend nothing beyond."""
    rules = [x for x in known if x.claim in RULES]
    told = [f"{x.claim} on {'; '.join(_where(x, 'supported'))}" for x in rules if x.recommended]
    if told:
        return f"Supported as stated: {', and '.join(told)}. Beyond these problems no rule is recommended."
    others = ", ".join(f"{x.claim} is {x.judged.verdict}{_power(x.judged)}" for x in rules) or "the ledger has no rule"
    least = f"as stated and on a problem none is supported with a power of {POWER:g} or more"
    return f"No rule is recommended: {least} ({others})."


def as_paragraphs(known: Sequence[Known]) -> str:
    """Write each claim with its verdict, and its problems verdict by verdict."""
    return "\n".join(line for x in known for line in _paragraph(x))


def _paragraph(x: Known) -> list[str]:
    told = [(label, y) for v in VERDICTS[:3] for label, y in x.problems.items() if y.verdict == v]
    again = x.judged.sentence in {y.sentence for _, y in told}  # the ledger quotes one of them for all
    lines = [f"{x.claim}: {x.statement}", f"  {_told('all it is stated for', x.judged, again)}"]
    lines += [f"  {_told(label, y)}" for label, y in told]
    lines += [f"  {verdict}: {'; '.join(labels)}" for verdict in VERDICTS[3:] if (labels := _where(x, verdict))]
    return [printable(line) for line in lines]


def _told(label: str, x: Judged, brief: bool = False) -> str:
    return f"{x.verdict}{_power(x)}, {label}{'.' if brief else f': {x.sentence}'}"


def _power(x: Judged) -> str:
    return "" if x.power is None else f" (power {number(x.power)})"


def _where(x: Known, verdict: str) -> list[str]:
    return [label for label, y in x.problems.items() if y.verdict == verdict]


def _check_digest(claims: list[Any], manifest: Any) -> None:
    """Compare the SHA-256 of the claims, as JSON with sorted keys and no blanks, in UTF-8, with the manifest's."""
    stated = manifest.get("claims") if isinstance(manifest, dict) else None
    try:
        text = json.dumps(claims, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        digest = hashlib.sha256(text.encode()).hexdigest()
    except (ValueError, RecursionError) as error:
        raise InputError(f"ledger: claims cannot be written as JSON ({type(error).__name__})") from None
    if stated != digest:
        raise InputError(f"ledger: is altered, the SHA-256 of its claims must be {shown(stated)}, got {digest!r}")


def _known(claim: str, entry: dict[str, Any]) -> Known:
    cells = _field(claim, entry, "problems", dict)
    problems = {}
    for name, cell in cells.items():
        at = f"{claim} on {name}"
        if not isinstance(cell, dict):
            raise InputError(f"ledger: {printable(at)} must be an object, got {shown(cell)}")
        problems[_field(at, cell, "label", str)] = _judged(at, cell)
    return Known(claim, _field(claim, entry, "statement", str), _judged(claim, entry), problems)


def _judged(at: str, entry: dict[str, Any]) -> Judged:
    verdict, power = _field(at, entry, "verdict", str), _field(at, entry, "power", object)
    if verdict not in VERDICTS:
        raise InputError(
            f"ledger: verdict of {printable(at)} must be one of {', '.join(VERDICTS)}, got {shown(verdict)}"
        )
    if power is not None and not (is_real(power) and 0 <= power <= 1):
        raise InputError(f"ledger: power of {printable(at)} must be from 0 to 1 or null, got {shown(power)}")
    return Judged(verdict, _field(at, entry, "sentence", str), power)


def _field(at: str, entry: dict[str, Any], name: str, kind: type) -> Any:
    if name not in entry:
        raise InputError(f"ledger: is of another schema, {printable(at)} has no {name!r}")
    if not isinstance(entry[name], kind):
        raise InputError(f"ledger: {name} of {printable(at)} must be {kind.__name__}, got {shown(entry[name])}")
    return entry[name]
