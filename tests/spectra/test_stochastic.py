"""Trace and density of eigenvalues from random vectors: against exact spectra, errors by z-scores with controls."""

import jax
import numpy as np
import pytest
from problems import decomposition, dense, matrix_operator, rejects, rounding

import signal_drift as sd
from signal_drift.operators import operator

N = 80
RUNS = 200
Z = 4.5
"""Two-sided normal tail 7·10⁻⁶: with fewer than 50 such tests here, one false alarm in 3000 choices of the seed."""


def conjugated(values, seed=0):
    R = np.linalg.qr(np.random.default_rng(seed).standard_normal((len(values), len(values))))[0]
    H = (R * np.asarray(values)) @ R.T
    return (H + H.T) / 2


VALUES = np.concatenate([np.random.default_rng(0).standard_normal(N - 3), [8.0, 10.0, -6.0]])
OP = matrix_operator(conjugated(VALUES))


@pytest.fixture(scope="module")
def traces():
    return [sd.estimate_trace(OP, probes=30, key=jax.random.key(i)) for i in range(RUNS)]


def test_trace_estimate_is_unbiased_and_its_error_covers(traces):
    """Student's t with 9 degrees of freedom: |value − Tr H| ≤ 2.262·error in 95 % of runs, binomially."""
    value, error = np.array(traces).T
    z = (np.mean(value) - np.sum(VALUES)) / (np.std(value, ddof=1) / np.sqrt(RUNS))
    assert abs(z) <= Z
    covered = np.mean(np.abs(value - np.sum(VALUES)) <= 2.262 * error)
    assert abs(covered - 0.95) <= Z * np.sqrt(0.95 * 0.05 / RUNS)


def test_a_biased_trace_would_be_seen(traces):
    """Without the part outside Q, or with 1/√2 of the error, the same two tests fail (negative control)."""
    value, error = np.array(traces).T
    other = np.sum(VALUES) + 1.0
    assert abs((np.mean(value) - other) / (np.std(value, ddof=1) / np.sqrt(RUNS))) > Z
    covered = np.mean(np.abs(value - np.sum(VALUES)) <= 2.262 * error / 2)
    assert abs(covered - 0.95) > Z * np.sqrt(0.95 * 0.05 / RUNS)


def test_trace_of_low_rank_is_exact():
    """Rank 3 below the 10 directions of Q: nothing is left to estimate."""
    H = conjugated([*np.zeros(N - 3), 1.0, 2.0, -5.0])
    found = sd.estimate_trace(matrix_operator(H), probes=30)
    assert abs(found.value + 2) <= rounding(N, H)
    assert found.error <= rounding(N, H)


def test_trace_of_the_drift_takes_no_product(monkeypatch):
    """X1: Tr H_Drift = 0, and so says its diagonal."""
    assert not np.any(np.diag(dense("mlp", "drift")))
    monkeypatch.setattr(operator, "_diagonal", None)
    assert sd.trace(decomposition("mlp").drift) == 0.0


@pytest.fixture(scope="module")
def density():
    return sd.spectral_density(OP, probes=RUNS, steps=12)


@pytest.mark.parametrize("degree", [1, 2, 3, 4])
def test_moments_of_the_density(density, degree):
    """(1/n)·Tr H^k in expectation; the 0th is exactly 1."""
    value, error = density.mean(lambda x: x**degree)
    assert np.allclose(np.sum(density.weights, axis=1), 1, rtol=0, atol=rounding(N))
    assert abs(value - np.mean(VALUES**degree)) <= Z * error
    assert abs(value - 1.3 * np.mean(np.abs(VALUES) ** degree)) > Z * error or degree == 1


def test_quadrature_of_one_probe_is_exact_for_low_degrees():
    """⟨v, H^k v⟩ for k below 2·steps; the start is the first normal draw after the two of the symmetry check."""
    H, steps = conjugated(VALUES), 5
    found = sd.spectral_density(OP, probes=2, steps=steps, key=jax.random.key(3))
    draws = np.random.default_rng(np.asarray(jax.random.key_data(jax.random.key(3))))
    draws.standard_normal((2, N))
    v = draws.standard_normal(N)
    v /= np.linalg.norm(v)
    size = np.linalg.norm(H)
    for k in range(2 * steps):
        seen = np.sum(found.weights[0] * found.nodes[0] ** k)
        assert abs(seen - v @ np.linalg.matrix_power(H, k) @ v) <= rounding(N) * size**k
    k = 2 * steps
    beyond = np.sum(found.weights[0] * found.nodes[0] ** k) - v @ np.linalg.matrix_power(H, k) @ v
    assert abs(beyond) > rounding(N) * size**k


@pytest.mark.parametrize("part", ["signal", "drift", "lora"])
def test_smoothed_density_is_that_of_the_exact_spectrum(part):
    """At every point within Z standard errors, of which the scatter of 60 probes is an estimate good to 9 %.

    Forty moments make the error of the quadrature 10⁻⁹ for a Gaussian that is a tenth of the range wide.
    """
    H = dense("mlp", part)
    exact = np.linalg.eigvalsh((H + H.T) / 2)
    grid, width = np.linspace(exact[0], exact[-1], 9), (exact[-1] - exact[0]) / 10
    found = sd.spectral_density(getattr(decomposition("mlp"), part), probes=60, steps=20)
    value, error = found.smooth(grid, width)
    kernel = np.exp(-(((grid[:, None] - exact) / width) ** 2) / 2) / (width * np.sqrt(2 * np.pi))
    expected = np.mean(kernel, axis=1)
    assert np.all(np.abs(value - expected) <= Z * error)
    assert np.any(np.abs(value - expected[::-1]) > Z * error) or part == "drift"


def test_density_is_reproducible_from_the_key():
    first, again, other = (sd.spectral_density(OP, probes=2, steps=4, key=jax.random.key(i)) for i in (1, 1, 2))
    assert np.array_equal(first.nodes, again.nodes)
    assert not np.array_equal(first.nodes, other.nodes)


def test_run_that_ends_early_keeps_its_weight():
    """One node suffices for a multiple of the identity, none but zeros for the zero matrix."""
    for value in (3.0, 0.0):
        found = sd.spectral_density(matrix_operator(value * np.eye(20)), probes=2, steps=5)
        assert np.allclose(found.mean(lambda x: x).value, value, rtol=0, atol=rounding(20))
        assert np.allclose(np.sum(found.weights, axis=1), 1, rtol=0, atol=rounding(20))


def test_numbers_out_of_range_are_named():
    with rejects("probes", 1):
        sd.spectral_density(OP, probes=1)
    with rejects("steps", 0):
        sd.spectral_density(OP, steps=0)
    with rejects("probes", 5):
        sd.estimate_trace(OP, probes=5)


def test_matrix_that_does_not_fit_is_refused_before_it_is_built(monkeypatch):
    """D = 10⁶ needs 7.28 TiB = 7450 GiB; what to call instead is said."""
    base = {"W": jax.numpy.zeros((1000, 1000))}
    adapters = sd.init_adapters(jax.random.key(0), base, 1)
    parts = sd.decompose(lambda weights: jax.numpy.sum(weights["W"] ** 2), base, adapters, 1.0)
    monkeypatch.setattr(operator, "_columns", None)
    with rejects("op", "7.45e+03 GiB", "(1000000, 1000000)", "extreme_eigenvalues"):
        parts.task.dense()
    with rejects("op", "29.8 GiB", "spectral_density"):
        monkeypatch.setattr("signal_drift.operators.chunks.available_bytes", lambda: 2**30)
        parts.jacobian.dense()
