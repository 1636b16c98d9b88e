"""One finite update: what it does to the weights, and which part of it descends."""

from fractions import Fraction

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import (
    AWAY_FROM_INIT,
    dense,
    explicit_drift,
    flat,
    gradient_matrices,
    kronecker_jacobian,
    problem,
    rejects,
    rounding,
    unflat,
    weight_gradient,
)

import signal_drift as sd

RATIONAL = np.vectorize(lambda x: Fraction(float(x)), otypes=[object])
LAYERS = (
    {"only": (1, 1, 1)},
    {"tall": (5, 1, 2), "square": (3, 3, 2)},
    {"z": (2, 4, 7), "m": (3, 2, 1), "a": (1, 3, 2)},  # r larger than the layer; inserted out of order
)  # d_out, d_in, r


@settings(deadline=None, max_examples=30, derandomize=True)
@given(st.sampled_from(LAYERS), st.integers(0, 2**32 - 1), st.booleans(), st.booleans())
def test_update_is_signal_plus_drift_in_rationals(layers, seed, B_zero, shared_scaling):
    """P1-update, with no remainder and no tolerance: Δw = JΔθ + ½∇²w[Δθ, Δθ], and each part by its own formula.

    Entries are integers below 2⁶ over 8, scalings integers over 4: a sum of at most 7 products of three of them fits
    in 53 bits, so float64 computes it exactly in any order and equality with `Fraction` is bit for bit.
    """
    rng = np.random.default_rng(seed)
    eighths = lambda *shape: jnp.asarray(rng.integers(-63, 64, shape) / 8)  # noqa: E731
    base = {k: eighths(d_out, d_in) for k, (d_out, d_in, _) in layers.items()}
    theta, delta = (
        {k: sd.Adapter(eighths(r, d_in), (1 - zero) * eighths(d_out, r)) for k, (d_out, d_in, r) in layers.items()}
        for zero in (B_zero, False)
    )
    scaling = 0.75 if shared_scaling else {k: float(rng.integers(1, 9)) / 4 for k in layers}
    moved = {k: sd.Adapter(theta[k].A + delta[k].A, theta[k].B + delta[k].B) for k in layers}

    parts = sd.decompose_update(theta, delta, scaling)
    before, after = (sd.effective_weights(base, x, scaling) for x in (theta, moved))

    for k in layers:
        s = Fraction(scaling[k] if isinstance(scaling, dict) else scaling)
        A, B, dA, dB = (RATIONAL(x) for x in (*theta[k], *delta[k]))
        assert np.array_equal(RATIONAL(parts.signal[k]), s * (B @ dA + dB @ A))
        assert np.array_equal(RATIONAL(parts.drift[k]), s * (dB @ dA))
        change = s * ((B + dB) @ (A + dA) - B @ A)
        assert np.array_equal(RATIONAL(after[k]) - RATIONAL(before[k]), change)
        assert np.array_equal(RATIONAL(parts.signal[k]) + RATIONAL(parts.drift[k]), change)


def gradient_step(gradients, eta):
    return [-eta * x for x in gradients], eta * sum(np.sum(x**2) for x in gradients)


def sign_step(gradients, eta):
    return [-eta * np.sign(x) for x in gradients], eta * sum(np.sum(abs(x)) for x in gradients)


def muon_step(gradients, eta):
    """−η·UVᵀ from the compact SVD, whose descent is η times the nuclear norm."""
    steps, nuclear = [], 0.0
    for x in gradients:
        U, sigma, Vt = np.linalg.svd(x, full_matrices=False)
        kept = sigma > 1e-12 * sigma[0]
        steps.append(-eta * U[:, kept] @ Vt[kept])
        nuclear += np.sum(sigma)
    return steps, eta * nuclear


@pytest.mark.parametrize("rule", [gradient_step, sign_step, muon_step])
@pytest.mark.parametrize("name", AWAY_FROM_INIT)
def test_signal_descends_by_the_norm_of_the_gradient(name, rule):
    """P2-descent: ⟨Δw_Signal, −g⟩ = ⟨Δθ, −∇_θℓ⟩: η‖∇‖₂² for GD, η‖∇‖₁ for signs, η(‖G_A‖_* + ‖G_B‖_*) for Muon.

    ∇_θ ℓ = (s·BᵀG, s·GAᵀ) is formed here in NumPy; tolerance from D + p products of the factors' norms.
    """
    P, G = problem(name), gradient_matrices(problem(name))
    gradients = []
    for layer in sorted(G):
        A, B = (np.asarray(factor) for factor in P.adapters[layer])
        gradients += [P.s[layer] * B.T @ G[layer], P.s[layer] * G[layer] @ A.T]
    steps, descent = rule(gradients, 0.3)
    delta = unflat(jnp.asarray(np.concatenate([x.ravel() for x in steps])), P.adapters)

    signal = sd.decompose_update(P.adapters, delta, P.scaling).signal
    measured = float(sd.alignment(signal, as_arrays(G)))

    error = rounding(P.D + P.p, kronecker_jacobian(P.adapters, P.s), flat(delta), weight_gradient(P))
    assert abs(measured - descent) <= error
    assert descent > 100 * error
    by_theta = -flat(delta) @ np.concatenate([x.ravel() for x in gradients])
    assert abs(measured - by_theta) <= error


@pytest.mark.parametrize("name", AWAY_FROM_INIT)
def test_drift_aligns_by_the_curvature_of_the_map(name):
    """P2-drift-alignment: ⟨Δw_Drift, −g⟩ = −½ΔθᵀH_DriftΔθ, by the operator and by the matrix written out by hand."""
    P = problem(name)
    v = np.random.default_rng(0).standard_normal(P.p)
    drift = sd.decompose_update(P.adapters, unflat(jnp.asarray(v), P.adapters), P.scaling).drift
    measured = float(sd.alignment(drift, as_arrays(gradient_matrices(P))))
    H = explicit_drift(P)
    assert abs(measured + v @ H @ v / 2) <= rounding(P.p, v, H, v)
    assert abs(measured + v @ dense(name, "drift") @ v / 2) <= rounding(P.p, v, H, v)


@pytest.mark.parametrize("name", AWAY_FROM_INIT)
def test_drift_alignment_has_both_signs(name):
    """P2-drift-alignment: ΔB ↦ −ΔB turns ascent into descent, exactly (a change of sign does not round)."""
    P = problem(name)
    delta = unflat(jnp.asarray(np.random.default_rng(1).standard_normal(P.p)), P.adapters)
    mirrored = {layer: change._replace(B=-change.B) for layer, change in delta.items()}
    G = as_arrays(gradient_matrices(P))
    here, there = (sd.alignment(sd.decompose_update(P.adapters, x, P.scaling).drift, G) for x in (delta, mirrored))
    assert here == -there != 0


@pytest.mark.parametrize("eta", [0.5, 2.0**-10])
def test_scalar_drift_ascends_by_eta_squared(eta):
    """P2-drift-alignment's counterexample a = b = g = α = 1 under gradient descent: −η², exact for dyadic η."""
    one = jnp.ones((1, 1))
    adapters, delta = {"W": sd.Adapter(one, one)}, {"W": sd.Adapter(-eta * one, -eta * one)}
    step = sd.decompose_update(adapters, delta, 1.0)
    assert sd.alignment(step.drift, {"W": one}) == -(eta**2)
    assert sd.alignment(step.signal, {"W": one}) == 2 * eta


def test_update_that_does_not_fit_is_named():
    P = problem("psd")
    short = {"first": P.adapters["first"]}
    with rejects("delta", "'second'"):
        sd.decompose_update(P.adapters, short, 1.0)
    with rejects("delta['first']", "(2, 3)"):
        sd.decompose_update(P.adapters, {**short, "second": P.adapters["second"], "first": P.adapters["second"]}, 1.0)
    with rejects("scaling", "'typo'"):
        sd.decompose_update(P.adapters, P.adapters, {"first": 1.0, "second": 1.0, "typo": 1.0})


def as_arrays(matrices):
    return {layer: jnp.asarray(matrix) for layer, matrix in matrices.items()}
