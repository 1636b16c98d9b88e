"""Read the command line of an experiment: every field of its configuration and its problem, and how to run it."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal

import jax
import tyro

from experiments.lab.errors import ControlError, OptionError, RecordError, UnfitError
from experiments.lab.experiment import C, Experiment, table
from experiments.lab.problem import Problem
from experiments.lab.runner import measure_shard, run, run_shard, stored
from experiments.lab.shards import WHOLE, Shard, shard_of
from experiments.lab.side_by_side import as_markdown
from signal_drift.errors import InputError
from signal_drift.errors.readers import while_it_is_read
from signal_drift.errors.words import printable

Device = Literal["auto", "cpu", "cuda", "rocm", "tpu"]

PATIENCE = 7 * 24 * 3600
"""Seconds that a process started with others waits for them at its end: some points take longer than others."""


@dataclass(frozen=True)
class Run:
    """Say where and how an experiment runs."""

    quick: tyro.conf.FlagCreatePairsOff[bool] = False
    """The tiny size used in tests, in a folder of its own."""
    out: Path | None = None
    """Where results go [default: results, or results/quick]."""
    device: Device = "auto"
    """Where JAX computes; auto takes an accelerator where there is one."""
    shard: str | None = None
    """i/n: measure only every n-th point from the i-th on, counted from 0 [default: 0/1, or this task's place in a
    SLURM array job]."""
    distributed: tyro.conf.FlagCreatePairsOff[bool] = False
    """One of several processes started together by srun or mpirun: each measures the points of its own shard, on its
    own device, and the first one reports."""

    @property
    def folder(self) -> Path:
        """Return the folder of results."""
        return self.out or default_out(self.quick)


@dataclass(frozen=True)
class Command(Generic[C]):
    """Join a configuration and how to run it."""

    config: tyro.conf.OmitArgPrefixes[C]
    run: tyro.conf.OmitArgPrefixes[Run] = field(default_factory=Run)


def main(experiment: Experiment[Any], problems: dict[str, Problem], arguments: Sequence[str]) -> None:
    """Run one experiment as its arguments say, or report it if it has been run.

    `--problem NAME` picks one of `problems` and thereby which further options there are.
    """
    problem, rest = _problem(experiment, problems, arguments)
    default = experiment.at(problem, "--quick" in rest)
    shape: Any = Command[type(default)]
    names = " | ".join(name for name, p in problems.items() if not experiment.refuses(p))
    about = f"{experiment.title}\n\n--problem {{{names}}}: what it is asked of [now: {problem.name}]"
    parsed = tyro.cli(
        shape,
        args=rest,
        default=Command(default),
        description=about,
        prog=f"python -m experiments {experiment.name}",
        config=(tyro.conf.OmitArgPrefixes,),
    )
    _run(experiment, parsed.config, parsed.run)


def _problem(
    experiment: Experiment[Any], problems: dict[str, Problem], arguments: Sequence[str]
) -> tuple[Problem, list[str]]:
    """The problem asked for, and the other arguments."""
    rest, name = list(arguments), experiment.homes[0]
    for i, argument in enumerate(rest):
        if argument == "--problem" and i + 1 < len(rest):
            name = rest[i + 1]
            del rest[i : i + 2]
            break
        if argument.startswith("--problem="):
            name = argument.partition("=")[2]
            del rest[i]
            break
    if name not in problems:
        raise OptionError(f"problem: unknown {name!r}; there are {', '.join(problems)}")
    reason = experiment.refuses(problems[name])
    if reason:
        raise OptionError(f"problem: {experiment.name} cannot be asked of {name!r}: {reason}")
    return problems[name], rest


def _run(experiment: Experiment[Any], config: Any, how: Run) -> None:
    part = shard_of(how.shard, os.environ)
    if how.distributed and part != WHOLE:
        raise OptionError(f"shard: every distributed process has its own, got {part}")
    prepare(how.device, how.distributed)
    if how.distributed:
        part = Shard(jax.process_index(), jax.process_count())
        measure_shard(experiment, config, how.folder, part)
        jax.distributed.shutdown()  # which waits for all processes
        if part.index > 0:
            return
    report = run(experiment, config, how.folder) if part == WHOLE else run_shard(experiment, config, how.folder, part)
    if report is None:
        have, all_ = stored(experiment, config, how.folder), len(experiment.points(config))
        print(f"shard {part}: {have} of {all_} points are stored; the report is made once all are there")
        return
    print(table(report.rows), *map(as_markdown, report.tables), *map(printable, report.sentences), sep="\n")


def default_out(quick: bool) -> Path:
    """Return the folder of results where none is named."""
    return Path("results/quick") if quick else Path("results")


def prepare(device: Device, distributed: bool = False) -> None:
    """Set float64 and full matmul precision, on the device asked for, among `distributed` processes if so."""
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_default_matmul_precision", "highest")
    if device != "auto":
        jax.config.update("jax_platforms", device)
    if distributed:
        try:
            jax.distributed.initialize(shutdown_timeout_seconds=PATIENCE)
        except (RuntimeError, ValueError) as error:
            raise OptionError(f"distributed: JAX finds no other processes ({error})") from None
    try:
        jax.devices()
    except (RuntimeError, AssertionError):  # JAX has either, by backend
        raise OptionError(f"device: JAX finds no {device!r} on this machine") from None


def exit_on_bad_input(command: Callable[[], object]) -> None:
    """Run the command; a wrong argument, a file in the way or a lack of memory ends it in one line, with exit status 2.

    So does a control that is not refuted, and a reader of its output that leaves, with 1.
    """
    try:
        with while_it_is_read():
            command()
    except (InputError, OptionError, RecordError, UnfitError, ControlError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1 if isinstance(error, ControlError) else 2) from None
