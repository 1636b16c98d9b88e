"""Say whether the verdicts of a ledger follow from the findings that stand beside them, as far as the file has those.

A finding is supported if its interval lies in its band, and can be refuted only if it lies apart from it; as Holm's
level is stricter than the one that the interval is given at, what lies apart may be undecided. A statement is refuted
if one of its findings is, and supported if all are. Over its homes the level is that of all findings together.
"""

import math
from collections.abc import Iterator, Sequence

from experiments.ledger.strips import ends
from experiments.ledger.table import Entry


def doubts(claims: Sequence[Entry]) -> Iterator[str]:
    """Name every verdict of the claims that does not follow, one line each."""
    for entry in claims:
        name = entry["id"]
        yield from _of_homes(name, entry)
        for where, cell in entry["problems"].items():
            yield from _of(f"{name} on {where}", cell)
            judged = [*cell["readings"], *([cell["control"]] if cell["control"] else [])]
            for reading in judged:
                yield from _of(f"{name} on {where}, {reading['name']}", reading)


def _of(what: str, judged: Entry) -> Iterator[str]:
    """Doubt the verdict of one statement on one problem, and those of its findings."""
    yield from _of_findings(what, judged["findings"])
    follows = whole([f["verdict"] for f in judged["findings"]])
    if judged["verdict"] not in follows:
        yield f"{what}: the verdict {judged['verdict']!r} does not follow from its findings ({' or '.join(follows)})"


def _of_findings(what: str, findings: Sequence[Entry]) -> Iterator[str]:
    for finding in findings:
        if not can_be(finding):
            yield f"{what}: {finding['quantity']} is not {finding['verdict']!r} by its interval and its band"


def whole(verdicts: Sequence[str]) -> tuple[str, ...]:
    """Return what a statement with these findings can be: of none it was not measured, or has nothing to decide it."""
    if not verdicts:
        return ("not run", "not testable here")
    return ("refuted",) if "refuted" in verdicts else ("supported",) if set(verdicts) == {"supported"} else (OPEN,)


OPEN = "inconclusive"


def _of_homes(name: str, entry: Entry) -> Iterator[str]:
    """Doubt the verdict of all homes together."""
    findings, verdict = entry["findings"], entry["verdict"]
    yield from _of_findings(name, findings)
    each = [f["verdict"] for f in findings]
    if verdict == "not run" or (verdict == "not testable here" and not findings):
        return
    apart = any(f["verdict"] == "refuted" or lies_apart(f) for f in findings)
    alike = len({f["confidence"] for f in findings}) == 1
    possible = {
        "supported": bool(each) and set(each) == {"supported"},
        "refuted": apart,
        OPEN: bool(each) and not (alike and set(each) == {"supported"}),
    }
    if not possible.get(verdict, False):
        yield f"{name}: the verdict {verdict!r} does not follow from its findings"


def can_be(finding: Entry) -> bool:
    """Tell whether a finding can have its verdict; what is not finite is not in the file, and is not doubted."""
    if finding["measured"] is None:
        return finding["verdict"] in ("supported", "refuted", OPEN)
    within = _lies(finding, inside=True)
    return {"supported": within, "refuted": lies_apart(finding), OPEN: not within}.get(finding["verdict"], False)


def lies_apart(finding: Entry) -> bool:
    """Tell whether the interval lies wholly outside the band; unknown, where the number is not in the file."""
    return finding["measured"] is None or _lies(finding, inside=False)


def _lies(finding: Entry, inside: bool) -> bool:
    """Whether the interval lies in the band, or wholly outside it; the end of "> 0" does not belong to the band."""
    bottom, top = ends(finding["band"])
    low, high = ends(finding["interval"] or [finding["measured"]] * 2)
    if finding["predicted"].startswith(">"):
        bottom = math.nextafter(bottom, math.inf)
    if finding["predicted"].startswith("<"):
        top = math.nextafter(top, -math.inf)
    return bottom <= low and high <= top if inside else high < bottom or low > top
