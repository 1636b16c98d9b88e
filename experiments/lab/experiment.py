"""How an experiment runs: points measured once and stored, then figures and a table from the store alone."""

import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple

import jax
import tyro
import xarray as xr
from tqdm import tqdm

from experiments.lab import store
from experiments.lab.errors import ControlError, OptionError, RecordError
from experiments.lab.figure_files import Drawing, fingerprint, is_drawn, save_figure
from experiments.lab.shards import WHOLE, Shard, shard_of
from signal_drift import InputError

Device = Literal["auto", "cpu", "cuda", "rocm", "tpu"]

PATIENCE = 7 * 24 * 3600
"""Seconds that a process started with others waits for them at its end: some points take longer than others."""


class Row(NamedTuple):
    """One line of the summary: a quantity, what the paper predicts, what was measured, and its 95% interval."""

    quantity: str
    predicted: str
    measured: str
    interval: str


class Report(NamedTuple):
    """What an experiment says of its stored results."""

    rows: list[Row]
    sentences: list[str]
    figures: dict[str, Drawing]
    provenance: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Experiment:
    """A name, the paper's configuration and a tiny one, and three functions.

    `points(config)` labels the independent pieces; `measure(config, **point)` computes one as a dataset;
    `report(config, dataset)` sees only what was stored. `first(config)` names another experiment and its configuration
    that this one builds on: it is measured and stored before, and its results are `measure`'s argument `first`. One
    that is `extra` needs what `make minilm` fetches and is reported by `make reproduce` where it has been run.
    """

    name: str
    title: str
    paper: Any
    quick: Any
    points: Callable[[Any], list[dict[str, Any]]]
    measure: Callable[..., xr.Dataset]
    report: Callable[[Any, xr.Dataset], Report]
    first: Callable[[Any], tuple["Experiment", Any]] | None = None
    extra: bool = False

    def at(self, quick: bool) -> Any:
        """The tiny configuration, or the paper's."""
        return self.quick if quick else self.paper


def results(experiment: Experiment, config: Any, out: Path) -> xr.Dataset:
    """Every point of the experiment, measured where the store does not have it already."""
    with tqdm(experiment.points(config), desc=experiment.name, unit="point", dynamic_ncols=True) as progress:
        stored = [
            _point(experiment, config, point, out, progress).expand_dims({k: [v] for k, v in point.items()})
            for point in progress
        ]
    return _combined(stored)


def _combined(stored: list[xr.Dataset]) -> xr.Dataset:
    # outer: a label that some points do not have is NaN there
    combined = xr.combine_by_coords(stored, combine_attrs="drop_conflicts", join="outer")
    return combined if isinstance(combined, xr.Dataset) else combined.to_dataset()


class Stored(NamedTuple):
    """What the store has of an experiment: all of it and the seconds it took, or why it cannot be used."""

    data: xr.Dataset | None
    seconds: float | None
    reason: str


def from_store(experiment: Experiment, config: Any, out: Path) -> Stored:
    """The experiment as far as it is stored; nothing is measured."""
    found, seconds, created = [], [], []
    for point in experiment.points(config):
        path = store.path_of(out, experiment.name, point)
        dataset, reason = store.read(path, store.digest(experiment.name, config, point))
        if dataset is None:
            return Stored(None, None, f"{path.relative_to(out)} is {reason}")
        seconds.append(dataset.attrs.pop("seconds", None))
        created.append(dataset.attrs.pop("created", ""))
        found.append(dataset.expand_dims({k: [v] for k, v in point.items()}))
    data = _combined(found).assign_attrs({"created": max(created)} if all(created) else {})
    return Stored(data, None if None in seconds else sum(seconds), "")


def _point(experiment: Experiment, config: Any, point: Mapping[str, Any], out: Path, progress: tqdm) -> xr.Dataset:
    path, wanted = store.path_of(out, experiment.name, point), store.digest(experiment.name, config, point)
    stored, reason = store.read(path, wanted)
    if stored is not None:
        return stored
    if reason != "absent":
        progress.write(f"{path}: {reason}, computed again", file=sys.stderr)
    given = {} if experiment.first is None else {"first": _first(*experiment.first(config), out)}
    start = time.perf_counter()
    dataset = experiment.measure(config, **given, **point)
    store.write(dataset, path, experiment.name, config, point, time.perf_counter() - start)
    stored, reason = store.read(path, wanted)  # what is reported is what was stored
    if stored is None:
        raise RecordError(f"out: {str(path)!r} was written and is now {reason}")
    return stored


def _first(experiment: Experiment, config: Any, out: Path) -> xr.Dataset:
    """What another experiment builds on, measured where the store does not have it all."""
    stored = from_store(experiment, config, out).data
    return results(experiment, config, out) if stored is None else stored


def run(experiment: Experiment, config: Any, out: Path) -> Report:
    """Measure what is missing, then draw and report from the store; figures go to `out`/figures."""
    data = results(experiment, config, out)
    report = experiment.report(config, data)._replace(provenance=data.attrs)
    mark = {"Config": store.digest(experiment.name, config, {}), "Drawn": fingerprint(data)}
    for name, draw in report.figures.items():
        if not is_drawn(out / "figures" / name, mark):
            save_figure(draw(), out / "figures" / name, mark)
    return report


def measure_shard(experiment: Experiment, config: Any, out: Path, shard: Shard) -> None:
    """Measure what is missing of one shard."""
    points = shard.of(experiment.points(config))
    with tqdm(points, desc=f"{experiment.name} {shard}", unit="point", dynamic_ncols=True) as progress:
        for point in progress:
            _point(experiment, config, point, out, progress)


def run_shard(experiment: Experiment, config: Any, out: Path, shard: Shard) -> Report | None:
    """Measure what is missing of one shard; report if, with the other shards' points, the store is complete."""
    measure_shard(experiment, config, out, shard)
    complete = stored(experiment, config, out) == len(experiment.points(config))
    return run(experiment, config, out) if complete else None


def stored(experiment: Experiment, config: Any, out: Path) -> int:
    """How many points of the experiment the store has."""
    wanted = [(store.path_of(out, experiment.name, p), p) for p in experiment.points(config)]
    return sum(store.read(path, store.digest(experiment.name, config, p))[0] is not None for path, p in wanted)


def table(rows: Iterable[Row]) -> str:
    """The rows as an aligned Markdown table."""
    lines = [Row("quantity", "predicted", "measured", "95% interval"), *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(4)]
    text = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |" for line in lines]
    return "\n".join([text[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *text[1:]])


def main(experiment: Experiment, argv: list[str] | None = None) -> None:
    """The command line of one experiment: `--help`, `--quick`, `--out`, `--device` and every field of its config."""
    arguments = sys.argv[1:] if argv is None else argv
    default = experiment.at("--quick" in arguments)

    def command(
        config: tyro.conf.OmitArgPrefixes[Any],
        quick: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
        out: Path | None = None,
        device: Device = "auto",
        shard: str | None = None,
        distributed: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    ) -> None:
        """Run one experiment of the paper, or report it if it has been run.

        Args:
            config: The setting; the defaults are the paper's size.
            quick: The tiny size used in tests, in a folder of its own.
            out: Where results go [default: results, or results/quick].
            device: Where JAX computes; auto takes an accelerator where there is one.
            shard: i/n: measure only every n-th point from the i-th on, counted from 0
                [default: 0/1, or this task's place in a SLURM array job].
            distributed: One of several processes started together by srun or mpirun: each measures the points of its
                own shard, on its own device, and the first one reports.

        """
        part, folder = shard_of(shard, os.environ), out or default_out(quick)
        if distributed and part != WHOLE:
            raise OptionError(f"shard: every distributed process has its own, got {part}")
        prepare(device, distributed)
        if distributed:
            part = Shard(jax.process_index(), jax.process_count())
            measure_shard(experiment, config, folder, part)
            jax.distributed.shutdown()  # which waits for all processes
            if part.index > 0:
                return
        report = run_shard(experiment, config, folder, part) if part != WHOLE else run(experiment, config, folder)
        if report is None:
            have, all_ = stored(experiment, config, folder), len(experiment.points(config))
            print(f"shard {part}: {have} of {all_} points are stored; the report is made once all are there")
            return
        print(table(report.rows), *report.sentences, sep="\n")

    command.__annotations__["config"] = tyro.conf.OmitArgPrefixes[type(default)]
    command.__defaults__ = (default, *(command.__defaults__ or ()))
    exit_on_bad_input(lambda: tyro.cli(command, args=arguments, description=experiment.title))


def default_out(quick: bool) -> Path:
    return Path("results/quick") if quick else Path("results")


def prepare(device: Device, distributed: bool = False) -> None:
    """Float64 and full matmul precision everywhere, on the device asked for, among `distributed` processes if so."""
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
    """Run the command; a wrong argument or a file in the way ends in one line and exit status 2, a control in 1."""
    try:
        command()
    except (InputError, OptionError, RecordError, ControlError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1 if isinstance(error, ControlError) else 2) from None
