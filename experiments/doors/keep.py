"""Put the records that took long into docs/records, from where a reproduction takes them."""

from pathlib import Path
from typing import Any

from experiments.catalogue import reproduced
from experiments.lab.experiment import Experiment
from experiments.lab.reference import keep
from experiments.lab.runner import last_stage, seconds_spent
from experiments.ledger.ledger import rest_on_kept
from experiments.problems import PROBLEMS

LONG = 60.0
"""Seconds from which an experiment on a problem counts as long."""


def keep_long(out: Path) -> list[str]:
    """Keep every experiment that is stored whole and took longer than `LONG`, with what it builds on, and name them.

    What was measured of kept runs goes with them: elsewhere a model that is pre-trained first is another by rounding,
    and so is all that is measured of it. What is stored of a costly problem is kept whole or not: another machine goes
    on from there. The ledger that is in `out` rests on what is kept then.
    """
    kept = []
    for experiment, problem in reproduced(PROBLEMS.values()):
        config = last_stage(experiment, experiment.at(problem), out)
        if (problem.costly or _spent(experiment, config, out) > LONG) and keep(experiment, config, out):
            kept.append(f"{experiment.name} on {problem.name}")
    if (out / "ledger.json").exists():
        rest_on_kept(out)
    return kept


def _spent(experiment: Experiment[Any], config: Any, out: Path) -> float:
    """Add up the seconds of an experiment and of what it builds on, 0 where some of its points are not stored."""
    own = seconds_spent(experiment, config, out)
    return 0.0 if own is None else own + (_spent(*experiment.first(config), out) if experiment.first else 0.0)
