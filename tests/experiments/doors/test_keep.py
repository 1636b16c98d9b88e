"""What took long is kept, and what was measured of it; what is short alone is computed anew."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

from experiments.catalogue import reproduced
from experiments.claims import CLAIMS
from experiments.doors import keep
from experiments.lab import store
from experiments.lab.experiment import Experiment, Report
from experiments.lab.problem import Problem
from experiments.lab.reference import archive, take
from experiments.lab.runner import Reader, from_store, last_stage
from experiments.ledger import ledger
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


COSTLY = [
    pytest.param(experiment, problem, id=f"{experiment.name} on {problem.name}")
    for experiment, problem in reproduced(PROBLEMS.values())
    if problem.costly and archive(experiment, experiment.at(problem)).exists()
]


@pytest.mark.parametrize(("experiment", "problem"), COSTLY)
def test_what_is_kept_of_a_model_is_reported_where_its_files_were_not_fetched(
    experiment: Experiment[Any], problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGNAL_DRIFT_CACHE", str(tmp_path / "nothing"))
    for stage in experiment.staged(experiment.at(problem)):
        take(experiment, stage, tmp_path)
    config = last_stage(experiment, experiment.at(problem), tmp_path)
    found = from_store(experiment, config, tmp_path)
    assert found.data is not None, found.reason
    assert experiment.report(config, found.data).rows
    read = ledger.store(Reader(tmp_path), quick=False)
    readings = [x.plain for claim in CLAIMS for x in claim.evidence if x.plain.experiment is experiment]
    assert all(ledger.judge(reading, problem, read).verdict != "not run" for reading in readings)
