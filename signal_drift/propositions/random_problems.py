"""Draws the problems on which statements are tried: losses, shapes, ranks, scalings and initialisations.

Every kind has its own shapes, a short list, so that compiled code is shared; values come from a seed. All losses are
composite: what the criterion judges is the flat weights for a quadratic, and the outputs of the model otherwise.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array

from signal_drift.lora.adapters import Adapter, Adapters, Weights
from signal_drift.losses.arguments import Loss
from signal_drift.losses.composite import composite
from signal_drift.propositions.subject import Instance
from signal_drift.tasks.criteria import mean_cross_entropy, mean_square

Draw = np.random.Generator
SAMPLES = 5


def random_instance(kind: str, seed: int, alpha: float, begins: bool) -> Instance:
    """Draw an instance of one of `KINDS` from `seed`, with s = α/r per layer, and B = 0 if it `begins`."""
    loss, shapes, ranks = KINDS[kind]
    draw = np.random.default_rng(seed)
    base = {k: _normal(draw, *shape, deviation=shape[1] ** -0.5) for k, shape in shapes.items()}
    start = {
        k: Adapter(_normal(draw, r, d_in, deviation=d_in**-0.5), jnp.zeros((d_out, r)))
        for (k, (d_out, d_in)), r in zip(shapes.items(), ranks.values(), strict=True)
    }
    return instance_of(loss(draw, base), base, start, {k: alpha / r for k, r in ranks.items()}, draw, begins)


def instance_of(
    loss: Loss, base: Weights, start: Adapters, scaling: dict[str, float], draw: Draw, begins: bool
) -> Instance:
    """Make an instance of a loss at adapters that begin, or are moved on by a draw, and draw an update of them."""
    delta, move = (_moves(draw, start, scaling) for _ in range(2))
    theta = start if begins else {k: Adapter(A + move[k].A, B + move[k].B) for k, (A, B) in start.items()}
    return Instance(loss, base, dict(theta), scaling, delta)


def quadratic(draw: Draw, weights: Weights, definite: bool = True) -> Partial:
    """Draw a loss ½wᵀQw + bᵀw in which every pair of weights is coupled, with Q ⪰ 0 or Q indefinite."""
    D = sum(W.size for W in weights.values())
    L, b = draw.standard_normal((D, D)) / D**0.5, draw.standard_normal(D)
    Q = L @ L.T if definite else L + L.T
    return composite(_flat, Partial(_quadratic, jnp.asarray(Q), jnp.asarray(b)))


def regression(draw: Draw, weights: Weights) -> Partial:
    """Draw the data of the MSE of a SiLU MLP."""
    X, Y = _inputs(draw, weights)
    return composite(Partial(_perceptron, X), Partial(mean_square, Y))


def classification(draw: Draw, weights: Weights) -> Partial:
    """Draw the data of the softmax cross-entropy of a SiLU MLP."""
    X, Y = _inputs(draw, weights)
    return composite(Partial(_perceptron, X), Partial(mean_cross_entropy, jnp.argmax(Y, axis=1)))


def logistic_regression(draw: Draw, weights: Weights) -> Partial:
    """Draw the data of the logistic loss of every output of a linear model or an MLP."""
    X, Y = _inputs(draw, weights)
    return composite(Partial(_perceptron, X), Partial(_logistic, jnp.sign(Y)))


def attention_regression(draw: Draw, weights: Weights) -> Partial:
    """Draw the data of the MSE of an attention head with adapted query, key, output and value projections."""
    X, Y = _normal(draw, SAMPLES, weights["q"].shape[1]), _normal(draw, SAMPLES, len(weights["o"]))
    return composite(Partial(_attention, X), Partial(mean_square, Y))


class Kind(NamedTuple):
    """Holds how a loss is drawn, and the shape (d_out, d_in) and rank of every layer."""

    loss: Callable[[Draw, Weights], Partial]
    shapes: dict[str, tuple[int, int]]
    ranks: dict[str, int]


KINDS = {
    "quadratic": Kind(quadratic, {"a": (3, 4), "b": (2, 3)}, {"a": 2, "b": 1}),
    "indefinite quadratic": Kind(partial(quadratic, definite=False), {"only": (3, 3)}, {"only": 5}),  # r > d
    "MSE of an MLP": Kind(regression, {"1": (4, 3), "2": (3, 4), "3": (2, 3)}, {"1": 2, "2": 1, "3": 3}),
    "softmax cross-entropy": Kind(classification, {"1": (4, 3), "2": (3, 4)}, {"1": 2, "2": 2}),
    "logistic regression": Kind(logistic_regression, {"only": (1, 5)}, {"only": 2}),
    "attention": Kind(
        attention_regression, {"q": (2, 3), "k": (2, 3), "v": (3, 3), "o": (2, 3)}, {"q": 1, "k": 2, "v": 1, "o": 2}
    ),
}


def _flat(weights: Weights) -> Array:
    return jnp.concatenate([weights[k].ravel() for k in sorted(weights)])


def _quadratic(Q: Array, b: Array, w: Array) -> Array:
    return w @ Q @ w / 2 + b @ w


def _perceptron(X: Array, weights: Weights) -> Array:
    """The SiLU MLP whose layers are the weights in sorted order."""
    *hidden, last = sorted(weights)
    for k in hidden:
        X = jax.nn.silu(X @ weights[k].T)
    return X @ weights[last].T


def _attention(X: Array, weights: Weights) -> Array:
    q, k, v = (X @ weights[name].T for name in ("q", "k", "v"))
    return jax.nn.softmax(q @ k.T / q.shape[1] ** 0.5) @ v @ weights["o"].T


def _logistic(signs: Array, outputs: Array) -> Array:
    return jnp.mean(jax.nn.softplus(-signs * outputs))


def _inputs(draw: Draw, weights: Weights) -> tuple[Array, Array]:
    """X fitting the first layer, and Y of the shape of the output."""
    return _normal(draw, SAMPLES, weights[min(weights)].shape[1]), _normal(draw, SAMPLES, len(weights[max(weights)]))


def _moves(draw: Draw, adapters: Adapters, scaling: dict[str, float]) -> dict[str, Adapter]:
    """Normal entries, those of B divided by 1 + s: s·BA stays of order one, as training keeps it, whatever α."""
    return {
        k: Adapter(_normal(draw, *A.shape), _normal(draw, *B.shape, deviation=1 / (1 + scaling[k])))
        for k, (A, B) in sorted(adapters.items())
    }


def _normal(draw: Draw, *shape: int, deviation: float = 1.0) -> Array:
    return jnp.asarray(deviation * draw.standard_normal(shape))
