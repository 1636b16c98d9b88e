"""Every experiment on curvature is asked of two problems at tiny size and reports only numbers."""

import pytest

from experiments.curvature import (
    algebra,
    asymmetric_scaling,
    at_scale,
    density_check,
    layers,
    purification,
    residual_curvature,
    suppression,
)
from experiments.problems import PROBLEMS

DENSE = [asymmetric_scaling, density_check, purification, residual_curvature, suppression]
ANY = [algebra, at_scale, layers]


@pytest.mark.parametrize(
    ("module", "problem"),
    [
        *((module, "mlp") for module in (*ANY, *DENSE)),
        *((module, "transformer") for module in DENSE),
        *((module, "digits") for module in (algebra, layers)),
        (at_scale, "minilm"),
    ],
    ids=lambda x: x if isinstance(x, str) else x.EXPERIMENT.name,
)
def test_reports_numbers_and_draws(module, problem, stored):
    experiment = module.EXPERIMENT
    assert not experiment.refuses(PROBLEMS[problem])
    config, data = stored(experiment, problem)
    report = experiment.report(config, data)
    words = [cell for row in report.rows for cell in row] + report.sentences
    assert report.rows
    assert not [word for word in words if "nan" in word]
    for draw in report.figures.values():
        assert config.problem.label in draw().get_suptitle() or module is algebra


@pytest.mark.parametrize("module", DENSE, ids=lambda module: module.EXPERIMENT.name)
def test_full_spectra_are_asked_where_they_fit(module):
    asked = {name for name, problem in PROBLEMS.items() if not module.EXPERIMENT.refuses(problem)}
    assert asked == {name for name, problem in PROBLEMS.items() if problem.dense}
