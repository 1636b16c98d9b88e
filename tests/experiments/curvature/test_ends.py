"""Ends of spectra with their certificates, and ratios of traces, against matrices and numbers known beforehand."""

from functools import partial

import numpy as np
import pytest
from problems import matrix_operator

import signal_drift as sd
from experiments.analysis import ends
from experiments.analysis.intervals import Interval, mean_of
from experiments.curvature.trace_law import Traces, largest_normal, stands_out
from experiments.ledger.verdict import Band, Finding, decide

OP = matrix_operator(np.diag(np.linspace(-1.0, 2.0, 40)))


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch):
    """Every search ends after four products, without a certificate."""
    monkeypatch.setattr(sd, "extreme_eigenvalues", partial(sd.extreme_eigenvalues, max_products=4))


def test_search_with_a_certificate_is_believed():
    full = ends.certified(OP, which="both", tolerance=1e-8)
    assert np.allclose(full.values, [-1.0, 2.0], rtol=0, atol=4e-8)


def test_eigenvalue_without_a_certificate_decides_nothing(stopped, monkeypatch):
    """Beyond the size of a full spectrum a search that was stopped gives NaN, whatever it found so far."""
    monkeypatch.setattr(ends, "DENSE", 39)
    found = ends.certified(OP, which="both", tolerance=1e-8)
    assert np.isnan(found.values).all()
    assert decide([Finding("x", Band(-np.inf, np.inf, ""), mean_of(found.values))]).verdict != "refuted"
    assert decide([Finding("x", Band(0.0, np.inf, ""), mean_of(found.values))]).verdict == "inconclusive"


@pytest.mark.parametrize(("which", "wanted"), [("both", [-1.0, 2.0]), ("largest", [2.0]), ("smallest", [-1.0])])
def test_search_that_was_stopped_is_done_in_full_where_that_fits(stopped, which, wanted):
    assert not sd.extreme_eigenvalues(OP, which=which, tolerance=1e-8).converged
    found = ends.certified(OP, which=which, tolerance=1e-8)
    assert found.converged
    assert np.allclose(found.values, wanted, rtol=0, atol=1e-13)
    assert np.all(found.residuals <= 40 * np.finfo(float).eps * 2.0)


def test_in_single_precision_nothing_is_done_in_full(stopped):
    single = matrix_operator(np.diag(np.linspace(-1.0, 2.0, 40)).astype(np.float32))
    assert np.isnan(ends.certified(single, tolerance=1e-5).values).all()


def test_ratio_is_usable_where_two_standard_errors_of_its_mean_lie_within_the_margin():
    """The mean of four seeds with 10% each has 5%, of two of them 10%; one seed near 0 spoils it."""
    stated = np.array([[1.0, 1.0], [2.0, 2.0], [-3.0, 3.0], [4.0, 1e-6]])
    error = 0.1 * np.abs(np.array([[1.0, 1.0], [2.0, 2.0], [-3.0, 3.0], [4.0, 4.0]]))
    assert list(stands_out(stated, error, 0.1001)) == [True, False]
    assert list(stands_out(stated, error, 0.0999)) == [False, False]
    assert not stands_out(np.zeros((2, 1)), np.ones((2, 1)), 1.0)


def test_scores_and_ratios_of_draws_around_a_law():
    """Draws of known mean, twice the law: their score is (2 − 1)·law/(deviation/√n), exactly."""
    law, deviation = np.array([[1.0, 4.0]]), np.array([[0.5, 8.0]])
    draws = 2 * law[..., None] + np.array([-0.1, 0.1] * 8)
    found = Traces(draws, law, deviation)
    assert np.allclose(found.ratios, 2)
    assert np.allclose(found.scores, law / (deviation / 4))
    assert list(found.usable(0.3)) == [True, False]  # 2·0.125 and 2·0.5


def test_largest_of_many_normals_is_exceeded_in_one_case_of_twenty():
    draws = np.abs(np.random.default_rng(0).standard_normal((20000, 7))).max(1)
    share = np.mean(draws > largest_normal(7))
    assert abs(share - 0.05) < 5 * (0.05 * 0.95 / 20000) ** 0.5


def test_what_a_search_leaves_open_is_not_called_an_interval_over_draws():
    assert ends.numerical_bounds(Interval(1.0, 0.5, 1.5)) == "[0.5, 1.5] (numerical bounds)"
    assert ends.numerical_bounds(Interval(np.nan, 0.5, 1.5)) == "no certificate"
