"""Turn a handful of seeds into a statement: a value, and its interval at any confidence.

Every estimate holds its level for as few as two or three samples, which the percentile bootstrap does not (it covers
52, 73 and 85% at 2, 3 and 5 samples where 95% is claimed). Which one for what:

- `mean_of`: either sign and no run diverges. Student's t.
- `geometric_mean_of`: positive quantities, ratios above all. Student's t of the logarithms.
- `median_of`: a run may diverge, which is then the worst value and not a missing one. Order statistics (sign test).
- `difference_of`: paired differences of runs; the mean where all are finite, else the median.
- `lead_of`: by how much one of two runs is lower, paired; neither leads where both diverged.
- `share_of`: how often something happens. Clopper and Pearson.
- `quotient_of`: a mean over another, which may be near 0. Fieller.
- `correlation_of`: Fisher's z.
- `exactly_known`, `certified_between`: no sampling error.

`tests/experiments/analysis/test_intervals.py` simulates the coverage of each.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Float

CONFIDENCE = 0.95
"""What an interval holds that says nothing else."""


class Interval(NamedTuple):
    """Hold a value with its two-sided interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.4g}"

    def interval(self) -> str:
        return f"[{self.low:.4g}, {self.high:.4g}]"

    def cells(self, otherwise: str) -> tuple[str, str]:
        """Write value and interval for a table, or `otherwise` where there is no finite value."""
        if not np.isfinite(self.mean):
            return otherwise, "–"
        return str(self), self.interval() if np.isfinite([self.low, self.high]).all() else "unbounded"


@dataclass(frozen=True)
class Estimate:
    """Hold a value, how its interval was found, and from how many independent samples; 0 of them: no sampling error."""

    value: float
    method: str
    n: int
    ends: Callable[[float], tuple[float, float]]
    """Gives both ends of the interval at a confidence."""
    again: Callable[[float, np.random.Generator], "Estimate"]
    """Draws what another experiment of this size and spread might estimate if the truth were the number given."""

    def at(self, confidence: float = CONFIDENCE) -> Interval:
        """Return the value with its interval at a confidence."""
        return Interval(self.value, *self.ends(confidence))

    def __str__(self) -> str:
        return f"{self.value:.4g}"

    def interval(self) -> str:
        """Write the interval at 95%."""
        return self.at().interval()

    def cells(self, otherwise: str) -> tuple[str, str]:
        """Write value and interval for a table, or `otherwise` where there is no value; none for what is exact."""
        value, interval = self.at().cells(otherwise)
        return value, interval if self.n else "–"


def mean_of(samples: Float[np.ndarray, "n"]) -> Estimate:
    """Estimate the mean of independent samples by Student's t; unbounded for a single or an infinite one.

    >>> mean_of(np.array([1.0, 2.0, 3.0])).at()
    Interval(mean=2.0, low=-0.484..., high=4.484...)
    """
    x = np.asarray(samples, float).ravel()
    mean, n = float(np.mean(x)), len(x)
    spread = float(np.std(x, ddof=1)) if n > 1 and np.isfinite(mean) else np.inf

    def ends(confidence: float) -> tuple[float, float]:
        half = np.inf if np.isinf(spread) else float(_student(confidence, n - 1)) * spread / np.sqrt(n)
        return (mean - half, mean + half) if np.isfinite(half) else (-np.inf, np.inf)

    def again(truth: float, rng: np.random.Generator) -> Estimate:
        return mean_of(truth + spread * rng.standard_normal(n)) if np.isfinite(spread) else _unknown(method, n)

    method = f"Student's t over {n}"
    return Estimate(mean, method, n, ends, again)


def geometric_mean_of(samples: Float[np.ndarray, "n"]) -> Estimate:
    """Estimate the geometric mean of independent positive samples by Student's t of their logarithms.

    A sample that is not positive and finite has no logarithm: the estimate is then NaN.
    """
    x = np.asarray(samples, float).ravel()
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(x)
    inner = mean_of(logs if np.isfinite(logs).all() else np.full(len(x), np.nan))

    def ends(confidence: float) -> tuple[float, float]:
        low, high = inner.ends(confidence)
        with np.errstate(over="ignore"):
            return float(np.exp(low)), float(np.exp(high))

    def again(truth: float, rng: np.random.Generator) -> Estimate:
        if truth <= 0 or not np.isfinite(inner.value):
            return _unknown(method, len(x))
        with np.errstate(over="ignore"):
            return geometric_mean_of(np.exp(_samples_again(logs, np.log(truth), rng)))

    method = f"Student's t of logarithms over {len(x)}"
    return Estimate(float(np.exp(inner.value)), method, len(x), ends, again)


def _unknown(method: str, n: int) -> Estimate:
    """Return an estimate that says nothing: it has neither value nor bounds."""
    return Estimate(np.nan, method, n, lambda confidence: (-np.inf, np.inf), lambda truth, rng: _unknown(method, n))


def _samples_again(x: np.ndarray, truth: float, rng: np.random.Generator) -> np.ndarray:
    """Normal samples about `truth` with the spread of `x`."""
    return truth + (np.std(x, ddof=1) if len(x) > 1 else 0.0) * rng.standard_normal(len(x))


def median_of(samples: Float[np.ndarray, "n"]) -> Estimate:
    """Estimate the median by order statistics: between the k-th lowest and k-th highest sample.

    The sign test: a sample lies below the median with probability ½, whatever the distribution, so that the interval
    holds at least its confidence, and ±∞ is as good as any number. It is unbounded for fewer than six samples at 95%.
    """
    x = np.sort(np.asarray(samples, float).ravel())
    n = len(x)
    with np.errstate(invalid="ignore"):  # between −∞ and ∞
        value = float((x[(n - 1) // 2] + x[n // 2]) / 2) if n and not np.isnan(x).any() else np.nan

    def ends(confidence: float) -> tuple[float, float]:
        k = _order(confidence, n)
        if k < 1 or np.isnan(value):
            return -np.inf, np.inf
        return float(x[k - 1]), float(x[n - k])

    def again(truth: float, rng: np.random.Generator) -> Estimate:
        return median_of(truth + rng.choice(x - value, n)) if np.isfinite(value) else _unknown(method, n)

    method = f"order statistics of {n}"
    return Estimate(value, method, n, ends, again)


def difference_of(samples: Float[np.ndarray, "n"]) -> Estimate:
    """Estimate how far paired runs lie apart: the mean where all are finite, the median where a run diverged."""
    x = np.asarray(samples, float).ravel()
    return mean_of(x) if np.isfinite(x).all() else median_of(x)


def lead_of(own: Float[np.ndarray, "n"], other: Float[np.ndarray, "n"]) -> Estimate:
    """Estimate by how much the first of two paired runs lies below the other, by nothing where both diverged.

    >>> lead_of(np.array([1.0, 2.0, np.inf]), np.array([2.0, 3.0, np.inf])).value
    0.666...
    """
    with np.errstate(invalid="ignore"):
        apart = np.asarray(other, float) - np.asarray(own, float)
    return difference_of(np.where(np.isnan(apart), 0.0, apart))


def share_of(hits: np.ndarray) -> Estimate:
    """Estimate a probability from independent trials by Clopper and Pearson's interval, which never falls short."""
    trials = np.asarray(hits, bool).ravel()
    found = int(trials.sum())

    def ends(confidence: float) -> tuple[float, float]:
        return _clopper_pearson(confidence, found, trials.size)

    def again(truth: float, rng: np.random.Generator) -> Estimate:
        return share_of(rng.random(trials.size) < truth)

    return Estimate(float(trials.mean()), f"Clopper–Pearson, {trials.size} trials", trials.size, ends, again)


def quotient_of(numerators: Float[np.ndarray, "n"], denominators: Float[np.ndarray, "n"]) -> Estimate:
    """Estimate mean(a)/mean(b) of paired samples by Fieller: all q at which mean(a − q·b) = 0 is not refuted by t.

    Unbounded where the mean of b may be 0. With ā, b̄ the means, V their covariance matrix over n and t Student's
    quantile, q solves (b̄² − t²V_bb) q² − 2(āb̄ − t²V_ab) q + (ā² − t²V_aa) = 0.
    """
    a, b = (np.asarray(x, float).ravel() for x in (numerators, denominators))
    n = len(a)
    mean_a, mean_b = float(np.mean(a)), float(np.mean(b))
    value = mean_a / mean_b if mean_b != 0 else np.nan
    finite = n > 1 and np.isfinite(mean_a) and np.isfinite(mean_b)
    u, v = (a - mean_a, b - mean_b) if finite else (np.zeros(n), np.zeros(n))
    covariances = [float(c) / max(n - 1, 1) for c in (u @ u, u @ v, v @ v)]

    def ends(confidence: float) -> tuple[float, float]:
        if not finite:
            return -np.inf, np.inf
        (aa, ab, bb) = (c * _student(confidence, n - 1) ** 2 / n for c in covariances)
        square, middle, rest = mean_b**2 - bb, mean_a * mean_b - ab, mean_a**2 - aa
        if square <= 0:
            return -np.inf, np.inf
        root = np.sqrt(max(middle**2 - square * rest, 0.0))
        return float((middle - root) / square), float((middle + root) / square)

    def again(truth: float, rng: np.random.Generator) -> Estimate:
        if not (finite and np.isfinite(value)):
            return _unknown(method, n)
        return quotient_of(_samples_again(a - value * b, 0.0, rng) + truth * b, b)

    method = f"Fieller's interval of a quotient over {n}"
    return Estimate(value, method, n, ends, again)


def correlation_of(x: Float[np.ndarray, "n"], y: Float[np.ndarray, "n"]) -> Estimate:
    """Estimate a correlation by Fisher's z = artanh ρ, whose standard error is 1/√(n − 3); within [−1, 1] always.

    NaN where one of both does not vary.
    """
    a, b = (np.asarray(values, float).ravel() for values in (x, y))
    a, b = a - np.mean(a), b - np.mean(b)
    norm = np.sqrt((a @ a) * (b @ b))
    return _correlation(float(np.clip(a @ b / norm, -1, 1)) if norm > 0 else np.nan, len(a))


def _correlation(rho: float, n: int) -> Estimate:
    def ends(confidence: float) -> tuple[float, float]:
        if n < 4 or not np.isfinite(rho):
            return -1.0, 1.0
        half = _normal(confidence) / np.sqrt(n - 3)
        with np.errstate(divide="ignore"):
            return float(np.tanh(np.arctanh(rho) - half)), float(np.tanh(np.arctanh(rho) + half))

    def again(truth: float, rng: np.random.Generator) -> Estimate:
        with np.errstate(divide="ignore"):
            z = np.arctanh(np.clip(truth, -1, 1)) + rng.standard_normal() / np.sqrt(max(n - 3, 1))
        return _correlation(float(np.tanh(z)), n)

    return Estimate(rho, f"Fisher's z over {n}", n, ends, again)


def exactly_known(value: float | np.floating) -> Estimate:
    """Return a number without sampling error, known to rounding."""
    return certified_between(float(value), float(value), float(value), "no sampling error")


def certified_between(value: float, low: float, high: float, method: str = "numerical bounds") -> Estimate:
    """Return a number between bounds that hold for certain, at any confidence."""

    def again(truth: float, rng: np.random.Generator) -> Estimate:
        return certified_between(truth, truth - (value - low), truth + (high - value), method)

    return Estimate(value, method, 0, lambda confidence: (low, high), again)


@cache
def _order(confidence: float, n: int) -> int:
    """The largest k with P(at most k − 1 of n below the median) < (1 − confidence)/2; 0 where there is none."""
    return int(scipy.stats.binom.ppf((1 - confidence) / 2, n, 0.5))


@cache
def _clopper_pearson(confidence: float, hits: int, n: int) -> tuple[float, float]:
    tail = (1 - confidence) / 2
    low = float(scipy.stats.beta.ppf(tail, hits, n - hits + 1)) if hits else 0.0
    return low, float(scipy.stats.beta.isf(tail, hits + 1, n - hits)) if hits < n else 1.0


@cache
def _normal(confidence: float) -> float:
    return float(scipy.stats.norm.ppf((1 + confidence) / 2))


@cache
def _student(confidence: float, freedom: int) -> float:
    return float(scipy.stats.t.ppf((1 + confidence) / 2, freedom))


def exponents(x: Float[np.ndarray, "k"], y: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n"]:
    """Fit by least squares the slope of log y against log x, one per row of y."""
    u = np.log(x) - np.mean(np.log(x))
    return np.log(y) @ u / (u @ u)
