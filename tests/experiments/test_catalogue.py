"""What each experiment is asked of, what it refuses, and that it answers where no test reproduces it."""

import re
from pathlib import Path

import pytest

from experiments.catalogue import EXPERIMENTS, find, is_reproduced
from experiments.lab.experiment import Experiment, table
from experiments.lab.problem import Problem
from experiments.lab.runner import results
from experiments.problems import PROBLEMS

DENSE = {"mlp", "policy", "transformer"}
"""Where full spectra fit."""
TUNED = {"contrastive", "digits", "flow", "grpo", "minilm", "policy", "smollm", "teacher64", "teacher256"}
ANSWERED = {
    "magnitudes": {"mlp"},
    "readings": {"mlp"},
    **dict.fromkeys(
        ("spectral_suppression", "purification", "residual_curvature", "asymmetric_scaling", "density_check"), DENSE
    ),
    **dict.fromkeys(("rates", "rank_law", "crossover", "protocol_comparison", "where_alpha_pays"), TUNED),
    "samples": {"flow"},
    "rate_rules": {"digits", "flow", "policy", "teacher64", "teacher256"},
}


def elsewhere() -> list[tuple[Experiment, Problem]]:
    """Every experiment on one more problem than it is reproduced on, the encoder where it can answer; and all of it.

    But for algebra, which takes long to compile, and which a test of `verify` asks of yet another problem.
    """
    found = []
    for experiment in (e for e in EXPERIMENTS if e.name != "algebra"):
        others = (PROBLEMS[name] for name in ("minilm", "transformer", "digits"))
        free = [p for p in others if not is_reproduced(experiment, p) and not experiment.refuses(p)]
        found += [(experiment, problem) for problem in free[:1]]
    encoder = PROBLEMS["minilm"]
    return [*found, *((experiment, encoder) for experiment in EXPERIMENTS if is_reproduced(experiment, encoder))]


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda experiment: experiment.name)
def test_each_refuses_what_it_cannot_ask(experiment: Experiment) -> None:
    answered = {name for name, problem in PROBLEMS.items() if not experiment.refuses(problem)}
    assert answered == ANSWERED.get(experiment.name, set(PROBLEMS))
    assert set(experiment.homes) <= answered


def test_reason_says_what_is_missing() -> None:
    assert find("magnitudes").refuses(PROBLEMS["digits"]) == "is arithmetic, asks no model"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("experiment", "problem"), [pytest.param(e, p, id=f"{e.name}-{p.name}") for e, p in elsewhere()]
)
def test_it_answers_where_no_test_reproduces_it(experiment: Experiment, problem: Problem, stored: Path) -> None:
    config = experiment.at(problem, quick=True)
    report = experiment.report(config, results(experiment, config, stored))
    assert report.rows
    assert not re.search(r"\bnan\b|{", "\n".join([table(report.rows), *report.sentences]))
    for draw in report.figures.values():
        draw().draw_without_rendering()
