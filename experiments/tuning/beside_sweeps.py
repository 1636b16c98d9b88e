"""Set what is measured at the start beside the sweeps of `rank_law`: their sizes, and how far a search goes."""

from dataclasses import dataclass, fields
from typing import Any

from experiments.lab.experiment import Experiment
from experiments.lab.problem import Problem
from experiments.tuning import rank_law, rank_sweeps


@dataclass(frozen=True)
class Config(rank_sweeps.Config):
    """Measure curvature at the ranks and draws of the sweeps, in which the best α or η is found."""

    tolerance: float = 1e-3
    """Residual of an eigenvalue over ‖H‖ at which a search stops."""


def configure(problem: Problem) -> Config:
    return Config(**vars(rank_sweeps.configure(problem)))


def sweeps_of(config: Config) -> tuple[Experiment[Any], rank_sweeps.Config]:
    """Return the sweeps in which the best α and η were found."""
    names = [field.name for field in fields(rank_sweeps.Config)]
    return rank_law.EXPERIMENT, rank_sweeps.Config(**{name: getattr(config, name) for name in names})
