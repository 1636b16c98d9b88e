"""Say in eight lines what was found. Each follows from verdicts; with others it says something else, or nothing."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from experiments.ledger.claim import DERIVED, SUBJECT
from experiments.ledger.table import Entry
from experiments.ledger.text import interval, number, short
from experiments.ledger.verdict import VERDICTS

LITTLE = 0.5
"""The power below which a statement that is supported does not count as holding."""
DECIDED = ("supported", "refuted", "inconclusive")
LAWS = ("P3-trace", "P4-landscape", "K1-alignment", "F8a-suppression", "F8b-trace-by-rank", "F8d-asymmetry")
PREMISE, TRAJECTORIES = "P2-premise", "F2a-trajectories"
CULPRIT, MECHANISM = ("C2", "C1"), ("C1", "C2", "C3", "C4")
"""What removing the drift does to jitter and to the largest stable η; all that is said of it as a cause."""
NEW = {
    "X4": "under Adam from B = 0, α is the learning rate of B",
    "X1": "the spectrum of the drift is ±sσᵢ(G), each r-fold",
    "X13": "at B = 0, H_LoRA has negative eigenvalues whatever H_ℓ and α are",
    "X12": "the drift descends while gradients persist",
}
"""What is said of our own statements, where they are supported."""


class Line(NamedTuple):
    """Hold one line: its mark (a verdict, or "new"), what stands in bold, the rest, and the claims that it is about."""

    mark: str
    title: str
    words: str
    ids: tuple[str, ...]


def first_screen(ledger: Sequence[Entry]) -> list[Line]:
    """Make the lines that the entries give, in the order of the theory; what other papers state is the last."""
    here, elsewhere = ([e for e in ledger if is_here(e) == here] for here in (True, False))
    lines = [*(make(here) for make in MAKERS), others(elsewhere)]
    return [line for line in lines if line]


def is_here(entry: Entry) -> bool:
    """Tell whether it is a statement of the paper that the report is about, or our own."""
    return bool(entry["ours"]) or entry["paper"]["key"] == SUBJECT


def algebra(ledger: Sequence[Entry]) -> Line | None:
    """Say whether the identities and inequalities hold, those of the paper and our own."""
    named = (*LAWS, PREMISE)
    asked = _decided(e for e in ledger if e["group"] == "algebra" and e["id"] not in named)
    mark = _together(asked)
    if mark is None:
        return None
    own = sum(bool(e["ours"]) for e in asked)
    title = {
        "supported": "The algebra is exact",
        "refuted": "The algebra does not hold as stated",
        "inconclusive": "The algebra is exact as far as it is decided",
    }[mark]
    whose = f"{len(asked) - own} of them the paper’s and {own} our own"
    told = () if mark == "supported" else _ids(asked, mark)  # all of them are a group of the matrix
    return Line(mark, title, f"{_of(asked)} statements hold, {whose}{_others(asked)}", told)


def laws(ledger: Sequence[Entry]) -> Line | None:
    """Say whether the laws in α, r and σ_A hold while the weights are kept, with the trace law's number."""
    asked = _decided(e for e in ledger if e["id"] in LAWS)
    mark = _together(asked)
    if mark is None:
        return None
    title = {
        "supported": "At fixed weights the scaling laws hold",
        "refuted": "At fixed weights not all scaling laws hold",
        "inconclusive": "At fixed weights the scaling laws are not all decided",
    }[mark]
    trace = next((e for e in asked if e["id"] == "P3-trace"), asked[0])
    quoted = _quoted(trace["findings"], trace["verdict"])
    measured = f"; {quoted}" if quoted else ""
    return Line(mark, title, f"{_of(asked)} laws hold{measured}{_others(asked)}", _ids(asked, mark))


def premise(ledger: Sequence[Entry]) -> Line | None:
    """Say whether the curvature is positive, as the paper needs it to be, with the lowest eigenvalue measured."""
    asked = _decided(e for e in ledger if e["id"] == PREMISE)
    if not asked:
        return None
    (entry,) = asked
    mark = entry["verdict"]
    title = {
        "supported": "The premise of positive curvature holds",
        "refuted": "The premise of positive curvature fails",
        "inconclusive": "The premise of positive curvature is undecided",
    }[mark]
    quoted = _quoted(entry["findings"], mark) or entry["sentence"]
    cells = _decided(entry["problems"].values())
    where = f"; {mark} on {sum(c['verdict'] == mark for c in cells)} of {len(cells)} problems asked" if cells else ""
    return Line(mark, title, f"{quoted}{where}", (PREMISE,))


def divergence(ledger: Sequence[Entry]) -> Line | None:
    """Say whether 128·η₀ diverges, as Fig. 2a has it, and under how many readings of the experiment."""
    entry = next((e for e in ledger if e["id"] == TRAJECTORIES), None)
    about = [f for f in (entry["findings"] or [] if entry else []) if _diverges(f)]
    if entry is None or not about:
        return None
    found = about[0]
    readings = [f["verdict"] for reading in entry["readings"] or [] for f in reading["findings"] or [] if _diverges(f)]
    diverges = readings.count("supported")
    title = {
        "supported": "128·η₀ diverges, as Fig. 2a has it",
        "refuted": "128·η₀ does not diverge" + ("" if diverges else " under any reading" if readings else ""),
        "inconclusive": "Whether 128·η₀ diverges is undecided",
    }[found["verdict"]]
    tried = f", and under {diverges} of {len(readings)} other readings of the setting" if readings else ""
    return Line(found["verdict"], title, f"{_seen(found)}{tried}", (TRAJECTORIES,))


def culprit(ledger: Sequence[Entry]) -> Line | None:
    """Say whether it is the drift that troubles a large η, with what removing it does."""
    asked = _decided(e for e in ledger if e["id"] in MECHANISM)
    causes = [e for name in CULPRIT for e in asked if e["id"] == name]
    mark = _together(causes)
    if mark is None:
        return None
    title = {
        "supported": "The drift is what troubles a large η",
        "refuted": "The drift is not shown to be what troubles a large η"
        if any(e["verdict"] == "supported" for e in causes)
        else "The drift is not what troubles a large η",
        "inconclusive": "Whether the drift is what troubles a large η is undecided",
    }[mark]
    told = next((e for e in causes if e["verdict"] == mark), causes[0])
    quoted = _quoted(told["findings"], mark) or told["sentence"]
    return Line(
        mark, title, f"{quoted}; {_of(asked)} statements on it as a cause hold{_others(asked)}", _ids(asked, None)
    )


def tuning(ledger: Sequence[Entry]) -> Line | None:
    """Say of the best α, √r and the protocol what is decided, and what cannot be tested at this size and why."""
    asked = [e for e in ledger if e["group"] == "tuning" and not e["ours"] and e["verdict"] != "not run"]
    if not asked:
        return None
    words = ", ".join(f"{n} {v}" for v in VERDICTS if (n := sum(e["verdict"] == v for e in asked)))
    untested = [e for e in asked if e["verdict"] == "not testable here"]
    why = f". Not testable at this size: {_because(untested)}" if untested else ""
    verdicts = {e["verdict"] for e in asked}
    mark = verdicts.pop() if len(verdicts) == 1 else "inconclusive"
    return Line(mark, "Best α, √r and the protocol", f"Of {len(asked)} statements: {words}{why}", _ids(asked, None))


def new(ledger: Sequence[Entry]) -> Line | None:
    """Say which of our own statements of note are supported, and how many in all."""
    own = _decided(e for e in ledger if e["ours"])
    held = [e["id"] for e in own if e["verdict"] == "supported" and e["id"] in NEW]
    if not held:
        return None
    held.sort(key=list(NEW).index)
    words = "; ".join(NEW[name] for name in held)
    return Line("new", f"New: {words}", f"{_of(own)} statements of our own hold{_others(own)}", tuple(held))


def others(ledger: Sequence[Entry]) -> Line | None:
    """Say how the statements of other papers fare, and apart from them those that are only derived from one.

    What is supported with little power does not count as holding; of what else does not hold it is said whether it was
    asked on other tasks than the authors'.
    """
    asked = _decided(ledger)
    mark = _together(asked)
    if mark is None:
        return None
    papers = len({e["paper"]["key"] for e in asked})
    derived = [e for e in asked if e["source"].startswith(DERIVED)]
    stated = [e for e in asked if e not in derived]
    told = [f"{_of(stated)} statements hold{_others(stated, _elsewhere)}"] if stated else []
    told += [f"{_of(derived)} derived from them hold{_others(derived, _elsewhere)}"] if derived else []
    untested = sum(e["verdict"] == "not testable here" for e in ledger)
    told += [f"{untested} not testable here"] if untested else []
    title = f"What {papers} other {'papers state' if papers > 1 else 'paper states'}"
    return Line(mark, title, "; ".join(told), _ids(asked, None))


def _is_weak(entry: Entry) -> bool:
    """Whether it is supported, but would as likely as not have been if it were false by two margins."""
    return entry["verdict"] == "supported" and entry["power"] is not None and entry["power"] < LITTLE


def _elsewhere(entry: Entry) -> str:
    """Say of what was not asked where its authors saw it, which `setting` names, that it was not."""
    return " here, on other tasks than theirs" if entry["setting"] else ""


MAKERS: tuple[Callable[[Sequence[Entry]], Line | None], ...] = (
    algebra,
    laws,
    premise,
    divergence,
    culprit,
    tuning,
    new,
)
"""One for each line."""


def _decided(items: Iterable[Entry]) -> list[Entry]:
    return [item for item in items if item["verdict"] in DECIDED]


def _together(asked: Sequence[Entry]) -> str | None:
    """One verdict for several claims: refuted if one is, supported if all hold; None for no claims."""
    found = {e["verdict"] for e in asked}
    if not found:
        return None
    holds = found == {"supported"} and not any(map(_is_weak, asked))
    return "refuted" if "refuted" in found else "supported" if holds else "inconclusive"


def _of(asked: Sequence[Entry]) -> str:
    """Count those that hold; what is supported with little power does not."""
    held = sum(e["verdict"] == "supported" and not _is_weak(e) for e in asked)
    return f"All {held}" if held == len(asked) > 1 else f"{held} of {len(asked)}"


def _others(asked: Sequence[Entry], where: Callable[[Entry], str] = lambda entry: "") -> str:
    """Name those that do not hold, by how, and `where`."""
    how: dict[str, list[str]] = {}
    for verdict in DECIDED:
        for entry in (e for e in asked if e["verdict"] == verdict):
            if verdict != "supported":
                how.setdefault(f"{verdict}{where(entry)}", []).append(entry["id"])
            elif _is_weak(entry):
                how.setdefault("supported with little power", []).append(entry["id"])
    return "".join(f"; {words}: {', '.join(ids)}" for words, ids in how.items())


def _ids(asked: Sequence[Entry], mark: str | None) -> tuple[str, ...]:
    """Name the claims to link to: those that have the verdict, what is weak among the undecided, or all."""
    weak = {e["id"] for e in asked if mark == "inconclusive" and _is_weak(e)}
    return tuple(e["id"] for e in asked if mark in (None, e["verdict"]) or e["id"] in weak)


def _quoted(findings: Sequence[Entry] | None, verdict: str) -> str:
    """Write the first finding of this verdict that has an interval; of those, none is the first."""
    told = [f for f in findings or [] if f["verdict"] == verdict and f["measured"] is not None]
    return _measured(next((f for f in told if interval(f["interval"])), told[0])) if told else ""


def _measured(finding: Entry) -> str:
    around = interval(finding["interval"])
    value = f"{finding['quantity']}: {number(finding['measured'])}{f' {around}' if around else ''}"
    return short(value + (f" over {finding['seeds']} samples" if finding["seeds"] else ""))


def _seen(finding: Entry) -> str:
    """Write a share of seeds as what it counts."""
    if finding["measured"] is None or not finding["seeds"]:
        return _measured(finding)
    around = interval(finding["interval"])
    hits = f"It diverged at {round(finding['measured'] * finding['seeds'])} of {finding['seeds']} seeds"
    return f"{hits}{f', a share within {around}' if around else ''}"


def _diverges(finding: Entry) -> bool:
    return "128·η₀" in finding["quantity"] and "diverge" in finding["quantity"]


def _because(untested: Sequence[Entry]) -> str:
    """Give the reasons, each once, with the claims that it holds for."""
    reasons: dict[str, list[str]] = {}
    for entry in untested:
        reasons.setdefault((entry["sentence"] or "no reason is recorded").rstrip("."), []).append(entry["id"])
    return "; ".join(f"{', '.join(ids)} ({why})" for why, ids in reasons.items())
