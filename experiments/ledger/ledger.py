"""Write the ledger: every claim on every problem, its verdict and the evidence, from stored records only."""

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from experiments.lab.errors import ControlError
from experiments.lab.experiment import Experiment
from experiments.lab.files import replacing
from experiments.lab.problem import Problem
from experiments.lab.runner import Stored, from_store, results
from experiments.lab.store import MARK, figure_name
from experiments.ledger.claim import Claim, Evidence, Reading
from experiments.ledger.table import Entries, Entry
from experiments.ledger.verdict import VERDICTS, Finding, Verdict, deciding, verdict

Store = Callable[[Experiment[Any], Problem], Stored]
"""From an experiment and a problem to what is stored of it."""
Problems = Mapping[str, Problem]

HIDDEN = {MARK, "config", "point", "seconds", "experiment"}
"""Attributes of a record that say nothing about where and with what it was computed."""
TINY_SIZE = {"size": "tiny (--quick): shows that everything runs, and is evidence of nothing"}
NOTHING = "nothing was measured there that could decide it"
SOUND = {"refuted", "not run"}
"""Verdicts that a control may have."""


def ledger(claims: Sequence[Claim], problems: Problems, out: Path, quick: bool = False) -> Entries:
    """Judge every claim on every problem, from what is stored in `out`."""
    read = store(out, quick)
    return Entries(entry(claim, problems, read, quick) for claim in claims)


def store(out: Path, quick: bool) -> Store:
    """Read what is stored in `out`, each experiment on each problem once."""
    return cache(lambda experiment, problem: from_store(experiment, experiment.at(problem, quick), out))


class Judged(NamedTuple):
    """Hold the verdict of a reading on a problem, and what it rests on."""

    verdict: Verdict
    findings: list[Finding]


def judge(reading: Reading, problem: Problem, read: Store, quick: bool) -> Judged:
    """Give the verdict of a reading on a problem and what it rests on.

    "Not run" without the records; "not testable here" where they have nothing that could decide.
    """
    found = read(reading.experiment, problem)
    if found.data is None:
        return Judged("not run", [])
    findings = reading.findings(reading.experiment.at(problem, quick), found.data)
    return Judged(verdict(findings) if findings else "not testable here", findings)


def entry(claim: Claim, problems: Problems, read: Store, quick: bool = False) -> Entry:
    """Make one object of ledger.json: the claim as its homes decide it, and a cell for every problem."""
    cells = {name: cell(claim, problem, read, quick) for name, problem in problems.items()}
    homes = [name for name in claim.homes if name in problems] or list(problems)
    together = [(name, found) for name in homes for found in cells[name]["findings"]]
    decided = _together([cells[name]["verdict"] for name in homes])
    decisive = next((f for _, f in together if f["verdict"] == decided), None)
    readings = [_named(reading, name, homes) for name in homes for reading in cells[name]["readings"]]
    narrower = _supported_everywhere(readings)
    first = cells[homes[0]]
    controls = [cells[name]["control"] for name in homes if cells[name]["control"]]
    seconds = [cells[name]["seconds"] for name in homes]
    return {
        "id": claim.id,
        "statement": claim.statement,
        "assumptions": list(claim.assumptions),
        "source": claim.source,
        "command": "\n".join(dict.fromkeys(filter(None, (cells[name]["command"] for name in homes)))),
        "rerun": f"python -m experiments ledger {claim.id}",
        **{k: decisive[k] if decisive else None for k in ("predicted", "measured", "interval", "tolerance")},
        "verdict": decided,
        "reason": next((cells[name]["reason"] for name in homes if cells[name]["reason"]), None),
        "findings": [_named(found, name, homes) for name, found in together],
        "control": _controls(controls) if controls else None,
        "readings": readings,
        "narrowest": narrower[0] if narrower and decided in ("refuted", "inconclusive") else None,
        "figures": [figure for name in homes for figure in cells[name]["figures"]],
        "seconds": None if None in seconds else sum(seconds),
        "provenance": first["provenance"],
        "problems": cells,
    }


def cell(claim: Claim, problem: Problem, read: Store, quick: bool) -> Entry:
    """Judge a claim on one problem by the first evidence that the problem can give."""
    evidence = evidence_on(claim, problem)
    if evidence is None:
        reason = claim.evidence[0].plain.experiment.refuses(problem)
        return _empty(problem) | {"verdict": "not testable here", "reason": reason}
    experiment = evidence.plain.experiment
    found = read(experiment, problem)
    decided, findings = judge(evidence.plain, problem, read, quick)
    decisive = deciding(findings) if findings else None
    readings = [_reading(reading, problem, read, quick) for reading in readings_on(claim, evidence, problem)]
    narrower = [reading["statement"] for reading in readings if reading["verdict"] == "supported"]
    attributes = {} if found.data is None else found.data.attrs
    return _empty(problem) | {
        "statement": evidence.plain.statement,
        "command": command(experiment, problem),
        "predicted": str(decisive.band) if decisive else None,
        "measured": _number(decisive.estimate.mean) if decisive else None,
        "interval": _ends(decisive.estimate[1:]) if decisive else None,
        "tolerance": decisive.band.why if decisive else None,
        "verdict": decided,
        "reason": found.reason or (NOTHING if decided == "not testable here" else None),
        "findings": [_finding(finding) for finding in findings],
        "control": _reading(evidence.control, problem, read, quick),
        "readings": readings,
        "narrowest": narrower[0] if narrower and decided in ("refuted", "inconclusive") else None,
        "figures": [figure_name(name, problem) for name in claim.figures],
        "seconds": found.seconds,
        "provenance": {k: str(v) for k, v in attributes.items() if k not in HIDDEN} | (TINY_SIZE if quick else {}),
    }


def evidence_on(claim: Claim, problem: Problem) -> Evidence | None:
    """Return the first evidence whose experiment can be asked of the problem."""
    return next((x for x in claim.evidence if not x.plain.experiment.refuses(problem)), None)


def readings_on(claim: Claim, evidence: Evidence, problem: Problem) -> list[Reading]:
    """Return the further evidence and the other readings that the problem can give."""
    others = [x.plain for x in claim.evidence if x is not evidence]
    return [x for x in (*others, *claim.readings) if not x.experiment.refuses(problem)]


def command(experiment: Experiment[Any], problem: Problem) -> str:
    """Write the command line that runs an experiment on a problem."""
    option = "" if experiment.homes[0] == problem.name else f" --problem {problem.name}"
    return f"python -m experiments {experiment.name}{option}"


def _empty(problem: Problem) -> Entry:
    """A cell about which nothing is known yet."""
    names = ("statement", "command", "predicted", "measured", "interval", "tolerance", "reason", "control", "narrowest")
    lists: Entry = {"findings": [], "readings": [], "figures": [], "provenance": {}}
    return {"label": problem.label, **dict.fromkeys(names), **lists, "seconds": None}


def _together(verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict of all findings together; those of a problem that cannot be asked do not count."""
    asked = [v for v in verdicts if v != "not testable here"]
    if not asked:
        return "not testable here"
    if "not run" in asked:
        return "not run"
    if "refuted" in asked:
        return "refuted"
    return "supported" if set(asked) == {"supported"} else "inconclusive"


def _supported_everywhere(readings: Sequence[Entry]) -> list[str]:
    """The statements, in their order, that every home that can be asked supports."""
    verdicts: dict[str, list[Verdict]] = {}
    for reading in readings:
        verdicts.setdefault(reading["statement"], []).append(reading["verdict"])
    return [statement for statement, found in verdicts.items() if _together(found) == "supported"]


def _controls(controls: Sequence[Entry]) -> Entry:
    """The control over all homes: refuted where one of them refutes it."""
    return {
        **controls[0],
        "verdict": _together([control["verdict"] for control in controls]),
        "findings": [finding for control in controls for finding in control["findings"]],
    }


def _named(item: Entry, problem: str, homes: Sequence[str]) -> Entry:
    """A finding or reading that says which problem it is about, where there are several."""
    if len(homes) == 1:
        return item
    return item | {key: f"{item[key]}, {problem}" for key in ("quantity", "name") if key in item}


def _reading(reading: Reading, problem: Problem, read: Store, quick: bool) -> Entry:
    decided, findings = judge(reading, problem, read, quick)
    return {
        "name": reading.name,
        "statement": reading.statement,
        "command": command(reading.experiment, problem),
        "verdict": decided,
        "findings": [_finding(finding) for finding in findings],
    }


def _finding(finding: Finding) -> Entry:
    return {
        "quantity": finding.quantity,
        "predicted": str(finding.band),
        "band": _ends(finding.band.ends),
        "measured": _number(finding.estimate.mean),
        "interval": _ends(finding.estimate[1:]),
        "tolerance": finding.band.why,
        "verdict": finding.verdict,
    }


def _ends(ends: Sequence[float]) -> list[float | None]:
    return [_number(x) for x in ends]


def _number(x: float) -> float | None:
    """JSON knows no infinity: an end that is unbounded, or a number that does not exist, is null."""
    return float(x) if math.isfinite(x) else None


def write(entries: Entries, out: Path) -> None:
    """Write `out`/ledger.json."""
    with replacing(out / "ledger.json") as temporary:
        text = json.dumps(entries, indent=1, ensure_ascii=False, allow_nan=False)
        temporary.write_text(f"{text}\n", encoding="utf-8")


def check_controls(entries: Sequence[Entry], quick: bool) -> None:
    """Raise `ControlError` for a control that is not refuted; at the tiny size, for one that is supported."""
    found = [(e["id"], e["control"]["verdict"]) for e in entries if e["control"]]
    broken = [f"{name} ({v})" for name, v in found if (v == "supported" if quick else v not in SOUND)]
    if broken:
        raise ControlError(f"ledger: a control that must be refuted is not: {', '.join(broken)}")


def by_verdict(entries: Sequence[Entry]) -> str:
    """List the ids of the claims under each verdict, as a Markdown table."""
    rows = [(v, ", ".join(e["id"] for e in entries if e["verdict"] == v)) for v in VERDICTS]
    return "\n".join(["| verdict | claims |", "|---|---|", *(f"| {v} | {ids} |" for v, ids in rows if ids)])


def rerun(claim: Claim, problems: Problems, out: Path, quick: bool) -> Entry:
    """Measure what the claim needs on its homes anew, in a folder that an interrupted rerun finds again."""
    homes = {name: problems[name] for name in claim.homes}
    folder = out / "rerun" / claim.id
    for problem in homes.values():
        evidence = evidence_on(claim, problem)
        if evidence is not None:
            every = (evidence.plain, evidence.control, *readings_on(claim, evidence, problem))
            for experiment in {reading.experiment.name: reading.experiment for reading in every}.values():
                results(experiment, experiment.at(problem, quick), folder)
    measured = entry(claim, homes, store(folder, quick), quick)
    shutil.rmtree(folder)
    return measured
