"""Run every experiment on every problem that it is reproduced on, then write the ledger and its pages.

What is already there is not computed again.
"""

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import tyro
from tqdm import tqdm

from experiments.catalogue import BENCHMARK, EXPERIMENTS, is_reproduced
from experiments.claims import CLAIMS
from experiments.lab.command_line import Device, default_out, prepare
from experiments.lab.experiment import Experiment, Report, table
from experiments.lab.files import replacing
from experiments.lab.problem import Problem
from experiments.lab.runner import from_store, label, run, seconds_spent
from experiments.ledger import ledger
from experiments.ledger.pages import Page, counts, write_pages
from experiments.problems import PROBLEMS, find


@dataclass(frozen=True)
class Options:
    """Run all experiments of the paper, or report them if they have been run."""

    quick: tyro.conf.FlagCreatePairsOff[bool] = False
    """The tiny size used in tests, in a folder of its own."""
    problem: str | None = None
    """Only what is asked of this problem; MiniLM, which takes an hour, is only run where it is named."""
    out: Path | None = None
    """Where results go [default: results, or results/quick]."""
    device: Device = "auto"
    """Where JAX computes; auto takes an accelerator where there is one."""


class Question(NamedTuple):
    """Pair an experiment with a problem."""

    experiment: Experiment[Any]
    problem: Problem


def reproduce(options: Options) -> None:
    """Run, report and write the ledger. What is costly is reported where it has been run."""
    prepare(options.device)
    out, start = options.out or default_out(options.quick), time.perf_counter()
    reports: dict[str, Report] = {}
    with tqdm(questions(options, out), desc="experiments", unit="experiment", dynamic_ncols=True) as progress:
        for experiment, problem in progress:
            config = experiment.at(problem, options.quick)
            reports[label(experiment, config)] = run(experiment, config, out)
            jax.clear_caches()  # programs of one experiment are of little use to the next, and fill gigabytes
    print(table([row for report in reports.values() for row in report.rows]))
    entries = ledger.ledger(CLAIMS, PROBLEMS, out, options.quick)
    ledger.write(entries, out)
    with replacing(out / "costs.json") as temporary:
        temporary.write_text(json.dumps(costs(out, options.quick), indent=1) + "\n", encoding="utf-8")
    write_pages(entries, Page(out / "figures", _sentences(reports), _speed(out, options.quick)), out)
    print("\n" + ", ".join(f"{count} {verdict}" for verdict, count in counts(entries).items()))
    written = ", ".join(str(out / name) for name in ("report.html", "report.md", "ledger.json", "figures"))
    print(f"{written} in {time.perf_counter() - start:.0f} s", file=sys.stderr)
    ledger.check_controls(entries, options.quick)


def questions(options: Options, out: Path) -> list[Question]:
    """List what is to be run: at the tiny size everything, else what is not costly, or named, or there already."""
    chosen = PROBLEMS if options.problem is None else {options.problem: find(options.problem)}
    every = [Question(e, p) for e in EXPERIMENTS for p in chosen.values() if is_reproduced(e, p)]
    if options.quick or options.problem:
        return every
    return [q for q in every if not q.problem.costly or _is_stored(q, out)]


def _is_stored(question: Question, out: Path) -> bool:
    experiment, problem = question
    return from_store(experiment, experiment.at(problem), out).data is not None


def costs(out: Path, quick: bool) -> dict[str, dict[str, float]]:
    """Collect the seconds that every experiment took on every problem, where all its points are stored."""
    found: dict[str, dict[str, float]] = {}
    for experiment in (*EXPERIMENTS, BENCHMARK):
        for problem in PROBLEMS.values():
            if is_reproduced(experiment, problem):
                seconds = seconds_spent(experiment, experiment.at(problem, quick), out)
                if seconds is not None:
                    found.setdefault(experiment.name, {})[problem.name] = round(seconds, 1)
    return found


def _sentences(reports: Mapping[str, Report]) -> dict[str, list[str]]:
    return {name: report.sentences for name, report in reports.items() if report.sentences}


def _speed(out: Path, quick: bool) -> Report | None:
    """The report of the benchmark, which is run by itself, on a machine that does nothing else."""
    config = BENCHMARK.at(PROBLEMS[BENCHMARK.homes[0]], quick)
    found = from_store(BENCHMARK, config, out)
    return None if found.data is None else BENCHMARK.report(config, found.data)
