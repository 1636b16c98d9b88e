"""Critical learning rates where they are known, and the scaling that B = 0 makes exact."""

import jax
import numpy as np
import pytest

from experiments.analysis.divergence import critical_rate, unstable
from experiments.analysis.intervals import exponents
from experiments.dynamics import stability
from experiments.lab.runner import results
from experiments.problems import PROBLEMS

QUICK = stability.EXPERIMENT.at(PROBLEMS["mlp"], quick=True)


@pytest.mark.parametrize(
    ("loss", "first", "climbs", "exceeds"),
    [
        ([3.0, 2.0, 1.0], False, False, False),
        ([3.0, 1.0, 2.0], False, True, False),
        ([3.0, 2.0, 4.0], False, True, True),
        ([3.0, 4.0, 1.0], True, True, True),
        ([3.0, 2.0, np.nan], False, True, True),
        ([3.0, np.inf, np.nan], True, True, True),
        ([3.0, 3.0 * (1 + 1e-14), 2.0], False, False, False),
    ],
)
def test_the_three_meanings_of_unstable(loss, first, climbs, exceeds):
    assert [unstable(c, np.array(loss)) for c in ("first", "climbs", "exceeds")] == [first, climbs, exceeds]


def test_bisection_finds_a_threshold_and_says_when_the_bracket_misses_it():
    assert critical_rate(lambda eta: eta > 0.3, 1e-3, 1e3, 30) == pytest.approx(0.3, rel=1e-6)
    assert np.isnan(critical_rate(lambda eta: eta > 0.3, 1.0, 1e3, 30))
    assert np.isnan(critical_rate(lambda eta: eta > 0.3, 1e-3, 0.1, 30))


@pytest.mark.parametrize("seed", range(3))
def test_on_a_quadratic_the_critical_rate_is_two_over_lambda_max(seed):
    """Within the interval proved in `_quadratic`; the second eigenvalue, or 1/λ instead of 2/λ, is refuted."""
    ratio, bound = stability._quadratic(QUICK, jax.random.key(seed))
    resolution = 1 + 1e-5  # of 24 halvings of 20 octaves
    assert 1 / resolution <= ratio <= bound * resolution < 1.02
    assert not 1 / resolution <= ratio / 2 <= bound * resolution  # λ_2 = λ_max/2
    assert not 1 / resolution <= ratio * 2 <= bound * resolution  # 1/λ_max


@pytest.fixture(scope="module")
def data(stored):
    return results(stability.EXPERIMENT, QUICK, stored)


def test_the_first_step_tolerates_a_rate_that_falls_as_alpha_squared(data):
    """At B = 0 the first step moves w by −η s² G AᵀA, so that its critical η is ∝ α⁻² to the bisection's 2%."""
    alphas = np.array(QUICK.alphas)
    slopes = exponents(alphas, data.measured.sel(criterion="first").transpose("seed", "alpha").values)
    resolution = 0.02 * 2 / np.log(alphas[-1] / alphas[0])
    assert np.all(np.abs(slopes + 2) < resolution)
    assert not np.any(np.abs(slopes + 1) < resolution)


def test_the_criteria_are_ordered(data):
    """A step that raises the loss above its start climbs; a first step that does so exceeds at once."""
    rate = {c: data.measured.sel(criterion=c) for c in ("first", "climbs", "exceeds")}
    assert bool((rate["climbs"] <= rate["exceeds"] * 1.02).all())
    assert bool((rate["exceeds"] <= rate["first"] * 1.02).all())
    assert bool((rate["climbs"] < rate["first"] * 0.98).any())


def test_the_first_step_is_never_below_the_bound_of_its_largest_eigenvalue(data):
    """∇ᵀH∇/‖∇‖² ≤ λ_max, and at B = 0 it belongs to H_Signal alone, since ∇_A = 0."""
    assert bool((data.rayleigh <= data.lora * (1 + 1e-9)).all())
    assert bool((data.rayleigh <= data.signal * (1 + 1e-9)).all())
    assert not bool((data.signal <= data.rayleigh * (1 + 1e-9)).any())


def test_the_report_says_when_the_bracket_missed(data):
    assert "missed the critical rate at 0 points" in stability.report(QUICK, data).sentences[-1]
    lost = data.assign(full=data.full * np.nan)
    assert "missed the critical rate at 0 points" not in stability.report(QUICK, lost).sentences[-1]


def test_what_is_unknown_is_said_and_never_printed(data):
    """At one seed λmax of H_LoRA has no certificate, hence no bracket; then none of H_ℓ has one either."""
    seed = data.seed[0]
    some = data.assign(lora=data.lora.where(data.seed != seed), measured=data.measured.where(data.seed != seed))
    none = some.assign(task=data.task * np.nan, full=data.full * np.nan)
    for holes, told in ((data, ""), (some, "(1 of 2 seeds known)"), (none, "(0 of 2 seeds known)")):
        report = stability.report(QUICK, holes)
        text = "\n".join([*report.sentences, *(cell for row in report.rows for cell in row)])
        assert "nan" not in text
        assert told in text
    assert "seeds known" not in "".join(row.quantity for row in stability.report(QUICK, data).rows)


def test_the_report_says_that_its_premise_fails(data):
    """At B = 0 H_LoRA has negative eigenvalues (X13), here and in the sentence."""
    assert bool((data.lowest < 0).all())
    assert any("needs H ⪰ 0" in line and "X13" in line for line in stability.report(QUICK, data).sentences)
