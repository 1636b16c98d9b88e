"""Intervals and exponents against what they must recover, and against what they must not."""

import math

import numpy as np
import pytest
import scipy.stats

from experiments.analysis.intervals import Interval, bootstrap, exponents, extent, mean_interval, share


def test_interval_covers_the_mean_at_its_stated_rate() -> None:
    """2000 intervals from 5 normal samples: coverage within 4 binomial standard errors of 95%, while the normal
    quantile 1.96 in place of Student's 2.78, the usual mistake, covers 88% and lies 14 standard errors away."""
    samples = np.random.default_rng(0).normal(3.0, 2.0, (2000, 5))
    error = np.sqrt(0.95 * 0.05 / 2000)
    estimates = [mean_interval(x) for x in samples]
    assert abs(np.mean([e.low <= 3 <= e.high for e in estimates]) - 0.95) < 4 * error
    shrink = scipy.stats.norm.ppf(0.975) / scipy.stats.t.ppf(0.975, 4)
    wrong = [abs(e.mean - 3) <= shrink * (e.high - e.mean) for e in estimates]
    assert abs(np.mean(wrong) - 0.95) > 4 * error


def test_one_sample_says_nothing_about_spread() -> None:
    assert mean_interval(np.array([2.0])) == (2.0, -np.inf, np.inf)
    assert bootstrap(np.mean, np.array([2.0])) == (2.0, -np.inf, np.inf)


@pytest.mark.parametrize("power", [-1.0, 0.5, 2.0])
def test_exponent_of_a_pure_power(power: float) -> None:
    """Slopes of exact powers are exact up to n·ε times the largest logarithm."""
    x = np.array([1.0, 3.0, 8.0, 100.0])
    y = np.stack([5 * x**power, 0.1 * x**power])
    np.testing.assert_allclose(exponents(x, y), power, rtol=0, atol=4 * np.finfo(float).eps * 10)
    assert abs(exponents(x, y + 1)[1] - power) > 0.1


@pytest.mark.parametrize(("hits", "n"), [(0, 5), (5, 5), (3, 7)])
def test_share_has_wilsons_interval(hits: int, n: int) -> None:
    z = 1.959963984540054
    p, estimate = hits / n, share(np.arange(n) < hits)
    middle, half = p + z**2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert estimate.mean == pytest.approx(p)
    assert estimate.low == pytest.approx(max(0, (middle - half) / (1 + z**2 / n)), abs=1e-12)
    assert estimate.high == pytest.approx(min(1, (middle + half) / (1 + z**2 / n)), abs=1e-12)


def test_extent_is_the_range() -> None:
    assert extent(np.array([1.0, 2.0, 6.0])) == (3.0, 1.0, 6.0)


def test_a_table_shows_no_interval_where_there_is_no_mean() -> None:
    assert Interval(2.0, 1.5, 2.5).cells("diverged") == ("2", "[1.5, 2.5]")
    assert Interval(np.nan, -np.inf, np.inf).cells("diverged") == ("diverged", "–")
    assert Interval(np.inf, np.inf, np.inf).cells("diverged") == ("diverged", "–")
