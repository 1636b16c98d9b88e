"""Run an experiment: points measured once and stored, then figures and a table from the store alone."""

import hashlib
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import xarray as xr
from tqdm import tqdm

from experiments.lab import store
from experiments.lab.errors import LACKING, RecordError, UnfitError, no_room
from experiments.lab.experiment import C, Experiment, Point, Report
from experiments.lab.figure_files import Drawing, fingerprint, is_drawn, save_figure
from experiments.lab.seal import body_of
from experiments.lab.shards import Shard
from signal_drift.errors.words import printable


def results(experiment: Experiment[C], config: C, out: Path) -> xr.Dataset:
    """Return every point of the experiment, measured where the store does not have it already."""
    return combined(_each(experiment, config, experiment.points(config), out, label(experiment, config)))


def _each(experiment: Experiment[C], config: C, points: Sequence[Point], out: Path, name: str) -> list[xr.Dataset]:
    """Measure one point after the other. Raises `UnfitError` for those without room, when all others are stored."""
    found, lacking = [], []
    with tqdm(points, desc=name, unit="point", dynamic_ncols=True) as progress:
        for point in progress:
            try:
                found.append(labelled(measured(experiment, config, point, out, progress), point))
            except LACKING as error:
                lacking.append(f"{store.path_of(out, experiment.name, config, point).stem} ({no_room(error)})")
    if lacking:
        raise UnfitError(f"{name}: {len(lacking)} of {len(points)} points do not fit: {'; '.join(lacking)}")
    return found


def label(experiment: Experiment[C], config: C) -> str:
    """Name a run for people: the experiment, and the problem it is asked of."""
    problem = store.problem_of(config)
    return f"{experiment.name} on {problem}" if problem else experiment.name


def labelled(dataset: xr.Dataset, point: Point) -> xr.Dataset:
    """Give a point's dataset the axes that its labels are on."""
    return dataset.expand_dims({k: [v] for k, v in point.items()})


def combined(found: list[xr.Dataset]) -> xr.Dataset:
    """Join points to one dataset; a label that some points do not have is NaN there."""
    joined = xr.combine_by_coords(found, combine_attrs="drop_conflicts", join="outer")
    return joined if isinstance(joined, xr.Dataset) else joined.to_dataset()


class Stored(NamedTuple):
    """Holds what is stored of an experiment: all of it and the seconds it took, or why it cannot be used."""

    data: xr.Dataset | None
    seconds: float | None
    reason: str
    digest: str = ""
    """Digest of the bytes of all its records, in the order of the points."""


def from_store(experiment: Experiment[C], config: C, out: Path) -> Stored:
    """Return the experiment as far as it is stored; nothing is measured."""
    found, seconds, created, content = [], [], [], hashlib.sha256()
    for point in experiment.points(config):
        path = store.path_of(out, experiment.name, config, point)
        dataset, reason = store.read(path, store.digest(experiment.name, config, point))
        if dataset is None:
            return Stored(None, None, printable(f"{path.relative_to(out)} is {reason}"))
        content.update(body_of(path))
        seconds.append(dataset.attrs.pop("seconds", None))
        created.append(dataset.attrs.pop("created", ""))
        found.append(labelled(dataset, point))
    data = combined(found).assign_attrs({"created": max(created)} if all(created) else {})
    return Stored(data, None if None in seconds else sum(seconds), "", content.hexdigest()[:16])


class Reader:
    """Reads what is stored in a folder, every experiment under every configuration once."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self._known: dict[tuple[str, Any], Stored] = {}

    def __call__(self, experiment: Experiment[C], config: C) -> Stored:
        """Return the experiment as far as it is stored; what is not all there is looked for again the next time."""
        found = self._known.get((experiment.name, config)) or from_store(experiment, config, self.out)
        if found.data is not None:
            self._known[experiment.name, config] = found
        return found


def last_stage(experiment: Experiment[C], config: C, out: Path) -> C:
    """Return the configuration at the last stage of which every point is there, the first one if none is."""
    stages = experiment.staged(config)
    whole = [x for x in stages if all(_is_there(experiment, x, p, out) for p in experiment.points(x))]
    return whole[-1] if whole else stages[0]


def _is_there(experiment: Experiment[C], config: C, point: Point, out: Path) -> bool:
    return store.path_of(out, experiment.name, config, point).exists()


def seconds_spent(experiment: Experiment[C], config: C, out: Path) -> float | None:
    """Add up the seconds that the stored points took; None where those of a point are not known."""
    found = [
        store.timing(store.path_of(out, experiment.name, config, point), store.digest(experiment.name, config, point))
        for point in experiment.points(config)
    ]
    return sum(float(x["seconds"]) for x in found) if all("seconds" in x for x in found) else None


def measured(experiment: Experiment[C], config: C, point: Point, out: Path, progress: "tqdm[Any]") -> xr.Dataset:
    """Return one point from the store, measured and stored before if it is not there.

    Raises `RecordError` for a file that this project did not write or that may not be read: it is left alone.
    """
    path = store.path_of(out, experiment.name, config, point)
    wanted = store.digest(experiment.name, config, point)
    found, reason = store.read(path, wanted)
    if found is not None:
        return found
    if reason not in store.REPLACED:
        raise RecordError(f"out: {str(path)!r} is {reason}; move it away")
    if reason != store.ABSENT:
        progress.write(printable(f"{path}: {reason}, computed again"), file=sys.stderr)
    given = {} if experiment.first is None else {"first": _first(*experiment.first(config), out)}
    start = time.perf_counter()
    dataset = experiment.measure(config, **given, **point)
    store.write(dataset, path, experiment.name, config, point, time.perf_counter() - start)
    found, reason = store.read(path, wanted)  # what is reported is what was stored
    if found is None:
        raise RecordError(f"out: {str(path)!r} was written and is now {reason}")
    return found


def _first(experiment: Experiment[Any], config: Any, out: Path) -> xr.Dataset:
    """Measure another experiment, on which this one builds, where the store does not have it all."""
    found = from_store(experiment, config, out).data
    return results(experiment, config, out) if found is None else found


def run(experiment: Experiment[C], config: C, out: Path) -> Report:
    """Measure what is missing, then draw and report from the store; figures go to `out`/figures."""
    return reported(experiment, config, results(experiment, config, out), out)


def reported(experiment: Experiment[C], config: C, data: xr.Dataset, out: Path) -> Report:
    """Report what was stored, and draw it into `out`/figures."""
    report = experiment.report(config, data)
    problem = getattr(config, "problem", None)
    drawings = {store.figure_name(name, problem): draw for name, draw in report.figures.items()}
    draw_figures(drawings, [data], out, store.digest(experiment.name, config, {}))
    return report


def draw_figures(drawings: Mapping[str, Drawing], data: Sequence[xr.Dataset], out: Path, config: str = "") -> None:
    """Draw into `out`/figures what is not there as it would be drawn from these values and this configuration."""
    for name, draw in drawings.items():
        mark = {"Config": config, "Drawn": "".join(fingerprint(x, draw) for x in data)}
        stem = out / "figures" / name
        if not is_drawn(stem, mark):
            save_figure(draw(), stem, mark)


def measure_shard(experiment: Experiment[C], config: C, out: Path, shard: Shard) -> None:
    """Measure what is missing of one shard."""
    points = shard.of(experiment.points(config))
    _each(experiment, config, points, out, f"{label(experiment, config)} {shard}")


def run_shard(experiment: Experiment[C], config: C, out: Path, shard: Shard) -> Report | None:
    """Measure what is missing of one shard; report if, with the other shards' points, the store is complete."""
    measure_shard(experiment, config, out, shard)
    complete = stored(experiment, config, out) == len(experiment.points(config))
    return run(experiment, config, out) if complete else None


def stored(experiment: Experiment[C], config: C, out: Path) -> int:
    """Count the points of the experiment that the store has."""
    paths = [(store.path_of(out, experiment.name, config, p), p) for p in experiment.points(config)]
    return sum(store.read(path, store.digest(experiment.name, config, p))[0] is not None for path, p in paths)
