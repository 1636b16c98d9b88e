"""The ledger: every claim, its verdict and the evidence, from stored records only.

python -m experiments.ledger --list          the claims
python -m experiments.ledger P3-trace        measure one claim again and print it
"""

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import tyro

from experiments.claims import CLAIMS
from experiments.claims.claim import Claim, Reading
from experiments.claims.verdict import VERDICTS, Finding, Verdict, deciding, verdict
from experiments.lab.errors import ControlError, OptionError
from experiments.lab.experiment import (
    Device,
    Experiment,
    Stored,
    default_out,
    exit_on_bad_input,
    from_store,
    prepare,
    results,
)
from experiments.lab.files import replacing
from experiments.lab.store import MARK
from experiments.ledger.table import Entries, Entry

Store = Callable[[Experiment], Stored]

HIDDEN = {MARK, "config", "point", "seconds", "experiment"}
"""Attributes of a record that say nothing about where and with what it was computed."""


TINY = {"size": "tiny (--quick): shows that everything runs, and is evidence of nothing"}


def store(out: Path, quick: bool) -> Store:
    """What is stored in `out`, each experiment read once."""
    return cache(lambda experiment: from_store(experiment, experiment.at(quick), out))


def judge(reading: Reading, stored: Stored, quick: bool) -> tuple[Verdict, list[Finding]]:
    """The verdict and what it rests on; "not run" without the records."""
    if stored.data is None:
        return "not run", []
    config = reading.experiment.at(quick)
    findings = reading.findings(config, stored.data)
    return verdict(findings), findings


def entry(claim: Claim, read: Store, quick: bool = False) -> Entry:
    """One object of ledger.json."""
    stored = read(claim.plain.experiment)
    decided, findings = judge(claim.plain, stored, quick)
    readings = [_reading(reading, read, quick) for reading in claim.readings]
    decisive = deciding(findings) if findings else None
    narrower = [r["statement"] for r in readings if r["verdict"] == "supported"]
    attributes = {} if stored.data is None else stored.data.attrs
    return {
        "id": claim.id,
        "statement": claim.plain.statement,
        "assumptions": list(claim.assumptions),
        "source": claim.source,
        "command": command(claim.plain.experiment),
        "rerun": f"python -m experiments.ledger {claim.id}",
        "predicted": str(decisive.band) if decisive else None,
        "measured": _number(decisive.estimate.mean) if decisive else None,
        "interval": _ends(decisive.estimate[1:]) if decisive else None,
        "tolerance": decisive.band.why if decisive else None,
        "verdict": decided,
        "reason": stored.reason or None,
        "findings": [_finding(finding) for finding in findings],
        "control": _reading(claim.control, read, quick),
        "readings": readings,
        "narrowest": narrower[0] if narrower and decided in ("refuted", "inconclusive") else None,
        "figures": list(claim.figures),
        "seconds": stored.seconds,
        "provenance": {k: str(v) for k, v in attributes.items() if k not in HIDDEN} | (TINY if quick else {}),
    }


def command(experiment: Experiment) -> str:
    return f"python experiments/{experiment.name}.py"


def _reading(reading: Reading, read: Store, quick: bool) -> Entry:
    decided, findings = judge(reading, read(reading.experiment), quick)
    return {
        "name": reading.name,
        "statement": reading.statement,
        "command": command(reading.experiment),
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


def ledger(out: Path, quick: bool = False) -> Entries:
    """Every claim, from what is stored in `out`."""
    read = store(out, quick)
    return Entries(entry(claim, read, quick) for claim in CLAIMS)


def write(entries: Entries, out: Path) -> None:
    with replacing(out / "ledger.json") as temporary:
        temporary.write_text(
            json.dumps(entries, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
        )


def check_controls(entries: Sequence[Mapping[str, Any]], quick: bool) -> None:
    """Raise `ControlError` for a control that is not refuted; at the tiny size, for one that is supported."""
    wrong = {"supported"} if quick else {"supported", "inconclusive"}
    broken = [f"{e['id']} ({e['control']['verdict']})" for e in entries if e["control"]["verdict"] in wrong]
    if broken:
        raise ControlError(f"ledger: a control that must be refuted is not: {', '.join(broken)}")


def by_verdict(entries: Sequence[Mapping[str, Any]]) -> str:
    """The ids of the claims under each verdict, as a Markdown table."""
    rows = [(v, ", ".join(e["id"] for e in entries if e["verdict"] == v)) for v in VERDICTS]
    return "\n".join(["| verdict | claims |", "|---|---|", *(f"| {v} | {ids} |" for v, ids in rows if ids)])


def shown(e: Mapping[str, Any]) -> str:
    """One entry for the terminal."""
    lines = [f"{e['id']}: {e['verdict']}", f"  {e['statement']}  ({e['source']})"]
    lines += [f"  assumed: {'; '.join(e['assumptions'])}"] * bool(e["assumptions"])
    lines += [f"  not run: {e['reason']}; {e['command']}"] * bool(e["reason"])
    lines += [_line(f) for f in e["findings"]]
    lines += [f"  narrowest true statement tried: {e['narrowest']}"] * bool(e["narrowest"])
    lines += [f"  reading ({r['name']}): {r['verdict']}: {r['statement']}" for r in e["readings"]]
    return "\n".join([*lines, f"  control: {e['control']['verdict']}: {e['control']['statement']}"])


def _line(f: Mapping[str, Any]) -> str:
    low, high = ("unbounded" if x is None else f"{x:.4g}" for x in f["interval"])
    measured = "–" if f["measured"] is None else f"{f['measured']:.4g}"
    return f"  {f['verdict']}: {f['quantity']}: {measured} [{low}, {high}], predicted {f['predicted']}"


def find(name: str) -> Claim:
    known = {claim.id: claim for claim in CLAIMS}
    if name not in known:
        raise OptionError(f"claim: unknown {name!r}; the claims are {', '.join(known)}")
    return known[name]


def rerun(claim: Claim, out: Path, quick: bool) -> Entry:
    """Measure what the claim needs anew, in a folder of its own that an interrupted rerun finds again.

    Readings of an experiment that `make reproduce` does not run are not run here either.
    """
    every = (reading.experiment for reading in (claim.plain, claim.control, *claim.readings))
    needed = {experiment.name: experiment for experiment in every if not experiment.extra}
    folder = out / "rerun" / claim.id
    for experiment in needed.values():
        results(experiment, experiment.at(quick), folder)
    measured = entry(claim, store(folder, quick), quick)
    shutil.rmtree(folder)
    return measured


@dataclass(frozen=True)
class Options:
    """Measure one claim again and print it, or list the claims."""

    claim: tyro.conf.Positional[str | None] = None
    """Its id."""
    list: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """List the claims with their verdicts in the store."""
    quick: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """The tiny size used in tests."""
    out: Path | None = None
    """Where results are [default: results, or results/quick]."""
    device: Device = "auto"
    """Where JAX computes; auto takes an accelerator where there is one."""


def main(options: Options) -> None:
    out = options.out or default_out(options.quick)
    if options.claim is None and not options.list:
        raise OptionError("claim: give the id of a claim, or --list")
    claim = find(options.claim) if options.claim else None
    prepare(options.device)
    if claim is None:
        print("\n".join(f"{e['id']:20} {e['verdict']:13} {e['statement']}" for e in ledger(out, options.quick)))
    else:
        print(shown(rerun(claim, out, options.quick)))


if __name__ == "__main__":
    exit_on_bad_input(lambda: main(tyro.cli(Options)))
