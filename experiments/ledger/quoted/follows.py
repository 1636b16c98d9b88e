"""Say whether the verdicts of a ledger follow from the findings that stand beside them, as far as the file has those.

A finding is supported if its interval lies in its band, and can be refuted only if it lies apart from it; as Holm's
level is stricter than that of the interval, what lies apart may be undecided where several are sampled.
A statement is refuted if one of its findings is, and supported if all are. A claim has the findings of its homes, which
are the problems whose commands it names. Over several of them Holm's level is that of all findings together, so that
what one home refutes may be undecided; with one home the claim has its verdict.
"""

import math
import re
from collections.abc import Iterator, Sequence

from experiments.ledger.strips import ends
from experiments.ledger.table import Entry
from experiments.ledger.verdict import Band

FALLEN = {"refuted", "not run", "not testable here"}
"""Verdicts of a control that leave a supported statement standing."""
OPEN = "inconclusive"
DECIDED = ("supported", "refuted", OPEN)
"""Verdicts that rest on findings."""


def doubts(claims: Sequence[Entry]) -> Iterator[str]:
    """Name every verdict of the claims that does not follow, one line each."""
    for entry in claims:
        name = entry["id"]
        yield from _of_homes(name, entry)
        for where, cell in entry["problems"].items():
            yield from _of(f"{name} on {where}", cell)
            yield from _of_power(f"{name} on {where}", cell, [f.get("power") for f in cell["findings"]])
            yield from _of_control(f"{name} on {where}", cell)
            if cell["verdict"] in DECIDED and not re.fullmatch("[0-9a-f]{16}", cell["records"] or "", re.ASCII):
                yield f"{name} on {where}: it is decided without the digest of a record"
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
    sampled = [f for f in findings if f["seeds"]]
    left = len(sampled) - sum(f["verdict"] == "refuted" for f in sampled)
    for finding in findings:
        alone = left <= 1 or not finding["seeds"]
        if not can_be(finding, alone):
            yield f"{what}: {finding['quantity']} is not {finding['verdict']!r} by its interval and its band"


def _of_power(what: str, judged: Entry, powers: Sequence[float | None]) -> Iterator[str]:
    if judged["power"] != min((x for x in powers if x is not None), default=None):
        yield f"{what}: its power {judged['power']} is not the least of those that it rests on"


def _of_control(what: str, cell: Entry) -> Iterator[str]:
    """Doubt what is said of a control, sound unless it is supported, or not refuted beside what is supported."""
    control = cell["control"]
    if control is None:
        return
    sound = control["verdict"] in FALLEN or "supported" not in (control["verdict"], cell["verdict"])
    if control.get("sound") != sound:
        yield f"{what}: its control is {control['verdict']!r}, which is {'' if sound else 'not '}sound"


def whole(verdicts: Sequence[str]) -> tuple[str, ...]:
    """Return what a statement with these findings can be: of none it was not measured, or has nothing to decide it."""
    if not verdicts:
        return ("not run", "not testable here")
    return ("refuted",) if "refuted" in verdicts else ("supported",) if set(verdicts) == {"supported"} else (OPEN,)


def homes_of(entry: Entry) -> list[Entry]:
    """Return the cells of the problems that decide a claim, those whose commands it names, each with its problem."""
    commands = (entry["command"] or "").split("\n")
    return [cell | {"problem": name} for name, cell in entry["problems"].items() if cell["command"] in commands]


def _of_homes(name: str, entry: Entry) -> Iterator[str]:
    """Doubt what is said of a claim as all its homes decide it together."""
    homes, findings, verdict = homes_of(entry), entry["findings"], entry["verdict"]
    if {home["command"] for home in homes} != set((entry["command"] or "").split("\n")):
        yield f"{name}: its command is not that of any of its problems"
    of_homes = [finding | {"problem": home["problem"]} for home in homes for finding in home["findings"]]
    if _sorted(findings) != _sorted(of_homes):
        yield f"{name}: its findings are not those of its homes"
    if not all(r in entry["problems"].get(r["problem"], {"readings": ()})["readings"] for r in entry["readings"]):
        yield f"{name}: its readings are not those of its problems"
    if findings and verdict in DECIDED and not any(_shows(entry, f) for f in findings):
        yield f"{name}: what it says was measured is none of its findings"
    yield from _of_power(name, entry, [home["power"] for home in homes])
    controls = [home["control"] for home in homes if home["control"]]
    if (entry["control"] is None) != (not controls) or not all(x["sound"] for x in [*controls, *_some(entry)]):
        yield f"{name}: its control is not that of its homes, or is not sound"
    if verdict not in over_homes(homes, findings):
        yield f"{name}: the verdict {verdict!r} does not follow from its findings"


def over_homes(homes: Sequence[Entry], findings: Sequence[Entry]) -> tuple[str, ...]:
    """Return what a claim can be by the verdicts of its homes and all their findings."""
    asked = [home["verdict"] for home in homes if home["verdict"] != "not testable here"]
    if not asked or "not run" in asked:
        return ("not run",) if asked else ("not testable here",)
    if len(asked) == 1:
        return (asked[0],)
    each = {f["verdict"] for f in findings}
    if each == {"supported"}:
        return ("supported",) if len({f["confidence"] for f in findings}) == 1 else ("supported", OPEN)
    if "refuted" not in each:
        return (OPEN,)
    exact = any(f["verdict"] == "refuted" and not f["seeds"] for f in findings)
    return ("refuted",) if exact else ("refuted", OPEN)


def _some(entry: Entry) -> list[Entry]:
    return [entry["control"]] if entry["control"] else []


def _sorted(findings: Sequence[Entry]) -> list[str]:
    """Write findings so that their order does not count."""
    return sorted(repr(sorted(finding.items())) for finding in findings)


def _shows(entry: Entry, finding: Entry) -> bool:
    """Whether what is shown first of a claim is this finding; its interval may be of another level over all homes."""
    return all(entry[key] == finding[key] for key in ("predicted", "measured", "tolerance"))


def can_be(finding: Entry, alone: bool = False) -> bool:
    """Tell whether a finding can have its verdict, and is written as it should be.

    `alone`: no other is left that is sampled, so that its own level is the one it is refuted at.
    """
    if not _is_whole(finding):
        return False
    if finding["measured"] is None:
        return _infinite_can_be(finding)
    within, apart = _lies(finding, inside=True), lies_apart(finding)
    open_ = not within and not (alone and apart)
    return {"supported": within, "refuted": apart, OPEN: open_}.get(finding["verdict"], False)


def _is_whole(finding: Entry) -> bool:
    """Whether the band is the one that is written out, and the interval contains what was measured."""
    bottom, top = ends(finding["band"])
    opened = Band(
        math.nextafter(bottom, math.inf) if finding["predicted"].startswith(">") else bottom,
        math.nextafter(top, -math.inf) if finding["predicted"].startswith("<") else top,
        "",
    )
    low, high = ends(finding["interval"])
    measured = finding["measured"]
    return bottom <= top and str(opened) == finding["predicted"] and (measured is None or low <= measured <= high)


def _infinite_can_be(finding: Entry) -> bool:
    """Whether what is infinite, or no number, can have the verdict: the file does not say which of them it is."""
    bottom, top = ends(finding["band"])
    known = [x for x in finding["interval"] or () if x is not None]
    inside = all(bottom <= x <= top for x in known) and not math.isfinite(top - bottom)
    above, below = math.isfinite(top) and all(x > top for x in known), all(x < bottom for x in known)
    outside = above or (math.isfinite(bottom) and below)
    return {"supported": inside, "refuted": outside, OPEN: True}.get(finding["verdict"], False)


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
