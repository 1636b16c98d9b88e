"""Every experiment on runs and steps, at the size used in tests, on the MLP and on one with minibatches."""

import pytest

from experiments.dynamics import (
    along_training,
    gauge_breaking,
    optimizer_gauge,
    readings,
    signal_descent,
    stability,
    trajectories,
    update_scaling,
)
from experiments.lab.experiment import table
from experiments.lab.runner import results
from experiments.problems import PROBLEMS

EXPERIMENTS = [
    x.EXPERIMENT
    for x in (
        *(along_training, gauge_breaking, optimizer_gauge, readings),
        *(signal_descent, stability, trajectories, update_scaling),
    )
]
ASKED = [
    pytest.param(experiment, name, id=f"{experiment.name}-{name}")
    for experiment in EXPERIMENTS
    for name in ("mlp", "minilm")
    if not experiment.refuses(PROBLEMS[name])
]


@pytest.mark.parametrize(("experiment", "name"), ASKED)
def test_it_runs_every_number_is_one_and_every_figure_can_be_drawn(experiment, name, stored):
    config = experiment.at(PROBLEMS[name], quick=True)
    report = experiment.report(config, results(experiment, config, stored))
    assert report.rows
    assert not any(word in line for line in [table(report.rows), *report.sentences] for word in ("nan", "{"))
    for draw in report.figures.values():
        draw().draw_without_rendering()


def test_only_the_mlp_has_readings():
    refused = {name for name, problem in PROBLEMS.items() if readings.EXPERIMENT.refuses(problem)}
    assert refused == set(PROBLEMS) - {"mlp"}
