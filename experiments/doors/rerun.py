"""Look at the ledger, or measure one claim again: `python -m experiments ledger --list`, `… ledger P3-trace`."""

import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from experiments.claims import CLAIMS
from experiments.lab.command_line import Device, default_out, prepare
from experiments.lab.errors import OptionError
from experiments.lab.experiment import Experiment
from experiments.lab.problem import Problem
from experiments.lab.runner import Reader, last_stage, results
from experiments.ledger.claim import Claim
from experiments.ledger.ledger import Judged, Problems, evidence_on, judged_at_home, ledger, readings_on, store
from experiments.ledger.stages import Question, add_seeds
from experiments.ledger.table import Entries, Entry
from experiments.problems import PROBLEMS
from signal_drift.errors.words import printable


@dataclass(frozen=True)
class Options:
    """Measure one claim again and print it, or list the claims."""

    claim: tyro.conf.Positional[str | None] = None
    """Its id."""
    list: tyro.conf.FlagCreatePairsOff[bool] = False
    """List the claims with their verdicts in the store."""
    quick: tyro.conf.FlagCreatePairsOff[bool] = False
    """The tiny size used in tests."""
    out: Path | None = None
    """Where results are [default: results, or results/quick]."""
    device: Device = "auto"
    """Where JAX computes; auto takes an accelerator where there is one."""


def show(options: Options) -> None:
    """Do what the options say."""
    out = options.out or default_out(options.quick)
    if options.claim is None and not options.list:
        raise OptionError("claim: give the id of a claim, or --list")
    claim = find(options.claim) if options.claim else None
    prepare(options.device)
    if claim is None:
        read = store(Reader(out), options.quick)
        print(*(_listed(claim, judged_at_home(claim, PROBLEMS, read)) for claim in CLAIMS), sep="\n")
    else:
        print(as_text(rerun(claim, PROBLEMS, out, options.quick)))


def _listed(claim: Claim, judged: Judged) -> str:
    missing = f" ({judged.reason})" if judged.verdict == "not run" else ""
    return printable(f"{claim.id:20} {judged.verdict:13} {claim.statement}{missing}")


def find(name: str) -> Claim:
    """Return the claim of that id. Raises `OptionError` for one that is unknown, with the ids there are."""
    known = {claim.id: claim for claim in CLAIMS}
    if name not in known:
        raise OptionError(f"claim: unknown {name!r}; the claims are {', '.join(known)}")
    return known[name]


def rerun(claim: Claim, problems: Problems, out: Path, quick: bool) -> Entry:
    """Measure what the claim needs on its homes anew, adding seeds until it is decided or there are no more.

    The records lie in a folder of their own, which an interrupted rerun finds again and a finished one removes.
    """
    homes = {name: problems[name] for name in claim.homes}
    folder = out / "rerun" / claim.id
    asked = [Question(experiment, problem) for problem in homes.values() for experiment in _needed(claim, problem)]
    for experiment, problem in asked:
        results(experiment, last_stage(experiment, experiment.at(problem, quick), folder), folder)

    def answer(question: Question, config: Any) -> Entries:
        results(question.experiment, config, folder)
        return ledger([claim], homes, Reader(folder))

    entries = ledger([claim], homes, Reader(folder), quick)
    if not quick:
        entries = add_seeds([claim], entries, asked, folder, math.inf, answer)
    shutil.rmtree(folder)
    return entries[0]


def _needed(claim: Claim, problem: Problem) -> list[Experiment[Any]]:
    """The experiments of all that is said of the claim on this problem, each once."""
    evidence = evidence_on(claim, problem)
    if evidence is None:
        return []
    controls = [evidence.control] if evidence.control else []
    every = [evidence.plain, *controls, *readings_on(claim, evidence, problem)]
    return list({reading.experiment.name: reading.experiment for reading in every}.values())


def as_text(e: Mapping[str, Any]) -> str:
    """Write one entry for the terminal."""
    lines = [f"{e['id']}: {e['verdict']}", f"  {e['statement']}  ({e['source']})", f"  {e['sentence']}"]
    lines += [f"  assumed: {'; '.join(e['assumptions'])}"] * bool(e["assumptions"])
    lines += [_line(f) for f in e["findings"]]
    lines += [f"  narrowest true statement tried: {e['narrowest']}"] * bool(e["narrowest"])
    lines += [f"  reading ({r['name']}): {r['verdict']}: {r['statement']}" for r in e["readings"]]
    lines += [f"  control: {c['verdict']}: {c['statement']}" for c in [e["control"]] if c]
    lines += [f"  power: {power:.3g}" for power in [e["power"]] if power is not None]
    return "\n".join(lines)


def _line(f: Mapping[str, Any]) -> str:
    low, high = ("unbounded" if x is None else f"{x:.4g}" for x in f["interval"] or (None, None))
    measured = "–" if f["measured"] is None else f"{f['measured']:.4g}"
    interval = f" [{low}, {high}]" if f["interval"] else ""
    return f"  {f['verdict']}: {f['quantity']}: {measured}{interval}, predicted {f['predicted']}"
