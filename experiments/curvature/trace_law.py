"""Draw Tr H_Signal over A, and say how far its mean is from a law, and where a ratio to the law can decide.

At B = 0 X2 gives Tr H_Signal and its deviation exactly for every draw of A. A ratio to a law is a number to rely on
only where the law is large against that deviation: on a model whose H_ℓ is indefinite the trace may be near 0 or
negative, and nothing then but the distance in standard errors has a meaning.
"""

from functools import partial
from typing import NamedTuple

import jax
import numpy as np
import scipy.stats
from jax import Array
from jaxtyping import Key

import signal_drift as sd
from signal_drift.lora.adapters import Scaling, Weights
from signal_drift.propositions import closed_forms
from signal_drift.propositions.closed_forms import Grams


@partial(jax.jit, static_argnames=("rank", "draws"))
def trace_draws(key: Key[Array, ""], base: Weights, grams: Grams, scaling: Scaling, rank: int, draws: int) -> Array:
    """Compute Tr H_Signal = Σ_l s_l² Tr(A_l M_l A_lᵀ), exactly, for independent draws of A (X2)."""

    def draw(key: Key[Array, ""]) -> Array:
        return closed_forms.signal_trace(grams, sd.init_adapters(key, base, rank), scaling)

    return jax.vmap(draw)(jax.random.split(key, draws))


class Traces(NamedTuple):
    """Hold traces over draws of A, (seed, rank, draw), what a law says of their mean, and the deviation of a draw."""

    draws: np.ndarray
    stated: np.ndarray
    deviation: np.ndarray

    @property
    def error(self) -> np.ndarray:
        """Return the standard error of the mean over draws, (seed, rank)."""
        return self.deviation / np.sqrt(self.draws.shape[-1])

    @property
    def scores(self) -> np.ndarray:
        """Return (mean over draws − law) / standard error, (seed, rank)."""
        return (self.draws.mean(-1) - self.stated) / self.error

    @property
    def ratios(self) -> np.ndarray:
        """Return mean over draws / law, (seed, rank)."""
        return self.draws.mean(-1) / self.stated

    def usable(self, margin: float) -> np.ndarray:
        """Say rank by rank whether the mean over seeds of the ratios can be held to 1 ± `margin`."""
        return stands_out(self.stated, self.error, margin)


def stands_out(stated: np.ndarray, error: np.ndarray, margin: float) -> np.ndarray:
    """Say column by column whether the mean over rows of measured/stated can be held to 1 ± `margin`.

    `error` is the standard error of what is measured. That of the mean of n independent ratios is √(Σ (error/stated)²)
    / n, and two of them have to lie within the margin: a law that holds is then beyond it in 5% of all cases.
    """
    relative = np.divide(error, stated, out=np.full(np.shape(error), np.inf), where=stated != 0)
    return 2 * np.sqrt(np.sum(relative**2, axis=0)) / len(relative) <= margin


def largest_normal(n: int) -> float:
    """Return the value that the largest of n independent absolute z exceeds with probability 5%."""
    return float(scipy.stats.norm.isf((1 - 0.95 ** (1 / n)) / 2))
