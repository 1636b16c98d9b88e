"""Norms of an update to c·ε of their terms, where these cancel and where squares leave the range of the dtype."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import signal_drift as sd
from signal_drift.lora.norms import frobenius, update_norms

DTYPES = [np.float64, np.float32]


def norms(A, B, dA, dB, s=1.0):
    theta, delta = {"W": sd.Adapter(*map(jnp.asarray, (A, B)))}, {"W": sd.Adapter(*map(jnp.asarray, (dA, dB)))}
    return tuple(float(part["W"]) for part in jax.jit(update_norms)(theta, delta, {"W": s}))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1.0, 1e-9, 1e-18])
def test_gauge_step_has_no_signal(dtype, size):
    """(δA, δB) = (−X A, B X): 2r·ε of ‖B‖‖ΔA‖ + ‖ΔB‖‖A‖ is left, from the rounding of ΔA and ΔB and of r products."""
    rng = np.random.default_rng(0)
    A, B, X = (rng.standard_normal(shape).astype(dtype) for shape in ((4, 30), (20, 4), (4, 4)))
    dA, dB = -dtype(size) * (X @ A), dtype(size) * (B @ X)
    signal, drift = norms(A, B, dA, dB, s=3.0)
    terms = np.linalg.norm(B) * np.linalg.norm(dA.astype(float)) + np.linalg.norm(dB.astype(float)) * np.linalg.norm(A)
    assert signal <= 3 * 8 * float(np.finfo(dtype).eps) * terms
    right = 3 * np.linalg.norm(dB.astype(float) @ dA.astype(float))
    assert drift == pytest.approx(right, rel=100 * float(np.finfo(dtype).eps), abs=float(np.finfo(dtype).tiny))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("theta", "step"), [(1, 1e-3), (1e-12, 1e-14), (1e12, 1e15), (1, 1e-25), (0, 1e-16)])
def test_norms_are_those_of_the_products(dtype, theta, step):
    """In float64 by NumPy, from the same factors; squares of 1e-25 and of 1e15·1e12 leave the range of float32."""
    rng = np.random.default_rng(1)
    A, B, dA, dB = (
        (scale * rng.standard_normal(shape)).astype(dtype)
        for scale, shape in zip((1, theta, step, step), ((4, 30), (20, 4)) * 2, strict=True)
    )
    signal, drift = norms(A, B, dA, dB)
    A, B, dA, dB = (x.astype(float) for x in (A, B, dA, dB))
    limits = np.finfo(dtype)
    assert signal == pytest.approx(np.linalg.norm(B @ dA + dB @ A), rel=100 * float(limits.eps))
    expected = np.linalg.norm(dB @ dA)
    assert drift == pytest.approx(expected, rel=100 * float(limits.eps), abs=float(limits.tiny))


def test_float32_drift_whose_square_underflows_is_seen():
    rows = np.full((4, 2), 1e-20, np.float32), np.full((2, 4), 1e-14, np.float32)
    ones = np.ones((2, 4), np.float32), np.ones((4, 2), np.float32)
    assert norms(*ones, rows[1], rows[0])[1] == pytest.approx(8e-34, rel=1e-5)


@pytest.mark.parametrize("size", [1e-300, 1e-160, 1.0, 1e154, 1e300])
def test_frobenius_is_that_of_the_numbers_near_one(size):
    """Also beside arrays that are zero."""
    x = np.random.default_rng(0).standard_normal((5, 6))
    assert float(frobenius(jnp.asarray(x * size), jnp.zeros(3))) / size == pytest.approx(np.linalg.norm(x), rel=1e-14)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_stays_so(bad):
    assert not np.isfinite(float(frobenius(jnp.array([1.0, bad]))))
    ones = np.ones((2, 4)), np.ones((4, 2))
    assert not any(map(np.isfinite, norms(*ones, np.full((2, 4), bad), ones[1])))


@pytest.mark.parametrize("c", [1e-200, 1e200])
def test_run_records_its_norms_in_any_unit_of_the_loss(c):
    """The slope is in proportion to c and the step of sign descent does not depend on it."""
    base = {"W": jnp.eye(3), "V": 2 * jnp.eye(3)}
    start = sd.init_adapters(jax.random.key(0), base, 1)
    optimizer = optax.sign_sgd(0.01)
    one, other = (
        sd.train(lambda w, x=x: x * sum(jnp.sum(W**2) for W in w.values()), base, start, 1.0, optimizer, 3)
        for x in (1.0, c)
    )
    assert np.allclose(np.asarray(other.gradient_norm) / c, one.gradient_norm, rtol=1e-13)
    assert np.allclose(other.signal_norm, one.signal_norm, rtol=1e-13)
    full = sd.train(lambda w: c * sum(jnp.sum(W) for W in w.values()), base, None, 1.0, optax.sgd(1.0), 2)
    assert np.allclose(np.asarray(full.signal_norm) / c, 18**0.5, rtol=1e-13)
