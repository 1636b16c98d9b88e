"""Write the ledger: every claim on every problem, its verdict and the evidence, from stored records only."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from experiments.lab.errors import ControlError
from experiments.lab.experiment import Experiment
from experiments.lab.files import replacing
from experiments.lab.problem import Problem
from experiments.lab.runner import Reader, Stored, last_stage
from experiments.lab.store import MARK, figure_name
from experiments.ledger import sentences
from experiments.ledger.claim import Claim, Evidence, Reading
from experiments.ledger.quoted.follows import FALLEN
from experiments.ledger.quoted.manifest import manifest, records
from experiments.ledger.table import PAPER, SCHEMA, Entries, Entry, read_file, visible
from experiments.ledger.verdict import VERDICTS, Decided, Finding, Verdict, decide, deciding, power_of


class Found(NamedTuple):
    """Hold a configuration, at the last stage that is stored, and what is stored under it."""

    config: Any
    stored: Stored


Store = Callable[[Experiment[Any], Problem], Found]
"""From an experiment and a problem to what is stored of it."""
Problems = Mapping[str, Problem]

HIDDEN = {MARK, "config", "point", "seconds", "experiment"}
"""Attributes of a record that say nothing about where and with what it was computed."""
TINY_SIZE = {"size": "tiny (--quick): shows that everything runs, and is evidence of nothing"}
NOTHING = "nothing was measured there that could decide it"


def ledger(claims: Sequence[Claim], problems: Problems, reader: Reader, quick: bool = False) -> Entries:
    """Judge every claim on every problem, from what is stored."""
    read = store(reader, quick)
    return Entries(visible(entry(claim, problems, read, quick)) for claim in claims)


def store(reader: Reader, quick: bool) -> Store:
    """Read what is stored, each experiment on each problem once, at the last stage that is there."""

    @cache
    def read(experiment: Experiment[Any], problem: Problem) -> Found:
        config = last_stage(experiment, experiment.at(problem, quick), reader.out)
        return Found(config, reader(experiment, config))

    return read


class Judged(NamedTuple):
    """Hold the verdict of a reading on a problem, what it rests on, and why there is none."""

    verdict: Verdict
    findings: Sequence[Finding] = ()
    reason: str = ""
    looks: int = 1

    @property
    def decided(self) -> Decided:
        return decide(self.findings, self.looks)


def judge(reading: Reading, problem: Problem, read: Store) -> Judged:
    """Give the verdict of a reading on a problem and what it rests on.

    "Not run" without the records; "not testable here", with the reason, where the statement's own conditions fail or
    the records have nothing that could decide it.
    """
    config, found = read(reading.experiment, problem)
    if found.data is None:
        return Judged("not run", reason=found.reason)
    fails = reading.applies(config, found.data)
    if fails:
        return Judged("not testable here", reason=fails)
    findings = reading.findings(config, found.data)
    if not findings:
        return Judged("not testable here", reason=NOTHING)
    looks = len(reading.experiment.stages)
    return Judged(decide(findings, looks).verdict, findings, looks=looks)


def entry(claim: Claim, problems: Problems, read: Store, quick: bool = False) -> Entry:
    """Make one object of ledger.json: the claim as its homes decide it, and a cell for every problem."""
    cells = {name: cell(claim, problem, read, quick) for name, problem in problems.items()}
    homes, together = _homes(claim, problems), judged_at_home(claim, problems, read)
    readings = [reading | {"problem": name} for name in homes for reading in cells[name]["readings"]]
    narrower = _supported_everywhere(readings)
    asked = [cells[name] for name in homes if cells[name]["verdict"] != "not testable here"] or [cells[homes[0]]]
    seconds = [x["seconds"] for x in asked]
    return {
        "id": claim.id,
        "group": claim.group,
        "ours": claim.ours,
        "source": claim.source,
        "paper": {name: getattr(claim.paper, name) for name in PAPER},
        "statement": claim.statement,
        "formula": claim.formula,
        "assumptions": list(claim.assumptions),
        "setting": _setting(claim, [problems[name] for name in homes]),
        "measurement": claim.measurement,
        "command": "\n".join(dict.fromkeys(filter(None, (x["command"] for x in asked)))),
        "rerun": f"python -m experiments ledger {claim.id}",
        **_told(together),
        "findings": [finding | {"problem": name} for name in homes for finding in cells[name]["findings"]],
        "control": _controls([x["control"] for x in asked if x["control"]]),
        "power": min((x["power"] for x in asked if x["power"] is not None), default=None),
        "readings": readings,
        "narrowest": narrower[0] if narrower and together.verdict in ("refuted", "inconclusive") else None,
        "figure": next((x["figure"] for x in asked if x["figure"]), None),
        "seconds": None if None in seconds else sum(seconds),
        "provenance": asked[0]["provenance"],
        "problems": cells,
    }


def judged_at_home(claim: Claim, problems: Problems, read: Store) -> Judged:
    """Give the verdict of a claim as those of its homes decide it that can be asked."""
    homes = _homes(claim, problems)
    asked = [(name, evidence_on(claim, problems[name])) for name in homes]
    judged = {name: judge(evidence.plain, problems[name], read) for name, evidence in asked if evidence}
    return _together(judged) if judged else Judged("not testable here", reason=_refusal(claim, problems[homes[0]]))


def _homes(claim: Claim, problems: Problems) -> list[str]:
    """The problems on which the claim is decided, all of them where none of those is among them."""
    return [name for name in claim.homes if name in problems] or list(problems)


def cell(claim: Claim, problem: Problem, read: Store, quick: bool) -> Entry:
    """Judge a claim on one problem by the first evidence that the problem can give."""
    evidence = evidence_on(claim, problem)
    if evidence is None:
        return _empty(problem) | _told(Judged("not testable here", reason=_refusal(claim, problem)))
    experiment = evidence.plain.experiment
    config, found = read(experiment, problem)
    judged = judge(evidence.plain, problem, read)
    readings = [_reading(reading, problem, read) for reading in readings_on(claim, evidence, problem)]
    narrower = [reading["statement"] for reading in readings if reading["verdict"] == "supported"]
    attributes = {} if found.data is None else found.data.attrs
    powers = _powers(judged)
    seeds = getattr(config, "seeds", None)
    return _empty(problem) | {
        "statement": evidence.plain.statement,
        "command": command(experiment, problem),
        **_told(judged),
        "findings": [x | {"power": p} for x, p in zip(_findings(judged), powers, strict=True)],
        "control": _control(evidence.control, problem, read, judged.verdict)
        if evidence.control and judged.verdict not in ("not run", "not testable here")
        else None,
        "power": min(powers, default=None),
        "readings": readings,
        "narrowest": narrower[0] if narrower and judged.verdict in ("refuted", "inconclusive") else None,
        "figure": _figure(claim, experiment, problem),
        "seeds": seeds,
        "records": found.digest,
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


def _refusal(claim: Claim, problem: Problem) -> str:
    return claim.evidence[0].plain.experiment.refuses(problem)


def _setting(claim: Claim, homes: Sequence[Problem]) -> str:
    """Say where the paper saw it and where it is held here."""
    here = "; ".join(problem.label for problem in homes)
    return f"The paper: {claim.measured_on}. Here: {here}." if claim.measured_on else ""


def _empty(problem: Problem) -> Entry:
    """A cell about which nothing is known yet."""
    names = ("statement", "command", "control", "power", "narrowest", "figure", "seeds", "records", "seconds")
    return {"label": problem.label, **dict.fromkeys(names), "findings": [], "readings": [], "provenance": {}}


def _told(judged: Judged) -> Entry:
    """The verdict, its reason in a sentence, what would change it, and the finding that it rests on."""
    if not judged.findings:
        sentence = f"{sentences.begun(judged.reason)}." if judged.reason else ""
        nothing = dict.fromkeys(("predicted", "measured", "interval", "tolerance"))
        return {
            "verdict": judged.verdict,
            "sentence": sentence,
            "reason": judged.reason,
            "evidence_wanted": "",
        } | nothing
    decided = judged.decided
    first = _findings(judged)[deciding(judged.findings, decided)]
    return {
        "verdict": decided.verdict,
        "sentence": sentences.reason(judged.findings, decided),
        "reason": "",
        "evidence_wanted": sentences.wanted(judged.findings, decided),
        **{name: first[name] for name in ("predicted", "measured", "interval", "tolerance")},
    }


def _together(judged: Mapping[str, Judged]) -> Judged:
    """The verdict of all findings together; those of a problem on which it is not testable do not count."""
    asked = [x for x in judged.values() if x.verdict != "not testable here"]
    if not asked:
        return Judged("not testable here", reason=_reasons({name: x.reason for name, x in judged.items()}))
    missing = next((x for x in asked if x.verdict == "not run"), None)
    if missing:
        return missing
    findings, looks = [finding for x in asked for finding in x.findings], max(x.looks for x in asked)
    return Judged(decide(findings, looks).verdict, findings, looks=looks)


def _reasons(by_problem: Mapping[str, str]) -> str:
    """The reason of all problems, or where they differ each with the names of those that it holds of."""
    distinct = dict.fromkeys(by_problem.values())
    named = {reason: ", ".join(name for name, x in by_problem.items() if x == reason) for reason in distinct}
    return next(iter(distinct)) if len(distinct) == 1 else "; ".join(f"on {n}: {reason}" for reason, n in named.items())


def _supported_everywhere(readings: Sequence[Entry]) -> list[str]:
    """The statements, in their order, that every home that can be asked supports."""
    verdicts: dict[str, list[Verdict]] = {}
    for reading in readings:
        if reading["verdict"] != "not testable here":
            verdicts.setdefault(reading["statement"], []).append(reading["verdict"])
    return [statement for statement, found in verdicts.items() if set(found) == {"supported"}]


def _controls(controls: Sequence[Entry]) -> Entry | None:
    """The control over all homes: as it stands where it stands worst, for it must be refuted on each of them."""
    if not controls:
        return None
    worst = min(controls, key=lambda x: (x["sound"], x["verdict"] in FALLEN))
    return {**worst, "findings": [finding for control in controls for finding in control["findings"]]}


def _control(reading: Reading, problem: Problem, read: Store, verdict: Verdict) -> Entry:
    """A control, sound unless it is supported, or is not refuted beside a statement that is supported.

    Where the statement itself is undecided there may be too few seeds to refute what is a little off it.
    """
    control = _reading(reading, problem, read)
    fallen = control["verdict"] in FALLEN
    return control | {"sound": fallen or (control["verdict"] != "supported" and verdict != "supported")}


def _figure(claim: Claim, experiment: Experiment[Any], problem: Problem) -> Entry | None:
    if not claim.figure:
        return None
    readings = [*(x.plain for x in claim.evidence), *claim.readings]
    every = {name: caption for reading in readings for name, caption in reading.experiment.captions.items()}
    return {
        "name": figure_name(claim.figure, problem),
        "caption": (every | dict(experiment.captions)).get(claim.figure, ""),
    }


def _reading(reading: Reading, problem: Problem, read: Store) -> Entry:
    judged = judge(reading, problem, read)
    told = _told(judged)
    return {
        "name": reading.name,
        "problem": problem.name,
        "statement": reading.statement,
        "command": command(reading.experiment, problem),
        **{name: told[name] for name in ("verdict", "sentence", "reason")},
        "findings": _findings(judged),
    }


def _powers(judged: Judged) -> list[float]:
    """Say how often each finding would have noticed a truth two margins off."""
    trials = sum(x.estimate.n > 0 for x in judged.findings)
    return [round(power_of(x, trials, judged.looks), 3) for x in judged.findings]


def _findings(judged: Judged) -> list[Entry]:
    if not judged.findings:
        return []
    decided = judged.decided
    return [_finding(x, v, decided.confidence) for x, v in zip(judged.findings, decided.each, strict=True)]


def _finding(finding: Finding, verdict: Verdict, confidence: float) -> Entry:
    value, *interval = finding.estimate.at(confidence)
    return {
        "quantity": finding.quantity,
        "predicted": str(finding.band),
        "band": _ends(finding.band.ends),
        "measured": _number(value),
        "interval": _ends(interval) if finding.estimate.n or interval[0] < interval[1] else None,
        "method": finding.estimate.method,
        "confidence": round(confidence, 4),
        "seeds": finding.estimate.n or None,
        "tolerance": finding.band.why,
        "verdict": verdict,
    }


def _ends(ends: Iterable[float]) -> list[float | None]:
    return [_number(x) for x in ends]


def _number(x: float) -> float | None:
    """JSON knows no infinity: an end that is unbounded, or a number that does not exist, is null."""
    return float(x) if math.isfinite(x) else None


def write(entries: Entries, out: Path) -> None:
    """Write `out`/ledger.json: the schema, what the entries rest on by digests, and the entries."""
    _put({"schema": SCHEMA, "manifest": manifest(entries), "claims": entries}, out)


def rest_on_kept(out: Path) -> None:
    """Write `out`/ledger.json with the digests of docs/records as it is now; nothing else of it changes."""
    whole = read_file(out / "ledger.json")
    _put(whole | {"manifest": whole["manifest"] | {"records": records()}}, out)


def _put(whole: Entry, out: Path) -> None:
    with replacing(out / "ledger.json") as temporary:
        text = json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False)
        temporary.write_text(f"{text}\n", encoding="utf-8")


def check_controls(entries: Sequence[Entry], quick: bool) -> None:
    """Raise `ControlError` for a control that is not sound; at the tiny size, for one that is supported."""
    found = [(e["id"], e["control"]) for e in entries if e["control"]]
    broken = [
        f"{name} ({c['verdict']})" for name, c in found if (c["verdict"] == "supported" if quick else not c["sound"])
    ]
    if broken:
        raise ControlError(f"ledger: a control that must be refuted is not: {', '.join(broken)}")


def by_verdict(entries: Sequence[Entry]) -> str:
    """List the ids of the claims under each verdict, as a Markdown table."""
    rows = [(v, ", ".join(e["id"] for e in entries if e["verdict"] == v)) for v in VERDICTS]
    return "\n".join(["| verdict | claims |", "|---|---|", *(f"| {v} | {ids} |" for v, ids in rows if ids)])
