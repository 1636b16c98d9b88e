"""Answer from the entries what a reader asks first."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from experiments.ledger.table import Entry, problems
from experiments.ledger.text import duration
from experiments.ledger.verdict import VERDICTS

BETTER = ("F2a-trajectories", "F2b-drift-noise", "F2c-purity", "F1b-paths", "V-protocol", "C4", "X4", "X9")
"""Statements by which α beats η, or cannot."""
RULE = ("K1-alignment", "P3-trace", "X8", "V2", "V-protocol")
"""Statements on V2: what it is derived from, then how it does."""
EXAMPLE = "P3-trace"
DECIDED = ("supported", "refuted", "inconclusive")
"""Verdicts of what was measured."""


class Answer(NamedTuple):
    """Hold a question, the answer in a sentence, a command if there is one, and the entries that it rests on."""

    question: str
    words: str
    command: str
    entries: Sequence[Entry]


def questions(ledger: Sequence[Entry]) -> list[Answer]:
    """Make the answers, in the order in which readers asked."""
    makers: tuple[Callable[[Sequence[Entry]], Answer], ...] = (refuted, better, rule, untested, again)
    return [make(ledger) for make in makers]


def refuted(ledger: Sequence[Entry]) -> Answer:
    found = [e for e in ledger if e["verdict"] == "refuted"]
    words = f"{len(found)} of {len(ledger)} statements, each with its reason." if found else "Nothing."
    return Answer("What is refuted, and why?", words, "", found)


def better(ledger: Sequence[Entry]) -> Answer:
    """Say whether α beats η by the verdicts on the statements that need it to."""
    found = _named(ledger, BETTER)
    stated = [e for e in found if not e["ours"]]
    held = sum(e["verdict"] == "supported" for e in stated)
    answer = "Yes" if held == len(stated) else "In part" if held else "Not shown here"
    tally = f"{answer}: of {len(stated)} statements of the paper that say so, {_tally(stated)}."
    words = tally if stated else "It was not asked."
    if any(e["id"] == "X4" and e["verdict"] == "supported" for e in found):
        words += (
            " Under Adam from B = 0, multiplying α is multiplying the learning rate of B alone (X4): α against η is "
            "one rate against two tied ones."
        )
    return Answer("Does α beat η?", words, "", found)


def rule(ledger: Sequence[Entry]) -> Answer:
    """Say what is known of V2, and how to ask the same of a model of the reader's own."""
    found = _named(ledger, RULE)
    tuned = next((e for e in found if e["id"] == "V2"), None)
    known = {
        "supported": "Here the best α lay where V2 puts it",
        "refuted": "Here the best α did not lie where V2 puts it",
        "inconclusive": "Whether the best α lies where V2 puts it is undecided here",
        "not testable here": "Whether the best α lies where V2 puts it could not be tested at this size",
        "not run": "Whether the best α lies where V2 puts it was not run",
    }
    here = f"{known[tuned['verdict']]}{_by_problem(tuned)}. " if tuned else ""
    words = (
        "V2 sets α = √r/σ_A in each layer; for A drawn as PyTorch and PEFT draw it, that is √(3·d_in·r), with d_in the "
        f"inputs of the layer. {here}Take it for a start of a sweep, not for its end, and hold it against your own "
        "model:"
    )
    command = "python -m experiments verify path/to/file.py:problem"
    return Answer("Can I use V2 on my model?", words, command, found)


def untested(ledger: Sequence[Entry]) -> Answer:
    """Say what could not be tested, or was not run, and why."""
    found = [e for e in ledger if e["verdict"] in ("not testable here", "not run")]
    asked = problems(ledger)
    cells = [cell["verdict"] for e in ledger for name, cell in e["problems"].items() if name in asked]
    blank, dashed = cells.count("not run"), cells.count("not testable here")
    never = sorted({f"{x['label']} ({name})" for e in ledger for name, x in e["problems"].items() if name not in asked})
    unrun = f" Nothing was run on {', '.join(never)}." if never else ""
    words = (
        f"{len(found)} of {len(ledger)} statements. Of {len(cells)} cells of the matrix {blank} are blank, not run, "
        f"and {dashed} dashed, not testable there.{unrun}"
    )
    return Answer("What was not tested?", words, "", found)


def again(ledger: Sequence[Entry]) -> Answer:
    """Give the command that measures a statement anew, at the example that readers asked for."""
    entry = next((e for e in ledger if e["id"] == EXAMPLE), ledger[0])
    took = f"; it took {duration(entry['seconds'])}" if entry["seconds"] is not None else ""
    words = f"In a clone of the project, with the command below{took}. Every card ends with its own command."
    return Answer(f"How do I rerun {entry['id']}?", words, entry["rerun"], [])


def _named(ledger: Sequence[Entry], ids: Sequence[str]) -> list[Entry]:
    found = {e["id"]: e for e in ledger}
    return [found[name] for name in ids if name in found]


def _by_problem(entry: Entry) -> str:
    """Name under each verdict the problems that have it, where there are several and one of them was asked."""
    found = {v: [name for name, cell in entry["problems"].items() if cell["verdict"] == v] for v in VERDICTS}
    told = [f"{v} on {', '.join(found[v])}" for v in DECIDED if found[v]]
    return f" ({'; '.join(told)})" if len(entry["problems"]) > 1 and told else ""


def _tally(entries: Sequence[Entry]) -> str:
    return ", ".join(f"{n} {v}" for v in VERDICTS if (n := sum(e["verdict"] == v for e in entries)))
