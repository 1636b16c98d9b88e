"""Every experiment on curvature at its tiny size, each measured once for all tests that look at it."""

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture(scope="session")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Any, str], tuple[Any, Any]]:
    """The tiny configuration of an experiment on a problem, and what it measured."""
    from experiments.lab.runner import results  # not before pytest has set up its filters and type checks
    from experiments.problems import PROBLEMS

    folder = tmp_path_factory.mktemp("curvature")

    def measured(experiment: Any, problem: str) -> tuple[Any, Any]:
        config = experiment.at(PROBLEMS[problem], quick=True)
        return config, results(experiment, config, folder)

    return measured
