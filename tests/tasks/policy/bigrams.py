"""A policy that can be counted out: π(next | token) = softmax(W[:, token]), and all that it can say, in NumPy."""

from collections.abc import Iterator
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import signal_drift as sd

WORDS, SPOKEN = 2, 2
"""Tokens that there are, and how many are said after the first, which is 0: four completions."""
SAYINGS = np.array([(0, *said) for said in product(range(WORDS), repeat=SPOKEN)], np.int32)
W = np.array([[0.3, -0.4], [-0.5, 0.8]])


class Bigram(nnx.Module):
    """Logits of the next token from the present one alone."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.next = nnx.Linear(WORDS, WORDS, use_bias=False, param_dtype=jnp.float64, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        return self.next(jax.nn.one_hot(tokens, WORDS, dtype=jnp.float64))


_, FORWARD = sd.base_and_forward(Bigram(nnx.Rngs(0)))
WEIGHTS = {"next": jnp.asarray(W)}


def steps(saying: np.ndarray) -> Iterator[tuple[int, int]]:
    return zip(saying[:-1].tolist(), saying[1:].tolist(), strict=True)


def table(matrix: np.ndarray = W) -> np.ndarray:
    """P[next, present]."""
    powers = np.exp(matrix)
    return powers / powers.sum(axis=0)


def probability(saying: np.ndarray, matrix: np.ndarray = W) -> float:
    return float(np.prod([table(matrix)[then, now] for now, then in steps(saying)]))


def score(saying: np.ndarray) -> np.ndarray:
    """∇_W log π of a saying: Σ_t (e_next − P[:, now]) e_nowᵀ."""
    found = np.zeros_like(W)
    for now, then in steps(saying):
        found[:, now] += np.eye(WORDS)[then] - table()[:, now]
    return found
