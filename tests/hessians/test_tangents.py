"""Losses with a reverse rule only, against matrices written out, and those whose rule has no derivative itself."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import EPS, rejects

import signal_drift as sd


@jax.custom_vjp
def own_exp(z: jax.Array) -> jax.Array:
    return jnp.exp(z)


own_exp.defvjp(lambda z: (own_exp(z), own_exp(z)), lambda saved, g: (g * saved,))


@jax.custom_vjp
def own_square(z: jax.Array) -> jax.Array:
    return z**2


own_square.defvjp(lambda z: (own_square(z), z), lambda z, g: (2 * g * z,))


@jax.custom_vjp
def by_numpy(z: jax.Array) -> jax.Array:
    return jnp.exp(z)


def on_the_host(z: jax.Array, g: jax.Array) -> tuple[jax.Array]:
    return (jax.pure_callback(lambda z, g: np.exp(z) * g, z, z, g, vmap_method="sequential"),)


by_numpy.defvjp(lambda z: (by_numpy(z), z), on_the_host)

X = jnp.array([[1.0, 0.5], [-0.5, 2.0], [0.25, 1.0]])
BASE = {"w": jnp.array([[0.5, -0.25], [0.125, 0.75]])}
THETA = {"w": sd.Adapter(jnp.array([[0.5, 1.0]]), jnp.array([[1.0], [-0.5]]))}
S = 0.5


def through(own: Any) -> Any:
    return lambda w: jnp.sum(own(X @ w["w"].T))


WAYS = {  # the loss, and φ''
    "exp": (through(own_exp), np.exp),
    "exp within jit": (jax.jit(through(own_exp)), np.exp),
    "exp in checkpoint": (through(jax.checkpoint(own_exp)), np.exp),
    "square": (through(own_square), lambda z: 2 * np.ones_like(z)),
    "square in a scan": (
        lambda w: jax.lax.scan(lambda total, x: (total + jnp.sum(own_square(w["w"] @ x)), None), 0.0, X)[0],
        lambda z: 2 * np.ones_like(z),
    ),
}


@cache
def written_out(curve: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(H_ℓ, J, G) of Σ φ(XWᵀ): H_ℓ = Σ_i φ''(z_io) x_i x_iᵀ in the block of output o."""
    A, B = (np.asarray(x) for x in THETA["w"])
    W, x = np.asarray(BASE["w"]) + S * B @ A, np.asarray(X)
    z = x @ W.T
    H = np.zeros((4, 4))
    for o in range(2):
        H[2 * o : 2 * o + 2, 2 * o : 2 * o + 2] = x.T @ np.diag(curve(z)[:, o]) @ x
    J = S * np.hstack([np.kron(B, np.eye(2)), np.kron(np.eye(2), A.T)])
    slope = np.exp(z) if curve is np.exp else 2 * z
    return H, J, slope.T @ x


@pytest.mark.parametrize(("loss", "curve"), WAYS.values(), ids=WAYS)
def test_a_reverse_rule_is_enough(loss, curve):
    """Products, the matrix and the ends of the spectrum, to 100 roundings of sums of at most 4 terms."""
    H, J, G = written_out(curve)
    s_G = S * G
    drift = np.block([[np.zeros((2, 2)), s_G.T], [s_G, np.zeros((2, 2))]])
    lora = J.T @ H @ J + drift
    parts = sd.decompose(loss, BASE, THETA, S)
    for name, matrix in {"task": H, "signal": J.T @ H @ J, "lora": lora}.items():
        op, bound = getattr(parts, name), 100 * 4 * EPS * np.linalg.norm(matrix)
        assert np.max(np.abs(op @ jnp.eye(4) - matrix)) <= bound
        assert np.max(np.abs(op @ jnp.ones(4) - matrix @ np.ones(4))) <= 2 * bound
        assert np.max(np.abs(op.dense() - matrix)) <= bound
    ends, bound = sd.extreme_eigenvalues(parts.lora, 1, "both"), 100 * 4 * EPS * np.linalg.norm(lora)
    assert np.max(np.abs(ends.values - np.linalg.eigvalsh(lora)[[0, -1]])) <= np.max(ends.residuals) + bound


def test_gauss_newton_of_a_reverse_rule():
    """Σ (e^z)²/2: G = Σ_i e^{2z_io} x_i x_iᵀ and H_ℓ has twice that, so R = G."""
    G = written_out(lambda z: np.exp(2 * z))[0]
    loss = sd.composite(lambda w: own_exp(X @ w["w"].T), lambda y: jnp.sum(own_square(y)) / 2)
    parts = sd.gauss_newton(loss, BASE, THETA, S)
    for op in (parts.task, parts.residual):
        np.testing.assert_allclose(op.dense(), G, rtol=0, atol=100 * 4 * EPS * float(np.linalg.norm(G)))


def test_a_rule_without_a_derivative_is_named():
    parts = sd.decompose(through(by_numpy), BASE, THETA, S)
    for call in (lambda: parts.lora @ jnp.ones(4), parts.task.dense, lambda: sd.extreme_eigenvalues(parts.signal)):
        with rejects("loss: has no second derivative", "by_numpy", "test_tangents.py", "jax.custom_jvp"):
            call()


def test_what_has_no_derivative_at_all_is_told_by_jax():
    def host(w):
        return jnp.sum(jax.pure_callback(np.sin, w["w"], w["w"]))

    with pytest.raises(ValueError, match="Pure callbacks do not support JVP"):
        _ = sd.decompose(host, BASE, THETA, S).task @ jnp.ones(4)
