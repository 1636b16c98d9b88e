"""Run every experiment on every problem that it is reproduced on, then write the ledger and its pages.

What is already there is not computed again.
"""

import json
import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import tyro
from tqdm import tqdm

from experiments.catalogue import BENCHMARK, EXPERIMENTS, is_reproduced, reproduced
from experiments.claims import CLAIMS
from experiments.doors.hero import draw_hero
from experiments.lab.command_line import Device, default_out, prepare
from experiments.lab.errors import OptionError, UnfitError
from experiments.lab.experiment import Report, table
from experiments.lab.files import replacing
from experiments.lab.reference import take
from experiments.lab.runner import Reader, last_stage, reported, results, seconds_spent
from experiments.lab.side_by_side import SideBySide, as_markdown
from experiments.ledger import ledger
from experiments.ledger.pages import Page, counts, write_pages
from experiments.ledger.stages import Question, add_seeds
from experiments.ledger.table import Entries
from experiments.problems import PROBLEMS, find
from experiments.tuning import where_alpha_pays


@dataclass(frozen=True)
class Options:
    """Run all experiments of the paper, or report them if they have been run."""

    quick: tyro.conf.FlagCreatePairsOff[bool] = False
    """The tiny size used in tests, in a folder of its own."""
    problem: str | None = None
    """Only what is asked of this problem; MiniLM, which takes an hour, is only run where it is named."""
    fresh: tyro.conf.FlagCreatePairsOff[bool] = False
    """Compute everything, also what docs/records has."""
    seeds_budget: float = 5.0
    """Minutes that may go into further seeds where a claim is undecided."""
    out: Path | None = None
    """Where results go [default: results, or results/quick]."""
    device: Device = "auto"
    """Where JAX computes; auto takes an accelerator where there is one."""


def reproduce(options: Options) -> None:
    """Run, report and write the ledger. What is costly is reported where it has been run."""
    prepare(options.device)
    if not (options.seeds_budget >= 0 and math.isfinite(options.seeds_budget)):
        raise OptionError(f"seeds_budget: must be a number of minutes, got {options.seeds_budget:g}")
    out, start = options.out or default_out(options.quick), time.perf_counter()
    read = Reader(out)
    asked = questions(options, read)
    reports: dict[str, Report] = {}
    unfit: dict[str, str] = {}
    with tqdm(asked, desc="experiments", unit="experiment", dynamic_ncols=True) as progress:
        for question in progress:
            try:
                reports[question.name] = _answer(question, _taken(question, options, out), read)
            except UnfitError as error:
                unfit[question.name] = str(error)
            jax.clear_caches()  # programs of one experiment are of little use to the next, and fill gigabytes
    entries = ledger.ledger(CLAIMS, PROBLEMS, read, options.quick)

    def answer(question: Question, config: Any) -> Entries | None:
        try:
            reports[question.name] = _answer(question, config, read)
        except UnfitError as error:
            unfit[question.name] = str(error)
            return None
        return ledger.ledger(CLAIMS, PROBLEMS, read)

    if not options.quick:
        entries = add_seeds(CLAIMS, entries, asked, out, 60 * options.seeds_budget, answer)
    tables = [*_overview(asked, options, read), *(x for report in reports.values() for x in report.tables)]
    print(table([row for report in reports.values() for row in report.rows]), *map(as_markdown, tables), sep="\n\n")
    ledger.write(entries, out)
    with replacing(out / "costs.json") as temporary:
        temporary.write_text(json.dumps(costs(out, options.quick), indent=1) + "\n", encoding="utf-8")
    draw_hero(entries, PROBLEMS["mlp"], read, options.quick)
    said = _sentences(reports)
    said |= {name: [*said.get(name, []), reason] for name, reason in unfit.items()}
    page = Page(out / "figures", said, _speed(read, options.quick), tables=tables)
    write_pages(entries, page, out)
    print("\n" + ", ".join(f"{count} {verdict}" for verdict, count in counts(entries).items()))
    written = ", ".join(str(out / name) for name in ("report.html", "report.md", "ledger.json", "figures"))
    print(f"{written} in {time.perf_counter() - start:.0f} s", file=sys.stderr)
    ledger.check_controls(entries, options.quick)
    if unfit:
        raise UnfitError("; ".join(dict.fromkeys(unfit.values())))


def _answer(question: Question, config: Any, read: Reader) -> Report:
    """Run one experiment, or report it where all of it is stored."""
    data = read(question.experiment, config).data
    found = results(question.experiment, config, read.out) if data is None else data
    return reported(question.experiment, config, found, read.out)


def _taken(question: Question, options: Options, out: Path) -> Any:
    """Take from the reference what it has, and return the configuration at the last stage of seeds that there is."""
    experiment, config = question.experiment, question.experiment.at(question.problem, options.quick)
    if not (options.fresh or options.quick):
        for stage in experiment.staged(config):
            take(experiment, stage, out)
    return last_stage(experiment, config, out)


def _overview(asked: list[Question], options: Options, read: Reader) -> list[SideBySide]:
    """Lay out beside each other what every problem says of where V2 pays."""
    experiment = where_alpha_pays.EXPERIMENT
    configs = [experiment.at(q.problem, options.quick) for q in asked if q.experiment is experiment]
    found = [(config, read(experiment, config).data) for config in configs]
    known = [(config, data) for config, data in found if data is not None]
    return [where_alpha_pays.side_by_side(known)] if known else []


def questions(options: Options, read: Reader) -> list[Question]:
    """List what is to be run: what is not costly, or named, or there already, if only in the reference."""
    chosen = PROBLEMS if options.problem is None else {options.problem: find(options.problem)}
    every = [Question(*pair) for pair in reproduced(chosen.values())]
    if options.problem:
        return every
    return [q for q in every if not q.problem.costly or _is_known(q, options, read)]


def _is_known(question: Question, options: Options, read: Reader) -> bool:
    """Tell whether all of it is stored, or in the reference."""
    return read(question.experiment, _taken(question, options, read.out)).data is not None


def costs(out: Path, quick: bool) -> dict[str, dict[str, float]]:
    """Collect the seconds that every experiment took on every problem, where all its points are stored."""
    found: dict[str, dict[str, float]] = {}
    for experiment in (*EXPERIMENTS, BENCHMARK):
        for problem in PROBLEMS.values():
            if is_reproduced(experiment, problem):
                config = last_stage(experiment, experiment.at(problem, quick), out)
                seconds = seconds_spent(experiment, config, out)
                if seconds is not None:
                    found.setdefault(experiment.name, {})[problem.name] = round(seconds, 1)
    return found


def _sentences(reports: Mapping[str, Report]) -> dict[str, list[str]]:
    return {name: report.sentences for name, report in reports.items() if report.sentences}


def _speed(read: Reader, quick: bool) -> Report | None:
    """The report of the benchmark, which is run by itself, on a machine that does nothing else."""
    config = BENCHMARK.at(PROBLEMS[BENCHMARK.homes[0]], quick)
    found = read(BENCHMARK, config)
    return None if found.data is None else BENCHMARK.report(config, found.data)
