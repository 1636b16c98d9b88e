"""Decide a verdict by an interval that was measured, against a band that the statement allows.

Supported: every interval lies within its band. Refuted: some interval is disjoint from its band. Inconclusive:
anything else. Not run: a record is missing. Not testable here: the problem cannot answer the question. One set of
margins serves all claims. Intervals are 95% each: a claim of many quantities is refuted by one of them, and their
number is not corrected for.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np

from experiments.analysis.intervals import Interval

Verdict = Literal["supported", "refuted", "inconclusive", "not run", "not testable here"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)

EXPONENT = 0.1
"""An exponent is stated to one decimal: over two decades 0.1 is a factor 1.6, what a log–log plot shows."""
FRACTION = 0.05
"""A law with "=" between averages is asked to hold to 5%."""
MAGNITUDE = 10**0.5
"""Of the same order of magnitude: nearer to it than to ten times or a tenth of it."""


class Band(NamedTuple):
    """Hold the values a statement allows, both ends included, and why it ends there."""

    low: float
    high: float
    why: str

    def __str__(self) -> str:
        if self.low == self.high:
            return f"{self.low:.4g}"
        if np.isinf(self.high):
            return f"{'>' if _open(self.low, np.inf) else '≥'} {self.ends[0]:.4g}"
        if np.isinf(self.low):
            return f"{'<' if _open(self.high, -np.inf) else '≤'} {self.ends[1]:.4g}"
        digits = next((n for n in range(4, 12) if f"{self.low:.{n}g}" != f"{self.high:.{n}g}"), 12)
        return f"{self.low:.{digits}g} to {self.high:.{digits}g}"

    @property
    def ends(self) -> tuple[float, float]:
        """Give the ends as one writes them, whether they belong to the band or not."""
        low = round(self.low, 12) if _open(self.low, np.inf) else self.low
        return low, round(self.high, 12) + 0.0 if _open(self.high, -np.inf) else self.high


def _open(end: float, towards: float) -> bool:
    """The end is the neighbour of a short number, which `above` and `below` leave out."""
    short = round(end, 12) if np.isfinite(end) else end
    return end != short and end == np.nextafter(short, towards)


def exactly(value: float) -> Band:
    return Band(value, value, "exact: no rounding enters")


def near(value: float, margin: float, why: str) -> Band:
    return Band(value - margin, value + margin, why)


def power(exponent: float) -> Band:
    return near(exponent, EXPONENT, f"an exponent is stated to one decimal: ±{EXPONENT:g}")


def equal(value: float) -> Band:
    """Allow an average that a law gives exactly, measured to a few percent."""
    return near(value, FRACTION * value, f"an equality of averages: ±{FRACTION:.0%}")


def magnitude(value: float) -> Band:
    return Band(value / MAGNITUDE, value * MAGNITUDE, "the same order of magnitude: within a factor √10")


def above(value: float, why: str = "an inequality has no margin") -> Band:
    """Allow what is > value."""
    return Band(float(np.nextafter(value, np.inf)), np.inf, why)


def below(value: float, why: str = "an inequality has no margin") -> Band:
    """Allow what is < value."""
    return Band(-np.inf, float(np.nextafter(value, -np.inf)), why)


def at_least(value: float, why: str) -> Band:
    return Band(value, np.inf, why)


def at_most(value: float, why: str) -> Band:
    return Band(-np.inf, value, why)


MOST = Band(0.5, 1.0, "at the majority of seeds: half of them or more")


class Finding(NamedTuple):
    """Hold one measured quantity of a claim beside what is allowed."""

    quantity: str
    band: Band
    estimate: Interval

    @property
    def verdict(self) -> Verdict:
        low, high = self.estimate[1:]
        if np.any(np.isnan(self.estimate)):
            return "inconclusive"
        if self.band.low <= low and high <= self.band.high:
            return "supported"
        return "refuted" if high < self.band.low or low > self.band.high else "inconclusive"


def verdict(findings: Sequence[Finding]) -> Verdict:
    """Return refuted if one finding is, supported if all are."""
    found = {finding.verdict for finding in findings}
    if not found:
        return "inconclusive"
    return "refuted" if "refuted" in found else "supported" if found == {"supported"} else "inconclusive"


def deciding(findings: Sequence[Finding]) -> Finding:
    """Return the finding that the verdict rests on: the first that has it."""
    decided = verdict(findings)
    return next(finding for finding in findings if finding.verdict == decided)
