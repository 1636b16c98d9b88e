"""The record of all checks: complete, told apart from its controls, and read honestly where it is bad or empty."""

import numpy as np
import pytest
import xarray as xr

from experiments.curvature import algebra
from experiments.curvature.checked.record import OWN, Margin, margin, margins, points, ratios
from experiments.problems import PROBLEMS
from experiments.problems.mlp import MLP
from signal_drift.propositions import MATRIX_FREE, PROPOSITIONS
from signal_drift.propositions.random_problems import KINDS

QUICK = algebra.EXPERIMENT.at(PROBLEMS["mlp"], quick=True)
CLAIMS = [
    *("P1-update", "P1-hessian", "P2-descent", "P2-psd", "P2-drift-indefinite", "P2-drift-alignment", "P3-trace"),
    *("P4-landscape", "P4-update", "L1-stability", "K1-alignment", "X1", "X16", "X2", "X3", "X4", "X5", "X6", "X7"),
    *("X8", "X9", "X10"),
]


@pytest.fixture(scope="module")
def data(tiny) -> xr.Dataset:
    return tiny(algebra.EXPERIMENT, "mlp")[1]


def test_every_claim_is_tried_supported_and_told_from_its_control(data):
    found = margins(data)
    assert list(found) == CLAIMS
    assert data.sizes["check"] == len(PROPOSITIONS) == len(set(data.check.values))
    for claim, here in found.items():
        assert here.supported, claim


def test_default_has_every_kind_and_the_mlp_at_a_small_width():
    config = algebra.EXPERIMENT.at(PROBLEMS["mlp"])
    assert {point["kind"] for point in points(config)} == {*KINDS, OWN}
    assert config.problem == MLP(width=6, depth=5, samples=20, rank=3)


def test_another_problem_is_asked_alone_and_without_matrices_where_they_do_not_fit():
    dense, large = (algebra.EXPERIMENT.at(PROBLEMS[name]) for name in ("transformer", "minilm"))
    assert points(dense) == points(large) == [{"kind": OWN}]
    assert dense.statements == PROPOSITIONS
    assert large.statements == MATRIX_FREE


def test_claim_is_only_as_good_as_its_worst_check_and_instance(data):
    """One error that exceeds its tolerance, on one instance of the second check of two, fails the claim."""
    at = {"check": "drift has no sign", "kind": "quadratic", "seed": 0, "alpha": 1.0, "start": "B ≠ 0"}
    broken = data.copy(deep=True)
    broken.error.loc[at] = 1e-12
    assert margins(broken)["P2-drift-alignment"].statement == np.inf
    assert not margins(broken)["P2-drift-alignment"].supported
    sentences = algebra.EXPERIMENT.report(QUICK, broken).sentences
    assert sentences[0].startswith("21 of 22 claims hold")
    assert "they fail for: P2-drift-alignment (inf)" in sentences[0]
    assert "they fail for: none" in algebra.EXPERIMENT.report(QUICK, data).sentences[0]


def test_control_that_passes_somewhere_is_named(data):
    at = {"check": "hessian splits", "kind": "quadratic", "seed": 0, "alpha": 1.0, "start": "B ≠ 0"}
    broken = data.copy(deep=True)
    broken.control_error.loc[at] = 0.0
    assert margins(broken)["P1-hessian"].control == 0
    assert not margins(broken)["P1-hessian"].supported
    assert "except for: P1-hessian (0)" in algebra.EXPERIMENT.report(QUICK, broken).sentences[1]


def test_what_does_not_apply_counts_neither_for_nor_against(data):
    """Errors where assumptions are unmet are stored and not counted; without any instance nothing is supported."""
    outside = data.assign(error=data.error.where(data.applicable.astype(bool), 1e9))
    assert margins(outside) == margins(data)
    nowhere = data.assign(applicable=data.applicable & (data.claim != "P2-psd"))
    here = margins(nowhere)["P2-psd"]
    assert here.instances == 0
    assert not here.supported
    report = algebra.EXPERIMENT.report(QUICK, nowhere)
    assert report.sentences[2].endswith("their assumptions: P2-psd.")
    assert "applies to none" in next(row.measured for row in report.rows if row.quantity.startswith("P2-psd"))
    report.figures["algebra"]()


def test_ratio_is_error_over_tolerance_for_both(data):
    statement, control = ratios(data)
    some = data.tolerance.values > 0
    assert np.array_equal(statement.values[some], (data.error / data.tolerance.where(data.tolerance > 0)).values[some])
    exact = (data.tolerance == 0) & data.applicable.astype(bool)
    assert exact.any()
    assert np.all(statement.values[exact] == 0)
    assert np.all(control.values[exact] == np.inf)


@pytest.mark.parametrize(
    ("here", "supported"),
    [
        (Margin(1.0, 1.1, 3), True),
        (Margin(1.1, 1.2, 3), False),
        (Margin(0.5, 1.0, 3), False),
        (Margin(np.nan, 2.0, 3), False),
        (Margin(0.5, np.nan, 3), False),
        (Margin(0.0, np.inf, 0), False),
    ],
)
def test_support_needs_both_and_an_instance(here, supported):
    assert here.supported == supported


def test_margin_is_the_largest_of_the_statement_and_the_smallest_of_the_control():
    parts = {"error": [1.0, 3.0, 9.0], "tolerance": [2.0, 2.0, 2.0], "control_error": [8.0, 6.0, 0.0]}
    data = xr.Dataset({k: ("check", v) for k, v in parts.items()} | {"applicable": ("check", [True, True, False])})
    assert margin(data) == Margin(1.5, 3.0, 2)
