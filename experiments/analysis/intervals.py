"""Intervals and exponents: how a handful of seeds becomes a statement."""

from typing import NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Float


class Interval(NamedTuple):
    """A mean with its two-sided 95% interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.4g}"

    def interval(self) -> str:
        return f"[{self.low:.4g}, {self.high:.4g}]"


def mean_interval(samples: Float[np.ndarray, "n"]) -> Interval:
    """Student's t interval of the mean of independent samples; unbounded for a single or an infinite sample."""
    samples = np.asarray(samples, float).ravel()
    mean, n = float(np.mean(samples)), len(samples)
    if n < 2 or not np.isfinite(mean):
        return Interval(mean, -np.inf, np.inf)
    half = float(scipy.stats.t.ppf(0.975, n - 1) * np.std(samples, ddof=1) / np.sqrt(n))
    return Interval(mean, mean - half, mean + half)


def extent(values: np.ndarray) -> Interval:
    """Return the mean, with the range of all values in place of an interval: for what has to hold at every one."""
    return Interval(float(np.mean(values)), float(np.min(values)), float(np.max(values)))


def exponents(x: Float[np.ndarray, "k"], y: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n"]:
    """The slope of log y against log x, least squares, one per row of y."""
    u = np.log(x) - np.mean(np.log(x))
    return np.log(y) @ u / (u @ u)
