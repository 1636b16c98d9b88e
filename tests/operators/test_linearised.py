"""The linear map that an operator keeps: the numbers of a fresh one, never a tracer, never that of another point."""

import copy
from dataclasses import fields, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.core import Tracer
from jax.flatten_util import ravel_pytree
from problems import EPS, PARTS, decomposition, dense, problem, rejects, rounding

import signal_drift as sd
from signal_drift.operators import linearised as linear


def kept(op):
    return vars(op).get("_linear")


def fresh(name, part="lora"):
    return replace(getattr(decomposition(name), part))


def vector(n, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(n))


def error_of(name, part, v):
    """Bound a product: the chain J, H_ℓ, J of inner length at most D."""
    J, H = dense(name, "jacobian"), dense(name, "task")
    return rounding(max(dense(name, part).shape), J, H, J, v) + rounding(problem(name).D, dense(name, part), v)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", ["indefinite", "mlp", "cross-entropy"])
def test_kept_map_gives_the_numbers_of_a_fresh_one(name, part):
    """Bit for bit, for one vector after another; and those of the matrix to rounding."""
    op = fresh(name, part)
    for seed in range(3):
        v = vector(op.shape[1], seed)
        image = op @ v
        assert np.array_equal(image, fresh(name, part) @ v)
        assert np.allclose(image, dense(name, part) @ np.asarray(v), rtol=0, atol=error_of(name, part, v))


def test_map_is_linearised_once(monkeypatch):
    """Products with an operator, its extremes and its density use one and the same map."""
    op, count = fresh("mlp"), []
    original = linear._linearised
    monkeypatch.setattr(
        "signal_drift.operators.linearised._linearised", lambda *args: count.append(1) or original(*args)
    )
    v = vector(op.shape[1])
    _ = op @ v, op @ v
    sd.extreme_eigenvalues(op)
    sd.spectral_density(op)
    assert len(count) == 1
    _ = fresh("mlp") @ v
    assert len(count) == 2


@pytest.mark.parametrize("way", ["closed over", "argument", "vmap", "grad"])
def test_no_tracer_is_kept(way):
    """An operator used within a trace and then outside of it, in which JAX looks for leaks."""
    op, H = fresh("mlp"), dense("mlp", "lora")
    v = vector(len(H))
    within = {
        "closed over": lambda: jax.jit(lambda v: op @ v)(v),
        "argument": lambda: jax.jit(lambda op, v: op @ v)(op, v),
        "vmap": lambda: jax.vmap(lambda v: op @ v)(v[None])[0],
        "grad": lambda: jax.grad(lambda v: 0.5 * v @ (op @ v))(v),
    }
    with jax.checking_leaks():
        image = within[way]()
    assert not any(isinstance(x, Tracer) for x in jax.tree.leaves(kept(op)))
    for product in (image, op @ v, within[way]()):
        assert np.allclose(product, H @ np.asarray(v), rtol=0, atol=error_of("mlp", "lora", v))


def test_only_the_operator_itself_has_its_map():
    op = fresh("mlp")
    v = vector(op.shape[1])
    _ = op @ v
    leaves, structure = jax.tree.flatten(op)
    assert (len(leaves), structure) == (len(jax.tree.leaves(fresh("mlp"))), jax.tree.structure(fresh("mlp")))
    for other in (copy.copy(op), copy.deepcopy(op), jax.tree.map(jnp.asarray, op), replace(op, place=None)):
        assert kept(op) is not None
        assert kept(other) is None
        assert set(vars(other)) == {x.name for x in fields(op)}
        assert np.array_equal(other @ v, op @ v)


def test_another_point_has_another_map():
    op = fresh("mlp")
    v = vector(op.shape[1])
    before = op @ v
    scaled = replace(op, point=replace(op.point, scaling={k: 2 * s for k, s in op.point.scaling.items()}))
    assert np.linalg.norm(scaled @ v - before) > 0.1 * np.linalg.norm(before)
    assert np.array_equal(op @ v, before)


def test_product_can_be_mapped_over_points():
    P, v = problem("psd"), vector(dense("psd", "lora").shape[1])
    images = jax.vmap(lambda s: sd.decompose(P.loss, P.base, P.adapters, s).lora @ v)(jnp.array([0.1, P.scaling]))
    assert np.allclose(images[1], dense("psd", "lora") @ np.asarray(v), rtol=0, atol=error_of("psd", "lora", v))


def test_vector_of_lower_precision_is_promoted():
    op = fresh("mlp")
    v = vector(op.shape[1]).astype(jnp.float32)
    assert np.array_equal(op @ v, op @ v.astype(jnp.float64))


@pytest.mark.parametrize("part", ["task", "lora"])
def test_product_equals_that_through_merged_weights(part):
    """H v as the derivative of the gradient of ℓ(W₀ + s·BA), for factors narrow enough to be kept apart."""
    rng = np.random.default_rng(0)
    base = {k: jnp.asarray(rng.standard_normal((24, 24)) / 24**0.5) for k in ("a", "b", "c")}
    adapters = {k: sd.Adapter(vector((2, 24), i), vector((24, 2), 9 + i)) for i, k in enumerate(base)}
    X, s = jnp.asarray(rng.standard_normal((7, 24))), dict.fromkeys(base, 0.1)

    def loss(w):
        return jnp.mean((jax.nn.silu(jax.nn.gelu(X @ w["a"].T) @ w["b"].T / 3.0 - 1.0) @ w["c"].T) ** 2)

    at = adapters if part == "lora" else sd.effective_weights(base, adapters, s)
    weights = (lambda x: sd.effective_weights(base, x, s)) if part == "lora" else (lambda x: x)
    x, unravel = ravel_pytree(at)
    gradient = jax.grad(lambda x: loss(weights(unravel(x))))
    v = vector(len(x), 1)
    merged = jax.jvp(gradient, (x,), (v,))[1]
    product = getattr(sd.decompose(loss, base, adapters, s), part) @ v
    largest = float(jnp.max(jnp.abs(merged)))
    assert largest > 1e-3
    assert np.allclose(product, merged, rtol=0, atol=100 * len(x) ** 0.5 * EPS * max(1.0, largest))


def test_kept_map_is_no_larger_than_through_merged_weights():
    """Count what JAX itself keeps of the linearised gradient of ℓ(W₀ + s·BA), W and its derivatives among it."""
    d, n, r, layers = 64, 40, 4, 3
    rng = np.random.default_rng(0)
    base = {str(i): jnp.asarray(rng.standard_normal((d, d)) / 8) for i in range(layers)}
    adapters = sd.init_adapters(jax.random.key(0), base, r)
    X = jnp.asarray(rng.standard_normal((n, d)))

    def loss(w):
        y = X
        for k in sorted(w):
            y = jax.nn.silu(y @ w[k].T)
        return jnp.mean(y**2)

    op = sd.decompose(loss, base, adapters, 1.0).lora
    _ = op @ vector(op.shape[1])
    theta, unravel = ravel_pytree(adapters)
    merged = jax.jit(
        lambda x: jax.linearize(jax.grad(lambda x: loss(sd.effective_weights(base, unravel(x), 1.0))), x)[1]
    )(theta)
    sizes = [sum(x.size for x in jax.tree.leaves(linear)) for linear in (kept(op), merged)]
    assert 0 < sizes[0] <= sizes[1]


def test_a_vector_of_higher_precision_is_named():
    P = problem("mlp")
    op = sd.decompose(
        P.loss,
        jax.tree.map(lambda x: x.astype(jnp.float32), P.base),
        jax.tree.map(lambda x: x.astype(jnp.float32), P.adapters),
        P.scaling,
    )
    for v in (jnp.ones(P.p), jnp.ones((P.p, 2))):
        with rejects("v", "float64", "float32"):
            _ = op.lora @ v
