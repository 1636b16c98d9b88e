"""Turn a handful of seeds into a statement: intervals, and exponents fitted in log space."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Float

RESAMPLES = 1000
"""Bootstrap resamples of the seeds."""


class Interval(NamedTuple):
    """Hold a mean with its two-sided 95% interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.4g}"

    def interval(self) -> str:
        return f"[{self.low:.4g}, {self.high:.4g}]"

    def cells(self, otherwise: str) -> tuple[str, str]:
        """Write mean and interval for a table, or `otherwise` where there is no finite mean."""
        return (str(self), self.interval()) if np.isfinite(self.mean) else (otherwise, "–")


def mean_interval(samples: Float[np.ndarray, "n"]) -> Interval:
    """Return Student's t interval of the mean of independent samples; unbounded for a single or an infinite sample."""
    samples = np.asarray(samples, float).ravel()
    mean, n = float(np.mean(samples)), len(samples)
    if n < 2 or not np.isfinite(mean):
        return Interval(mean, -np.inf, np.inf)
    half = float(scipy.stats.t.ppf(0.975, n - 1) * np.std(samples, ddof=1) / np.sqrt(n))
    return Interval(mean, mean - half, mean + half)


def bootstrap(statistic: Callable[[np.ndarray], float], samples: Float[np.ndarray, "seeds ..."]) -> Interval:
    """Return the statistic of all seeds (first axis) with its 95% percentile interval over resampled seeds.

    The draws are fixed. Resamples in which the statistic does not exist are left out. With few seeds the
    interval is somewhat narrow; for a single seed it is unbounded.
    """
    if len(samples) < 2:
        return Interval(statistic(samples), -np.inf, np.inf)
    draws = np.random.default_rng(0).integers(len(samples), size=(RESAMPLES, len(samples)))
    values = np.array([statistic(samples[draw]) for draw in np.unique(np.sort(draws, axis=1), axis=0)])
    weights = np.unique(np.sort(draws, axis=1), axis=0, return_counts=True)[1]
    values = np.repeat(values, weights)
    values = values[np.isfinite(values)]
    low, high = np.percentile(values, [2.5, 97.5]) if len(values) else (np.nan, np.nan)
    return Interval(statistic(samples), float(low), float(high))


def point(value: float | np.floating) -> Interval:
    """Return a number without an interval: exact, or already the largest of all."""
    return Interval(float(value), float(value), float(value))


def extent(values: np.ndarray) -> Interval:
    """Return the mean, with the range of all values in place of an interval: for what has to hold at every one."""
    return Interval(float(np.mean(values)), float(np.min(values)), float(np.max(values)))


def share(hits: np.ndarray) -> Interval:
    """Return a proportion with Wilson's 95% interval, which holds its level for a handful of trials."""
    hits = np.asarray(hits, bool).ravel()
    interval = scipy.stats.binomtest(int(hits.sum()), hits.size).proportion_ci(method="wilson")
    return Interval(float(hits.mean()), float(interval.low), float(interval.high))


def exponents(x: Float[np.ndarray, "k"], y: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n"]:
    """Fit by least squares the slope of log y against log x, one per row of y."""
    u = np.log(x) - np.mean(np.log(x))
    return np.log(y) @ u / (u @ u)
