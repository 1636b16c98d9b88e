"""Compare what a ledger says that was judged with the catalogue of claims here: none removed, added or reworded."""

from collections.abc import Iterator, Sequence

from experiments.ledger.claim import Claim
from experiments.ledger.ledger import command, evidence_on
from experiments.ledger.quoted.follows import DECIDED, homes_of
from experiments.ledger.table import PAPER, Entry
from experiments.problems import PROBLEMS


def departures(entries: Sequence[Entry], claims: Sequence[Claim]) -> Iterator[str]:
    """Name what is otherwise in the catalogue, one line each."""
    judged, stated = {e["id"]: e for e in entries}, {claim.id: claim for claim in claims}
    for words, names in (("is lacking", stated.keys() - judged.keys()), ("is unknown", judged.keys() - stated.keys())):
        if names:
            yield f"{', '.join(sorted(names))} {words}, by the claims of the code"
    for name in stated.keys() & judged.keys():
        yield from (f"{name}: {what}" for what in _of_claim(judged[name], stated[name]))


def _of_claim(entry: Entry, claim: Claim) -> Iterator[str]:
    for field in ("statement", "source", "ours", "group", "formula", "measurement"):
        if entry[field] != getattr(claim, field):
            yield f"what it says of {field!r} is not that of the code"
    if entry["paper"] != {field: getattr(claim.paper, field) for field in PAPER}:
        yield "its paper is not that of the code"
    if entry["assumptions"] != list(claim.assumptions):
        yield "its assumptions are not those of the code"
    cells = entry["problems"]
    if missing := [name for name in claim.homes if name in PROBLEMS and name not in cells]:
        yield f"it is not held against {missing[0]}"
    homes = {name for name in claim.homes if name in cells and cells[name]["verdict"] != "not testable here"}
    said = {cell["problem"] for cell in homes_of(entry)}
    if said != (homes or set(claim.homes[:1])):
        yield "it is decided on other problems than the code says"
    for name, cell in cells.items():
        yield from _of_cell(name, cell, claim)


def _of_cell(name: str, cell: Entry, claim: Claim) -> Iterator[str]:
    problem = PROBLEMS.get(name)
    if problem is None:
        yield f"{name} is no problem of the code"
        return
    evidence = evidence_on(claim, problem)
    asked = (evidence.plain.statement, command(evidence.plain.experiment, problem)) if evidence else (None, None)
    if (cell["statement"], cell["command"]) != asked:
        yield f"on {name} another statement or command than that of the code"
    if evidence and evidence.control and cell["verdict"] in DECIDED and cell["control"] is None:
        yield f"on {name} its control is lacking"
