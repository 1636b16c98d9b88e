"""LoRA-α against the numbers of the paper's Table 6 and App. F, and the initialisations it assumes."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import rejects

import signal_drift as sd

RANKS = (8, 16, 32, 64, 128, 256)


@pytest.mark.parametrize(("rank", "ratio"), [(8, 90.5), (256, 16.0)])
def test_empirical_alpha_over_the_usual_one(rank, ratio):
    """T6-magnitudes: V1/(α = r) = 256/√r, printed to one decimal: 90.5 at r = 8 and 16 at r = 256."""
    assert round(sd.empirical_alpha_base(rank) / rank, 1) == ratio


@pytest.mark.parametrize(("coefficient", "rank", "alpha"), [(256.0, 16, 1024.0), (512.0, 64, 4096.0), (1.0, 4, 2.0)])
def test_empirical_alpha_is_coefficient_times_square_root(coefficient, rank, alpha):
    assert sd.empirical_alpha_base(rank, coefficient) == alpha


@pytest.mark.parametrize("rank", RANKS)
def test_alpha_base_under_kaiming_is_root_of_three_d_in_r(rank):
    """V2 = √(3 d_in r), at the paper's d_in = 4096; a handful of correctly rounded operations, 4ε."""
    alpha = sd.alpha_base(rank, sd.kaiming_sigma(4096))
    assert alpha == pytest.approx(math.sqrt(3 * 4096 * rank), rel=1e-15)


def test_kaiming_sigma_at_the_papers_width():
    """App. F: 1/σ_A ≈ 111 at d_in = 4096."""
    assert round(1 / sd.kaiming_sigma(4096)) == 111
    assert sd.kaiming_sigma(3) == pytest.approx(1 / 3, rel=1e-15)


@pytest.mark.parametrize(("rank", "sigma_a", "alpha"), [(4, 0.5, 4.0), (1, 2.0, 0.5), (9, 1.0, 3.0)])
def test_alpha_base_is_root_rank_over_sigma(rank, sigma_a, alpha):
    assert sd.alpha_base(rank, sigma_a) == alpha


SAMPLES = {"a": jnp.zeros((1, 50))}
RANK = 400


def test_kaiming_uniform_has_variance_one_over_three_d_in():
    """Mean square of N = rank·d_in entries U(−b, b), b² = 1/d_in: expectation b²/3, standard deviation √(4/45)·b².

    Within four standard errors (chance 6·10⁻⁵); refuted by more than eight: 1/d_in (no 1/3), 1/r (fan-out).
    """
    A = np.asarray(sd.init_adapters(jax.random.key(0), SAMPLES, RANK, sd.kaiming_uniform)["a"].A)
    error = math.sqrt(4 / 45 / A.size) / 50
    z = lambda variance: (np.mean(A**2) - variance) / error  # noqa: E731
    assert abs(z(sd.kaiming_sigma(50) ** 2)) < 4
    assert abs(z(1 / 50)) > 8
    assert abs(z(1 / (3 * RANK))) > 8
    assert abs(np.mean(A)) < 4 * sd.kaiming_sigma(50) / math.sqrt(A.size)
    assert np.max(np.abs(A)) <= 1 / math.sqrt(50)  # uniform: bounded, and close to the bound
    assert np.max(np.abs(A)) > 0.99 / math.sqrt(50)


def test_normal_fan_in_has_variance_one_over_d_in():
    """Mean square of N entries N(0, 1/d_in): standard deviation √2/d_in.

    The fourth moment is that of a normal, 3σ⁴ with Var[x⁴] = 96σ⁸. Refuted: 1/r (fan-out), a uniform of the same
    variance (9/5·σ⁴).
    """
    A = np.asarray(sd.init_adapters(jax.random.key(0), SAMPLES, RANK)["a"].A)
    z = lambda variance: (np.mean(A**2) - variance) / (math.sqrt(2 / A.size) / 50)  # noqa: E731
    z_fourth = lambda moment: (np.mean((A * math.sqrt(50)) ** 4) - moment) / math.sqrt(96 / A.size)  # noqa: E731
    assert abs(z(1 / 50)) < 4
    assert abs(z(1 / RANK)) > 8
    assert abs(z_fourth(3)) < 4
    assert abs(z_fourth(9 / 5)) > 8
    assert abs(np.mean(A)) < 4 / math.sqrt(50 * A.size)


@pytest.mark.parametrize("sigma_a", [0.0, -1.0, math.inf, math.nan])
def test_sigma_that_is_not_positive_and_finite_is_named(sigma_a):
    with rejects("sigma_a", sigma_a):
        sd.alpha_base(8, sigma_a)


@pytest.mark.parametrize("rank", [0, -2])
def test_rank_below_one_is_named(rank):
    with rejects("rank", rank):
        sd.alpha_base(rank, 0.1)
    with rejects("rank", rank):
        sd.empirical_alpha_base(rank)


def test_width_below_one_is_named():
    with rejects("d_in", 0):
        sd.kaiming_sigma(0)
