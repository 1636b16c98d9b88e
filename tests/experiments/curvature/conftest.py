"""Every experiment on curvature at its tiny size, each measured once for all tests that look at it."""

from collections.abc import Callable
from typing import Any

import pytest
import xarray as xr

from experiments.lab.experiment import Experiment
from experiments.lab.runner import results
from experiments.problems import PROBLEMS

Stored = Callable[[Experiment[Any], str], tuple[Any, xr.Dataset]]


@pytest.fixture(scope="session")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    """The tiny configuration of an experiment on a problem, and what it measured."""
    folder = tmp_path_factory.mktemp("curvature")

    def measured(experiment: Experiment[Any], problem: str) -> tuple[Any, xr.Dataset]:
        config = experiment.at(PROBLEMS[problem], quick=True)
        return config, results(experiment, config, folder)

    return measured
