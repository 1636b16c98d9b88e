"""A loss that rounds to fewer digits than its weights have: every solver refuses it with the place, or none does.

The control of each cast that must be named is one beside it that no derivative goes through.
"""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import EPS, rejects

import signal_drift as sd

X = np.linspace(-1.0, 1.0, 6).reshape(3, 2)
BASE = {"w": jnp.array([[0.5, -0.25], [0.125, 0.75]])}
THETA = {"w": sd.Adapter(jnp.array([[0.5, 1.0]]), jnp.array([[1.0], [-0.5]]))}


def single(z: Any) -> jax.Array:
    return jnp.asarray(z, jnp.float32)


def outputs(w: Any) -> jax.Array:
    return jnp.tanh(X @ w["w"].T)


@jax.custom_jvp
def own(z: jax.Array) -> jax.Array:
    return z**3


own.defjvp(lambda z, dz: (z[0] ** 3, 3 * single(z[0]) ** 2 * dz[0]))


def layer(h: jax.Array, W: jax.Array) -> tuple[jax.Array, None]:
    return jnp.tanh(single(h) @ W.T), None


ROUND: dict[str, Any] = {
    "softmax": lambda w: jnp.mean(jax.nn.log_softmax(single(outputs(w)))[:, 0]),
    "entry by entry": lambda w: jnp.sum(single(w["w"]) ** 3),  # its Hessian is diagonal, and symmetric to the bit
    "within jit": lambda w: jnp.sum(jax.jit(lambda z: single(z) ** 3)(outputs(w))),
    "within a scan": lambda w: jnp.sum(jax.lax.scan(layer, jnp.asarray(X), jnp.stack([w["w"]] * 2))[0] ** 2),
    "within a branch": lambda w: jnp.sum(jax.lax.cond(True, lambda z: single(z) ** 2, single, outputs(w))),
    "within checkpoint": lambda w: jnp.sum(jax.checkpoint(lambda z: single(z) ** 3)(outputs(w))),
    "a product": lambda w: jnp.sum(jnp.matmul(X, w["w"].T, preferred_element_type=jnp.float32) ** 2),
    "a rule of its own": lambda w: jnp.sum(own(outputs(w))),
}
PASS: dict[str, Any] = {
    "data": lambda w: jnp.sum((single(X) @ w["w"].T) ** 2),
    "data in a scan": lambda w: jax.lax.scan(lambda c, x: (c + jnp.sum(single(x) @ w["w"].T) ** 2, None), 0.0, X)[0],
    "a mask": lambda w: jnp.sum(jnp.where(single(outputs(w)) > 0, outputs(w), 0.0) ** 2),
    "stop_gradient": lambda w: jnp.sum(outputs(w) ** 2 * single(jax.lax.stop_gradient(outputs(w)))),
    "the value alone": lambda w: single(jnp.sum(outputs(w) ** 2)),
    "not returned": lambda w: (single(outputs(w)), jnp.sum(outputs(w) ** 2))[1],
}
SOLVERS = (
    sd.eigenvalues,
    sd.trace,
    lambda op: op.dense(),
    sd.extreme_eigenvalues,
    sd.estimate_trace,
    sd.spectral_density,
)


@pytest.mark.parametrize("loss", ROUND.values(), ids=ROUND)
def test_every_solver_names_the_step_and_its_place(loss):
    parts = sd.decompose(loss, BASE, THETA, 1.0)
    line = inspect.getsourcelines(single)[1] + 1
    cast = () if loss is ROUND["a product"] else (f"test_precision.py:{line}:", "convert_element_type")
    for solver in SOLVERS:
        with rejects("loss: rounds to float32 at ", "test_precision.py", "float64 → float32", *cast, error=TypeError):
            solver(parts.lora)
    assert parts.jacobian.dense().shape == (4, 4), "which does not come from the loss"


@pytest.mark.parametrize("loss", PASS.values(), ids=PASS)
def test_what_no_derivative_goes_through_may_be_coarser(loss):
    sd.decompose(loss, BASE, THETA, 1.0).lora.check_digits()


def test_a_coarser_value_leaves_the_derivatives_exact():
    """The loss alone is rounded: H_ℓ is that of the loss in float64, by `jax.hessian`, to rounding."""
    w = sd.effective_weights(BASE, THETA, 1.0)["w"]
    H = jax.hessian(lambda w: jnp.sum(outputs({"w": w}) ** 2))(w).reshape(4, 4)
    found = sd.decompose(PASS["the value alone"], BASE, THETA, 1.0).task.dense()
    np.testing.assert_allclose(found, H, rtol=0, atol=100 * 4 * EPS * float(jnp.linalg.norm(H)))


def test_digits_below_those_of_float32_weights_are_named_too():
    base, theta = jax.tree.map(single, (BASE, THETA))
    parts = sd.decompose(lambda w: jnp.sum(w["w"].astype(jnp.bfloat16) ** 2).astype(jnp.float32), base, theta, 1.0)
    with rejects("loss: rounds to bfloat16 at ", "where the weights are float32", error=TypeError):
        sd.extreme_eigenvalues(parts.lora)
    sd.decompose(ROUND["softmax"], base, theta, 1.0).lora.check_digits()
