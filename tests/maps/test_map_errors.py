"""What is wrong with a map or its θ is said in one line that names the layer."""

from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from problems import rejects

import signal_drift as sd
from signal_drift import maps

WORD, NOTHING, ONE = cast(Any, ("x", None, 1))
BASE = {"a": jnp.eye(2, 3), "b": jnp.ones((2, 2))}
THETA = {"a": jnp.ones(2), "b": jnp.ones(2)}


def loss(weights):
    return jnp.sum(weights["a"] ** 2) + jnp.sum(weights["b"] ** 2)


def decompose(adapter_map=maps.ia3, theta=THETA, base=BASE):
    return sd.decompose_map(loss, base, theta, adapter_map)


def on_the_host(W0, theta):
    return jax.pure_callback(lambda W0, theta: np.asarray(W0) * np.asarray(theta)[:, None], W0, W0, theta)


def looped(W0, theta):
    return jax.lax.while_loop(lambda W: jnp.sum(W) < 10, lambda W: W + theta[:, None] ** 2, W0)


@jax.custom_vjp
def once(x):
    return x**2


once.defvjp(lambda x: (once(x), x), lambda x, g: (jax.pure_callback(lambda x, g: 2 * x * g, x, x, g),))


@pytest.mark.parametrize("wrong", [on_the_host, looped, lambda W0, theta: W0 * once(theta)[:, None]])
def test_a_map_without_two_derivatives(wrong):
    with rejects("adapter_map['b']", "derivative" if "lambda" in wrong.__name__ else "cannot be differentiated twice"):
        decompose({"a": maps.ia3, "b": wrong})


def test_a_map_with_a_reverse_rule_of_its_own_is_no_mistake():
    """The near control: `jax.custom_vjp` alone has a second derivative, through its transpose."""

    @jax.custom_vjp
    def square(x):
        return x**2

    square.defvjp(lambda x: (x**2, x), lambda x, g: (2 * x * g,))
    own, plain = (decompose(lambda W0, theta, f=f: W0 * f(theta)[:, None]) for f in (square, jnp.square))
    for part, op in own._asdict().items():
        assert np.allclose(op.dense(), getattr(plain, part).dense(), rtol=0, atol=1e-13), part


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda W0, theta: (theta[:, None] * W0).T, "shape (3, 2)"),
        (lambda W0, theta: (theta[:, None] * W0).astype(jnp.float32), "float32"),
        (lambda W0, theta: [W0], "a list"),
        (lambda W0, theta: None, "a NoneType"),
        (lambda W0: W0, "TypeError"),
        (lambda W0, theta: W0 + theta["x"], "cannot take W0 (2, 3) and theta['a']"),
        (lambda W0, theta: W0 + np.asarray(theta)[:, None], "TracerArrayConversionError"),
        (lambda W0, theta: theta[:, None] * W0 / 0, "finite"),
    ],
)
def test_what_no_map_does(wrong, says):
    with rejects("adapter_map['a']", says):
        decompose(wrong)


@pytest.mark.parametrize("hidden", [lambda x: 0 * jnp.floor(x), jax.lax.stop_gradient, lambda x: jnp.ones(2)])
def test_a_leaf_that_no_derivative_goes_through(hidden):
    theta = {k: {"l": x, "idle": x} for k, x in THETA.items()}
    with rejects("theta['a']['idle']", "no derivative"):
        decompose(lambda W0, theta: theta["l"][:, None] * W0 + hidden(theta["idle"])[:, None], theta)


def test_a_leaf_that_has_no_first_derivative_here_is_used():
    """The near control: at B = 0 nothing of J goes through A, but H_Drift does."""
    theta = {k: sd.Adapter(jnp.ones((1, W.shape[1])), jnp.zeros((2, 1))) for k, W in BASE.items()}
    parts = decompose(maps.lora(1.0), theta)
    assert not np.any(parts.jacobian.dense()[:6, :3])
    assert np.any(parts.drift.dense()[:3])


@pytest.mark.parametrize(
    ("arguments", "begins", "says"),
    [
        ({"theta": {"a": THETA["a"]}}, "theta: ", "missing layer 'b'"),
        ({"theta": {**THETA, "c": THETA["a"]}}, "theta: ", "unknown layer 'c'"),
        ({"theta": {**THETA, "b": {}}}, "theta['b']: ", "no arrays"),
        ({"theta": {**THETA, "b": {"x": 2}}}, "theta['b']['x']: ", "must be an array"),
        ({"theta": {**THETA, "b": jnp.arange(2)}}, "theta['b']: ", "floating dtype"),
        ({"theta": [1]}, "theta: ", "must be a dict"),
        ({"adapter_map": {"a": maps.ia3}}, "adapter_map: ", "missing layer 'b'"),
        ({"adapter_map": {"a": maps.ia3, "b": 1}}, "adapter_map['b']: ", "must be a function"),
        ({"adapter_map": 1}, "adapter_map: ", "must be a function"),
        ({"base": {"a": jnp.ones(2), "b": jnp.ones((2, 2))}}, "base['a']: ", "must be a matrix"),
    ],
)
def test_other_arguments(arguments, begins, says):
    with rejects(begins, says):
        decompose(**arguments)


def test_provided_maps_name_their_arguments():
    for make in (maps.lora, maps.dora, maps.loha, maps.lokr):
        with rejects("scaling: ", "'x'"):
            make(WORD)
    with rejects("alpha: ", "None"):
        maps.rslora(NOTHING)
    with rejects("A: ", "(2,)"):
        maps.lora_fa(jnp.ones(2), 1.0)
    with rejects("B: ", "must be an array"):
        maps.vera(jnp.ones((1, 2)), ONE)


def test_a_dense_matrix_of_a_map_that_rounds_is_refused():
    """Products have fewer digits than the weights: the map is said to be at fault as well as the loss."""

    def rounds(W0, theta):
        return theta.astype(jnp.float32).astype(jnp.float64)[:, None] * W0

    with rejects("loss or adapter_map: rounds to float32", "test_map_errors.py", "base and theta", error=TypeError):
        decompose(rounds).lora.dense()
    with rejects("theta['b']: dtype is float32", error=TypeError):
        decompose(theta={**THETA, "b": jnp.ones(2, jnp.float32)}).drift.dense()


def test_maps_of_equal_shapes_share_what_is_compiled():
    """The numbers of a provided map are its data: another scaling is no new function."""
    theta = {k: sd.Adapter(jnp.ones((1, W.shape[1])), jnp.ones((2, 1))) for k, W in BASE.items()}
    one, two = (decompose(maps.lora(s), theta) for s in (1.0, 2.0))
    assert isinstance(maps.lora(1.0), Partial)
    assert jax.tree.structure(one.lora) == jax.tree.structure(two.lora)
    assert jax.tree.structure(one.lora) != jax.tree.structure(decompose(maps.rslora(1.0), theta).lora)
