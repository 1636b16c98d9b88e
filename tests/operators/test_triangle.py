"""A matrix that is built from its lower part is the one of all columns, and is given no symmetry that it has not."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial
from problems import decomposition, oracle, problem, rejects, rounding

import signal_drift as sd
from signal_drift.hessians.second_derivative import SecondDerivative
from signal_drift.jaxpr import equations
from signal_drift.operators import operator, triangle
from signal_drift.operators.triangle import BLOCKS, SMALL, WIDTH, blocks, from_lower_columns


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every array is a block of its own, whatever its size."""
    monkeypatch.setattr(triangle, "WIDTH", 1)


@given(st.lists(st.integers(0, 3 * WIDTH), min_size=1, max_size=40))
def test_blocks_divide_the_arrays_and_none_is_narrow(sizes: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(triangle, "WIDTH", WIDTH)
        found = blocks(sizes)
    assert [i for first, last in found for i in range(first, last)] == list(range(len(sizes)))
    assert len(found) <= BLOCKS
    assert len(found) == 1 or sum(sizes) >= SMALL * WIDTH
    assert len(found) == 1 or min(sum(sizes[first:last]) for first, last in found) >= max(WIDTH, sum(sizes) / BLOCKS)


@pytest.mark.parametrize("size", [1, 5, 128])
@pytest.mark.parametrize("part", ["task", "lora"])
@pytest.mark.parametrize("name", ["psd", "indefinite", "mlp", "cross-entropy"])
def test_built_by_symmetry_it_equals_the_oracle(
    name: str, part: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compare with Kronecker products and finite differences, and with all columns; in chunks of any size."""
    monkeypatch.setattr(triangle, "chunk", lambda *_: size)
    op = getattr(decomposition(name), part)
    assert len(operator._blocks(op)) > 1
    H = np.asarray(from_lower_columns(op.linearise, op.point, op.dtype))
    expected, error = oracle(name, part)
    assert np.allclose(H, expected, rtol=0, atol=error)
    whole = np.asarray(operator._columns(op))
    assert np.linalg.norm(H - whole) <= rounding(problem(name).D, whole)
    monkeypatch.setattr(operator, "_columns", None)  # not called
    assert np.array_equal(op.dense(), operator._lower_columns(op))


def test_any_map_is_built_so() -> None:
    """Compare W = W₀·exp(S) with a diagonal S in two layers with `jax.hessian` of the flat θ."""
    base = {"first": jnp.array([[1.0, -2.0], [0.5, 1.0]]), "second": jnp.array([[1.0, 3.0]])}
    theta = {"first": jnp.array([0.3, -0.1]), "second": jnp.array([0.2, 0.4])}

    def loss(w: dict[str, jax.Array]) -> jax.Array:
        return jnp.sum(jnp.tanh(w["second"] @ jnp.tanh(w["first"])) ** 2)

    op = sd.decompose_map(loss, base, theta, lambda W0, S: W0 * jnp.exp(S)).lora
    assert len(operator._blocks(op)) == 2
    split = jax.hessian(lambda x: loss({k: base[k] * jnp.exp(y) for k, y in zip(base, (x[:2], x[2:]), strict=True)}))
    H = split(jnp.concatenate(list(theta.values())))
    assert np.linalg.norm(op.dense() - H) <= rounding(4, H)


def test_nothing_is_kept_with_the_operator() -> None:
    """Leave the operator as it was: what the check of its symmetry linearises takes as much as a gradient."""
    op = replace(decomposition("mlp").task)
    op.dense()
    assert "_linear" not in vars(op)


def test_columns_of_a_later_layer_take_fewer_products() -> None:
    """Layer i of L has one product with its tangent and one for its gradient, each later one four."""
    layers, width = 5, 3
    op = _mlp(layers, width).task

    def products(apply: Any, n: int) -> int:
        return str(jax.make_jaxpr(apply)(jnp.zeros(n))).count("dot_general")

    assert isinstance(op.linearise, SecondDerivative)
    counts = [products(op.linearise.lower(op.point, i, i + 1), width**2) for i in range(layers)]
    assert counts == [2 + 4 * (layers - i - 1) for i in range(layers)]
    assert products(op.linearise(op.point), op.shape[0]) > counts[0]
    linearise = op.linearise
    whole = jax.make_jaxpr(lambda: from_lower_columns(linearise, op.point, op.dtype))()
    assert sum(e.primitive.name in {"scan", "while"} for e in equations(whole)) == layers


def test_it_needs_no_second_copy_of_the_matrix() -> None:
    """Take no more beyond the result than a chunk of columns; another matrix would be all of it once more."""
    op = _mlp(5, 16).task
    leaves, structure = jax.tree.flatten(op)
    build = jax.jit(lambda *leaves: operator._lower_columns(jax.tree.unflatten(structure, leaves)))
    analysis = build.lower(*leaves).compile().memory_analysis()
    assert analysis is not None
    assert analysis.temp_size_in_bytes < 0.5 * analysis.output_size_in_bytes


@jax.custom_jvp
def slanted(x: jax.Array, y: jax.Array, by: float) -> jax.Array:
    """Return x·y, and as its derivative in x (1 + by)·y: no function has it, and its derivative is not symmetric."""
    return x * y


slanted.defjvp(lambda at, along: (at[0] * at[1], (1 + at[2]) * at[1] * along[0] + at[0] * along[1]))


@pytest.mark.parametrize("unit", [1e-250, 1.0, 1e250])
@pytest.mark.parametrize("by", [0.0, 1e-14, 1e-11, 1.0])
def test_what_has_no_symmetry_is_not_given_one(by: float, unit: float) -> None:
    """The matrix is then that of all columns, which every exact spectrum refuses; one part in 10¹¹ is enough.

    One in 10¹⁴ is rounding.
    """
    base = {"first": jnp.eye(2), "second": 2 * jnp.eye(2)}
    adapters = sd.init_adapters(jax.random.key(0), base, rank=1)
    loss = Partial(lambda w: unit * jnp.sum(slanted(w["first"], w["second"], by)))
    op = sd.decompose(loss, base, adapters, 1.0).task
    zero, one = np.zeros((4, 4)), np.eye(4)
    np.testing.assert_allclose(
        op.dense(), unit * np.block([[zero, one], [(1 + by) * one, zero]]), rtol=2e-14 if by < 1e-13 else 1e-15
    )
    if by > 1e-13:
        rejects("op: must be symmetric", lambda: sd.eigenvalues(op))
    else:
        np.testing.assert_allclose(sd.eigenvalues(op), [-unit] * 4 + [unit] * 4, rtol=1e-14)


def test_a_map_that_jax_cannot_take_in_blocks_is_taken_row_by_row() -> None:
    """`ragged_dot` has no rule for a block: ℓ = Σ(XWV)², against `jax.hessian` of the same with `@`."""
    base = {"v": jnp.array([[0.5, -1.0], [2.0, 1.0]]), "w": jnp.array([[1.0, 2.0], [3.0, 4.0]])}
    X = jnp.array([[1.0, 2.0], [0.5, -1.0]])

    def loss(w: dict[str, jax.Array], multiply: Any) -> jax.Array:
        return jnp.sum((multiply(X, w["w"]) @ w["v"]) ** 2)

    def experts(x: jax.Array, w: jax.Array) -> jax.Array:
        return jax.lax.ragged_dot(x, w[None], jnp.array([2], jnp.int32))

    op = sd.decompose(lambda w: loss(w, experts), base, sd.init_adapters(jax.random.key(0), base, rank=1), 1.0).task
    w, unravel = ravel_pytree(base)
    H = jax.hessian(lambda w: loss(unravel(w), jnp.matmul))(w)
    assert np.linalg.norm(op.dense() - H) <= rounding(8, H)


def test_within_a_trace_and_over_devices_all_columns_are_computed() -> None:
    """A trace has no values to check the symmetry by, and devices share the columns evenly."""
    op = decomposition("mlp").task
    traced = jax.jit(lambda point: replace(op, point=point).dense())(op.point)
    closed_over = jax.jit(lambda x: x * op.dense())(1.0)
    shared = sd.shard_columns(op, jax.make_mesh((1,), ("columns",)))
    assert operator._blocks(shared) == []
    for H in (traced, closed_over, shared.dense()):
        assert np.linalg.norm(H - op.dense()) <= rounding(len(H), H)


def _mlp(layers: int, width: int) -> sd.Decomposition:
    base, forward = sd.base_and_forward(sd.MLP([width] * (layers + 1), rngs=nnx.Rngs(0)))
    loss = Partial(_squared, forward, jnp.ones((4, width)))
    return sd.decompose(loss, base, sd.init_adapters(jax.random.key(0), base, rank=1), 1.0)


def _squared(forward: Any, x: jax.Array, weights: dict[str, jax.Array]) -> jax.Array:
    return jnp.mean(forward(weights, x) ** 2)
