"""Put the records that took long into docs/records, from where a reproduction takes them."""

from pathlib import Path

from experiments.catalogue import reproduced
from experiments.lab.reference import keep
from experiments.lab.runner import from_store, last_stage
from experiments.ledger.ledger import rest_on_kept
from experiments.problems import PROBLEMS

LONG = 60.0
"""Seconds from which an experiment on a problem counts as long."""


def keep_long(out: Path) -> list[str]:
    """Keep every experiment that is stored whole and took longer than `LONG`, and name them.

    What is stored of a costly problem is kept whole or not: another machine goes on from there. The ledger that is in
    `out` rests on what is kept then.
    """
    kept = []
    for experiment, problem in reproduced(PROBLEMS.values()):
        config = last_stage(experiment, experiment.at(problem), out)
        found = from_store(experiment, config, out)
        long = found.seconds is not None and found.seconds > LONG
        if (long or problem.costly) and keep(experiment, config, out):
            kept.append(f"{experiment.name} on {problem.name}")
    if (out / "ledger.json").exists():
        rest_on_kept(out)
    return kept
