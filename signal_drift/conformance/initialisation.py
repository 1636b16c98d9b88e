"""Recovers σ_A from the entries of A as it was drawn, and says which initialisers it can be of."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.stats import chi2


class SigmaInterval(NamedTuple):
    """Holds the root mean square of A and the interval in which σ_A lies."""

    measured: float
    low: float
    high: float

    def holds(self, sigma: float) -> bool:
        """Tell whether σ_A may be this."""
        return self.low <= sigma <= self.high


def sigma_interval(A: Float[np.ndarray, "r d_in"], error: float) -> SigmaInterval:
    """Enclose σ_A by the χ² interval of n entries of mean 0: n·σ̂²/σ_A² is χ² with n degrees of freedom.

    It misses the σ_A of normal entries with the probability `error`, and that of uniform ones, whose squares scatter
    less, more rarely.
    """
    n, square = A.size, float(np.mean(np.square(A, dtype=float)))
    low, high = (math.sqrt(n * square / float(chi2.ppf(p, n))) for p in (1 - error / 2, error / 2))
    return SigmaInterval(math.sqrt(square), low, high)


INITIALISERS: dict[str, Callable[[int, int], float]] = {
    "kaiming_uniform, 1/√(3 d_in) (PEFT, kohya, mlx)": lambda d_in, r: 1 / math.sqrt(3 * d_in),
    "he_uniform, √(2/d_in) (flax, qwix, Keras)": lambda d_in, r: math.sqrt(2 / d_in),
    "normal, 1/√d_in": lambda d_in, r: 1 / math.sqrt(d_in),
    "gaussian, 1/r (PEFT)": lambda d_in, r: 1 / r,
    **{
        f"kaiming_uniform on each of {k} shards of d_in, √({k}/(3 d_in))": (
            lambda d_in, r, k=k: math.sqrt(k / (3 * d_in))
        )
        for k in (2, 4, 8, 16)
    },
    "kaiming_uniform with r for d_in, 1/√(3r)": lambda d_in, r: 1 / math.sqrt(3 * r),
    "he_uniform with r for d_in, √(2/r)": lambda d_in, r: math.sqrt(2 / r),
}
"""σ_A of how A is drawn, or wrongly drawn, by d_in and r."""


def initialisers(interval: SigmaInterval, d_in: int, r: int) -> tuple[str, ...]:
    """List the initialisers that the interval does not exclude: with so many entries they cannot be told apart."""
    return tuple(name for name, sigma in INITIALISERS.items() if interval.holds(sigma(d_in, r)))
