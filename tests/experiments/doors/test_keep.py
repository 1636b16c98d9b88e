"""What took long is kept, and what was measured of it; what is short alone is computed anew."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

from experiments.doors import keep
from experiments.lab import store
from experiments.lab.experiment import Experiment, Report
from experiments.problems import PROBLEMS


@dataclass(frozen=True)
class Config:
    seeds: int = 2


def toy(name: str, first: Any = None) -> Experiment[Config]:
    return Experiment(
        name=name,
        title="A toy.",
        configure=lambda problem: Config(),
        points=lambda config: [{"seed": seed} for seed in range(config.seeds)],
        measure=lambda config, seed: xr.Dataset({"x": seed}),
        report=lambda config, data: Report([], [], {}),
        first=first,
    )


def test_what_builds_on_a_long_experiment_is_kept_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two points of 31 s are long, and so is what reads them; one of 29 s is short, and one whose point is missing."""
    long, short, half = toy("long"), toy("short"), toy("half")
    reads = {
        name: toy(name, lambda config, of=of: (of, config)) for name, of in (("of long", long), ("of short", short))
    }
    for experiment, seconds in ((long, 31.0), (short, 14.0), (half, 90.0), *((x, 0.1) for x in reads.values())):
        for point in experiment.points(Config())[: 1 if experiment is half else 2]:
            place = store.path_of(tmp_path, experiment.name, Config(), point)
            store.write(xr.Dataset({"x": 1.0}), place, experiment.name, Config(), point, seconds=seconds)
    asked = [(experiment, PROBLEMS["mlp"]) for experiment in (long, short, half, *reads.values())]
    monkeypatch.setattr(keep, "reproduced", lambda problems: asked)
    monkeypatch.setattr(keep, "keep", lambda experiment, config, out: True)
    assert keep.keep_long(tmp_path) == ["long on mlp", "of long on mlp"]
