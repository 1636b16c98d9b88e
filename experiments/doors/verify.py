"""Hold the claims against a problem of the reader's own, within a budget of minutes, and write a report about it."""

import importlib.util
import math
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import tyro
from tqdm import tqdm

import signal_drift as sd
from experiments.catalogue import EXPERIMENTS
from experiments.claims import CLAIMS
from experiments.lab.command_line import Device, prepare
from experiments.lab.errors import LACKING, OptionError, UnfitError, no_room
from experiments.lab.experiment import Experiment
from experiments.lab.problem import Problem
from experiments.lab.runner import Reader, measured, run, stored
from experiments.ledger import ledger
from experiments.ledger.claim import Claim
from experiments.ledger.pages import Page, counts, unsound, write_pages
from experiments.ledger.sentences import begun
from experiments.ledger.table import Entries, Entry
from experiments.problems import PROBLEMS
from signal_drift.errors.words import printable


@dataclass(frozen=True)
class Options:
    """Hold the claims against your own model: path/to/file.py:problem, with `problem` from `own_problem`."""

    source: tyro.conf.Positional[str]
    """path/to/file.py:name of a problem, as `experiments.problems.own.own_problem` makes it."""
    claims: tuple[str, ...] = ()
    """Ids of the claims to decide [default: all that the problem can answer]."""
    budget: float = 10.0
    """Minutes. What would not fit is left out, and said before anything long starts."""
    out: Path | None = None
    """Where results go [default: results/verify/NAME]."""
    device: Device = "auto"
    """Where JAX computes; auto takes an accelerator where there is one."""


class Remaining(NamedTuple):
    """Hold an experiment whose first points have been measured, and what the rest would take at that pace."""

    experiment: Experiment[Any]
    seconds: float
    points: int


class Plan(NamedTuple):
    """Hold the experiments that fit the budget, and by its name why another does not."""

    fitting: list[Remaining]
    left_out: dict[str, str]


def verify(options: Options) -> None:
    """Measure the first points of every experiment needed, run those that fit the budget, and write the report."""
    prepare(options.device)
    claims = _chosen(options.claims)
    if not (options.budget > 0 and math.isfinite(options.budget)):
        raise OptionError(f"budget: must be a positive number of minutes, got {options.budget:g}")
    problem, start = load(options.source), time.perf_counter()
    out, seconds = options.out or Path("results/verify") / problem.name, 60 * options.budget
    plan = _planned(_needed(claims, problem), problem, out, start, seconds)
    reports = []
    for rest in plan.fitting:
        try:
            reports.append(run(rest.experiment, rest.experiment.at(problem), out))
        except UnfitError as error:
            plan.left_out[rest.experiment.name] = str(error)
    judged = ledger.ledger(claims, {problem.name: problem}, Reader(out))
    entries = Entries(_told(entry, options.source, plan, problem) for entry in judged)
    ledger.write(entries, out)
    alphas = which_alpha(problem)
    title, tables = f"LoRA’s theory on {problem.label}", [x for report in reports for x in report.tables]
    write_pages(entries, Page(out / "figures", title=title, alphas=alphas, tables=tables), out)
    for e in entries:
        reason = f" ({e['reason']})" if e["reason"] else ""
        print(f"{e['id']:20} {e['verdict']:18} {e['statement']}{reason}")
    print("\n" + ", ".join(f"{count} {verdict}" for verdict, count in counts(entries).items()))
    if unsound(entries):
        print(f"the control was not refuted, so that the verdict means nothing: {', '.join(unsound(entries))}")
    print(
        "\n".join(
            f"{printable(layer)}: α = {v2:.4g} by V2 = √r/σ_A, {v1:.4g} by V1 = 256√r" for layer, v2, v1 in alphas
        )
    )
    print(f"{out / 'report.html'} in {time.perf_counter() - start:.0f} s", file=sys.stderr)


def load(source: str) -> Problem:
    """Import the problem written path/to/file.py:name. Raises `OptionError` for what is not there or is none."""
    path, _, name = source.rpartition(":")
    if not path or not name.isidentifier():
        raise OptionError(f"source: must be path/to/file.py:name, got {source!r}")
    if not Path(path).is_file():
        raise OptionError(f"source: there is no file {path!r}")
    module = _imported(path)
    if not hasattr(module, name):
        raise OptionError(f"source: {path!r} has no {name!r}")
    problem = getattr(module, name)
    if not isinstance(problem, Problem):
        raise OptionError(f"source: {name!r} of {path!r} must come from own_problem, got {type(problem).__name__}")
    if problem.name in PROBLEMS:
        raise OptionError(f"name: {problem.name!r} is taken by a problem of this project, choose another")
    return problem


def _imported(path: str) -> ModuleType:
    """Import a file as Python would run it: what lies beside it can be imported too."""
    spec = importlib.util.spec_from_file_location(f"verified_{Path(path).stem}", path)
    if spec is None or spec.loader is None:
        raise OptionError(f"source: {path!r} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # so that the source of its functions can be read
    sys.path.insert(0, str(Path(path).resolve().parent))
    try:
        spec.loader.exec_module(module)
    except (OptionError, sd.InputError):
        raise
    except Exception as error:  # whatever a file of the reader's raises
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
        where = f", line {lines[0]}" if lines else ""
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise OptionError(f"source: {path!r} cannot be imported ({reason}{where})") from None
    return module


def which_alpha(problem: Problem) -> list[tuple[str, float, float]]:
    """Return (layer, V2, V1): the α that each scaling rule gives every layer at the problem's rank (Eq. 5)."""
    r = problem.rank
    return [(k, sd.alpha_base(r, sigma), sd.empirical_alpha_base(r)) for k, sigma in sorted(problem.sigma_a().items())]


def _chosen(ids: Sequence[str]) -> list[Claim]:
    known = {claim.id: claim for claim in CLAIMS}
    for name in ids:
        if name not in known:
            raise OptionError(f"claims: unknown {name!r}; the claims are {', '.join(known)}")
    return [claim for claim in CLAIMS if not ids or claim.id in ids]


def _needed(claims: Sequence[Claim], problem: Problem) -> list[Experiment[Any]]:
    """The experiments that decide the claims on this problem, in the order of the catalogue."""
    evidence = [found for claim in claims for found in [ledger.evidence_on(claim, problem)] if found]
    names = {reading.experiment.name for pair in evidence for reading in pair if reading}
    return [experiment for experiment in EXPERIMENTS if experiment.name in names]


def _planned(experiments: Sequence[Experiment[Any]], problem: Problem, out: Path, start: float, seconds: float) -> Plan:
    """Choose those that fit, cheapest first; every one is said with what it would take, or why it is left out."""
    found: list[Remaining] = []
    plan = Plan([], {})
    with tqdm(experiments, desc="first points", unit="experiment", dynamic_ncols=True) as progress:
        for experiment in progress:
            if time.perf_counter() - start > seconds / 2:
                plan.left_out[experiment.name] = "not tried, half of the budget went into first points"
                continue
            try:
                found.append(_paced(experiment, problem, out, progress))
            except LACKING as error:
                plan.left_out[experiment.name] = no_room(error)
    left = seconds - (time.perf_counter() - start)
    for rest in sorted(found, key=lambda x: x.seconds):
        count = "1 point" if rest.points == 1 else f"{rest.points} points"
        words = f"{count}, about {_minutes(rest.seconds)} more"
        if rest.seconds <= left:
            left -= rest.seconds
            plan.fitting.append(rest)
            print(f"runs      {rest.experiment.name}: {words}")
        else:
            plan.left_out[rest.experiment.name] = f"{words}, which the budget does not leave"
    print("\n".join(f"left out  {name}: {words}" for name, words in plan.left_out.items()))
    return plan


def _told(entry: Entry, source: str, plan: Plan, problem: Problem) -> Entry:
    """Say of a claim how it is measured again (the problem has no name on the command line), and why it was not run."""
    line = f"python -m experiments verify {source} --claims {entry['id']}"
    told = _commanded(entry, line) | {"rerun": line, "command": f"python -m experiments verify {source}"}
    (claim,) = _chosen([entry["id"]])
    evidence = ledger.evidence_on(claim, problem)
    reason = plan.left_out.get(evidence.plain.experiment.name) if evidence else None
    if not reason or entry["verdict"] != "not run":
        return told
    return told | {"reason": reason, "sentence": f"{begun(reason)}."}


def _commanded(item: Any, line: str) -> Any:
    """Write the command line wherever an entry has one."""
    if isinstance(item, list):
        return [_commanded(x, line) for x in item]
    if not isinstance(item, dict):
        return item
    return {key: line if key == "command" and value else _commanded(value, line) for key, value in item.items()}


def _paced(experiment: Experiment[Any], problem: Problem, out: Path, progress: "tqdm[Any]") -> Remaining:
    """Measure two points: the first compiles what all others use, and the second gives their pace."""
    config = experiment.at(problem)
    points = experiment.points(config)
    *_, last = (measured(experiment, config, point, out, progress) for point in points[:2])
    missing = len(points) - stored(experiment, config, out)
    pace = float(last.attrs.get("seconds", math.inf))
    return Remaining(experiment, missing * pace if missing else 0.0, len(points))


def _minutes(seconds: float) -> str:
    if math.isinf(seconds):
        return "an unknown time"
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
