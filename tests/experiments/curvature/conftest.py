"""Every experiment on curvature at its tiny size, measured at most once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def tiny(stored: Path) -> Callable[[Any, str], tuple[Any, Any]]:
    """The tiny configuration of an experiment on a problem, and what it measured."""
    from experiments.lab.runner import results  # not before pytest has set up its filters and type checks
    from experiments.problems import PROBLEMS

    def measured(experiment: Any, problem: str) -> tuple[Any, Any]:
        config = experiment.at(PROBLEMS[problem], quick=True)
        return config, results(experiment, config, stored)

    return measured
