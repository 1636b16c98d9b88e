"""Hypothesis strategies over losses, shapes, ranks, scalings and initialisations, for property tests of statements.

    @given(problems())
    def test_hessian_splits(x):
        assert hessian_splits(x).holds

Shapes come from a short list, so that compiled code is shared; values come from a drawn seed. Needs `hypothesis`.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from hypothesis import strategies as st
from jax.tree_util import Partial
from jaxtyping import Array, Key

from signal_drift.instance import Instance
from signal_drift.lora import Adapter, Weights, init_adapters

SAMPLES = 5


def quadratic(key: Key[Array, ""], weights: Weights, definite: bool = True) -> Partial:
    """½wᵀQw + bᵀw with every pair of weights coupled, Q ⪰ 0 or indefinite."""
    D = sum(W.size for W in weights.values())
    L, b = jax.random.normal(key, (D, D)) / D**0.5, jax.random.normal(jax.random.fold_in(key, 1), (D,))
    return Partial(_quadratic, L @ L.T if definite else L + L.T, b)


def _quadratic(Q: Array, b: Array, weights: Weights) -> Array:
    w = jnp.concatenate([weights[k].ravel() for k in sorted(weights)])
    return w @ Q @ w / 2 + b @ w


def _forward(X: Array, weights: Weights) -> Array:
    """The SiLU MLP whose layers are the weights in sorted order."""
    *hidden, last = sorted(weights)
    for k in hidden:
        X = jax.nn.silu(X @ weights[k].T)
    return X @ weights[last].T


def _inputs(key: Key[Array, ""], weights: Weights) -> tuple[Array, Array]:
    """X fitting the first layer, and Y of the shape of the output."""
    X = jax.random.normal(key, (SAMPLES, weights[min(weights)].shape[1]))
    return X, jax.random.normal(jax.random.fold_in(key, 1), (SAMPLES, len(weights[max(weights)])))


def mean_square(key: Key[Array, ""], weights: Weights) -> Partial:
    """MSE of a SiLU MLP."""
    return Partial(_mean_square, *_inputs(key, weights))


def _mean_square(X: Array, Y: Array, weights: Weights) -> Array:
    return jnp.mean((_forward(X, weights) - Y) ** 2)


def softmax(key: Key[Array, ""], weights: Weights) -> Partial:
    """Softmax cross-entropy of a SiLU MLP."""
    X, Y = _inputs(key, weights)
    return Partial(_softmax, X, jnp.argmax(Y, axis=1))


def _softmax(X: Array, labels: Array, weights: Weights) -> Array:
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(_forward(X, weights)), labels[:, None], axis=1))


def logistic(key: Key[Array, ""], weights: Weights) -> Partial:
    """Logistic loss of every output of a linear model or an MLP."""
    X, Y = _inputs(key, weights)
    return Partial(_logistic, X, jnp.sign(Y))


def _logistic(X: Array, signs: Array, weights: Weights) -> Array:
    return jnp.mean(jax.nn.softplus(-signs * _forward(X, weights)))


def attention(key: Key[Array, ""], weights: Weights) -> Partial:
    """MSE of one attention head with adapted query, key, output and value projections."""
    X = jax.random.normal(key, (SAMPLES, weights["q"].shape[1]))
    return Partial(_attention, X, jax.random.normal(jax.random.fold_in(key, 1), (SAMPLES, len(weights["o"]))))


def _attention(X: Array, Y: Array, weights: Weights) -> Array:
    q, k, v = (X @ weights[name].T for name in ("q", "k", "v"))
    mixed = jax.nn.softmax(q @ k.T / q.shape[1] ** 0.5) @ v
    return jnp.mean((mixed @ weights["o"].T - Y) ** 2)


class Kind(NamedTuple):
    """A loss, and the shape (d_out, d_in) and rank of every layer."""

    loss: Callable[[Key[Array, ""], Weights], Partial]
    shapes: dict[str, tuple[int, int]]
    ranks: dict[str, int]


KINDS = {
    "quadratic": Kind(quadratic, {"a": (3, 4), "b": (2, 3)}, {"a": 2, "b": 1}),
    "indefinite quadratic, r > d": Kind(partial(quadratic, definite=False), {"only": (3, 3)}, {"only": 5}),
    "MSE of an MLP": Kind(mean_square, {"1": (4, 3), "2": (3, 4), "3": (2, 3)}, {"1": 2, "2": 1, "3": 3}),
    "softmax cross-entropy": Kind(softmax, {"1": (4, 3), "2": (3, 4)}, {"1": 2, "2": 2}),
    "logistic regression": Kind(logistic, {"only": (1, 5)}, {"only": 2}),
    "attention": Kind(
        attention, {"q": (2, 3), "k": (2, 3), "v": (3, 3), "o": (2, 3)}, {"q": 1, "k": 2, "v": 1, "o": 2}
    ),
}


def instance(kind: str, seed: int, alpha: float, begins: bool) -> Instance:
    """One problem: everything drawn from `seed`, s = α/r per layer, B = 0 if it `begins`."""
    loss, shapes, ranks = KINDS[kind]
    keys = jax.random.split(jax.random.key(seed), 5)
    base = {
        k: jax.random.normal(jax.random.fold_in(keys[0], i), shape) / shape[1] ** 0.5
        for i, (k, shape) in enumerate(shapes.items())
    }
    start = init_adapters(keys[1], base, ranks)
    scaling = {k: alpha / r for k, r in ranks.items()}
    if not begins:
        start = _shifted(start, scaling, keys[2])
    delta = _shifted(jax.tree.map(jnp.zeros_like, start), scaling, keys[4])
    return Instance(loss(keys[3], base), base, start, scaling, delta)


def _shifted(adapters: dict[str, Adapter], scaling: dict[str, float], key: Key[Array, ""]) -> dict[str, Adapter]:
    """Normal entries added, to B divided by 1 + s: s·BA stays of order one, as training keeps it, whatever α."""
    keys = jax.random.split(key, (len(adapters), 2))
    return {
        k: Adapter(
            A + jax.random.normal(for_A, A.shape, A.dtype),
            B + jax.random.normal(for_B, B.shape, B.dtype) / (1 + scaling[k]),
        )
        for (k, (A, B)), (for_A, for_B) in zip(sorted(adapters.items()), keys, strict=True)
    }


def problems(kinds: list[str] | None = None) -> st.SearchStrategy[Instance]:
    """Instances of the listed kinds (all by default), α from 1e-3 to 1e4, B = 0 or not."""
    return st.builds(
        instance,
        kind=st.sampled_from(kinds or list(KINDS)),
        seed=st.integers(0, 2**16),
        alpha=st.floats(-3, 4).map(lambda x: 10.0**x),
        begins=st.booleans(),
    )
