"""Add seeds, stage by stage, where they may decide a claim: a sequential test, its level shared over the stages."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.lab.experiment import Experiment
from experiments.lab.problem import Problem
from experiments.lab.runner import last_stage, seconds_spent
from experiments.ledger.claim import Claim
from experiments.ledger.ledger import evidence_on
from experiments.ledger.table import Entries


class Question(NamedTuple):
    """Pair an experiment with a problem."""

    experiment: Experiment[Any]
    problem: Problem

    @property
    def name(self) -> str:
        return f"{self.experiment.name} on {self.problem.name}"


Answer = Callable[[Question, Any], Entries | None]
"""Runs a question under a configuration and judges all claims anew; None where that does not fit into memory."""


def add_seeds(
    claims: Sequence[Claim], entries: Entries, asked: Sequence[Question], out: Path, seconds: float, answer: Answer
) -> Entries:
    """Run further stages until every claim is decided or no stage fits what is left of the seconds."""
    waiting, left = list(asked), seconds
    while waiting:
        question = waiting.pop(0)
        config = next_stage(question, out)
        if config is None or not undecided(claims, question, entries):
            continue
        cost = added_seconds(question, config, out)
        if cost <= left:
            left -= cost
            found = answer(question, config)
            if found is not None:
                entries = found
                waiting.append(question)
    return entries


def next_stage(question: Question, out: Path) -> Any:
    """Return the configuration with the next larger number of seeds, None at the last."""
    experiment = question.experiment
    stages = experiment.staged(experiment.at(question.problem))
    place = stages.index(last_stage(experiment, stages[0], out)) + 1
    return stages[place] if place < len(stages) else None


def undecided(claims: Sequence[Claim], question: Question, entries: Entries) -> bool:
    """Tell whether a claim that is decided there by this experiment is inconclusive."""
    ids = {claim.id for claim in claims if question.problem.name in claim.homes and _decides(claim, question)}
    return any(e["problems"][question.problem.name]["verdict"] == "inconclusive" for e in entries.of(ids))


def _decides(claim: Claim, question: Question) -> bool:
    evidence = evidence_on(claim, question.problem)
    return evidence is not None and evidence.plain.experiment is question.experiment


def added_seconds(question: Question, config: Any, out: Path) -> float:
    """Return what further seeds would take, at the pace of those that are stored; those of what it builds on too."""
    experiment, cost = question.experiment, 0.0
    start = experiment.at(question.problem)
    while True:
        now = last_stage(experiment, start, out)
        if config.seeds > now.seeds:
            spent = seconds_spent(experiment, now, out)
            cost += math.inf if spent is None else spent * (config.seeds / now.seeds - 1)
        if experiment.first is None:
            return cost
        (experiment, start), (_, config) = experiment.first(start), experiment.first(config)
