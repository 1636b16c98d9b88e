"""Decide a verdict by intervals that were measured, against the bands that a statement allows.

A statement of several quantities is *supported* if the interval of each lies within its band. Each interval is of 95%,
and that is enough: were the statement false, one of its quantities would lie outside its band, and its interval would
have to miss it. It is *refuted* if the interval of one lies apart from its band; as any of them may do so by chance,
their levels are Holm's. Everything else is *inconclusive*. Where seeds were added in stages, every look has its share
of the 5%, so that it does not matter at which of them one stops. So a true statement is refuted, and a false one
supported, in at most 5% of all cases; `docs/error_rates.md` has both rates and the power, simulated.

*Not run*: a record is missing. *Not testable here*: the statement's own conditions fail on the problem.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, get_args

import numpy as np

from experiments.analysis.intervals import Estimate

Verdict = Literal["supported", "refuted", "inconclusive", "not run", "not testable here"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)

ERROR = 0.05
"""Probability of a wrong verdict that is allowed."""
REPETITIONS = 200
"""Simulated experiments from which the power of a finding is read."""

EXPONENT = 0.1
"""An exponent is stated to one decimal: over two decades 0.1 is a factor 1.6, what a log–log plot shows."""
FRACTION = 0.05
"""A law with "=" between averages is asked to hold to 5%."""
MAGNITUDE = 10**0.5
"""Of the same order of magnitude: nearer to it than to ten times or a tenth of it."""


DECADES = 15.0
"""Levels are told apart down to 10⁻¹⁵, where 1 − level is still another number than 1."""
HALVINGS = 20
"""Bisections of the exponent of the level."""


class Band(NamedTuple):
    """Hold the values a statement allows, both ends included, and why it ends there.

    `margin` is by how much an inequality or an exact value has to fail for that to matter; a band of two ends has its
    half-width.
    """

    low: float
    high: float
    why: str
    margin: float = FRACTION

    def __str__(self) -> str:
        if self.low == self.high:
            return f"{self.low:.4g}"
        if np.isinf(self.high):
            return f"{'>' if _open(self.low, np.inf) else '≥'} {self.ends[0]:.4g}"
        if np.isinf(self.low):
            return f"{'<' if _open(self.high, -np.inf) else '≤'} {self.ends[1]:.4g}"
        return f"{self.low:.4g} to {self.high:.4g}"

    @property
    def ends(self) -> tuple[float, float]:
        """Give the ends as one writes them, whether they belong to the band or not."""
        low = round(self.low, 12) if _open(self.low, np.inf) else self.low
        return low, round(self.high, 12) + 0.0 if _open(self.high, -np.inf) else self.high

    @property
    def near(self) -> list[float]:
        """Give the values two margins off what is stated: wrong, but only a little."""
        low, high = self.ends
        if np.isfinite(low) and np.isfinite(high):
            if low > 0 and high >= 4 * low:  # a factor to either side
                return [low * (low / high) ** 0.5, high * (high / low) ** 0.5]
            beyond = (high - low) / 2 or 2 * self.margin
            return [low - beyond, high + beyond]
        return [high + 2 * self.margin] if np.isfinite(high) else [low - 2 * self.margin]


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


def above(value: float, why: str = "an inequality has no margin", margin: float = FRACTION) -> Band:
    """Allow what is > value."""
    return Band(float(np.nextafter(value, np.inf)), np.inf, why, margin)


def below(value: float, why: str = "an inequality has no margin", margin: float = FRACTION) -> Band:
    """Allow what is < value."""
    return Band(-np.inf, float(np.nextafter(value, -np.inf)), why, margin)


def at_least(value: float, why: str, margin: float = FRACTION) -> Band:
    return Band(value, np.inf, why, margin)


def at_most(value: float, why: str, margin: float = FRACTION) -> Band:
    return Band(-np.inf, value, why, margin)


MOST = at_least(0.5, "at the majority of seeds: half of them or more", margin=0.25)


@dataclass(frozen=True)
class Finding:
    """Hold one measured quantity of a claim beside what is allowed.

    `words` say it as a sentence of the report would: "128·η₀ diverged at 0 of 20 seeds; the paper says it diverges".
    """

    quantity: str
    band: Band
    estimate: Estimate
    words: str = ""

    def within(self, confidence: float) -> bool:
        """Tell whether the interval lies in the band."""
        low, high = self.estimate.ends(confidence)
        return bool(self.band.low <= low and high <= self.band.high)

    def apart(self, confidence: float) -> bool:
        """Tell whether the interval lies wholly outside the band."""
        low, high = self.estimate.ends(confidence)
        return bool(high < self.band.low or low > self.band.high)

    @cached_property
    def known(self) -> bool:
        return not np.isnan([self.estimate.value, *self.estimate.ends(1 - ERROR)]).any()


class Decided(NamedTuple):
    """Hold the verdict of a statement and those of its findings, in their order."""

    verdict: Verdict
    each: tuple[Verdict, ...]
    confidence: float
    """Confidence of the interval by which a single finding is decided."""


def decide(findings: Sequence[Finding], looks: int = 1) -> Decided:
    """Decide a statement by all its findings, at one of so many `looks` at a growing number of seeds."""
    level = ERROR / looks
    apart = _refuted(findings, level)
    each: tuple[Verdict, ...] = tuple(
        "refuted" if i in apart else "supported" if x.known and x.within(1 - level) else "inconclusive"
        for i, x in enumerate(findings)
    )
    verdict: Verdict = "refuted" if apart else "supported" if set(each) == {"supported"} else "inconclusive"
    return Decided(verdict, each, 1 - level)


def _refuted(findings: Sequence[Finding], level: float) -> set[int]:
    """Those that lie apart from their bands by Holm's step-down procedure; what has no sampling error is no trial."""
    trials = sum(x.estimate.n > 0 for x in findings)
    apart: set[int] = set()
    while True:
        left = max(trials - sum(findings[i].estimate.n > 0 for i in apart), 1)
        found = {i for i, x in enumerate(findings) if x.known and x.apart(1 - level / left)}
        if found <= apart:
            return apart
        apart |= found


def deciding(findings: Sequence[Finding], decided: Decided) -> int:
    """Return the place of the finding that the verdict rests on: the first that has it, if possible a sampled one."""
    have = [i for i, v in enumerate(decided.each) if v == decided.verdict]
    return next((i for i in have if findings[i].estimate.n), have[0])


def power_of(finding: Finding, trials: int = 1, looks: int = 1) -> float:
    """Return how often a truth two margins off would be refuted, with the spread and the seeds that were seen.

    The smaller of both sides where the band has two, at Bonferroni's level over so many `trials` and `looks`.
    """
    if not finding.known:
        return 0.0
    confidence = 1 - ERROR / looks / max(trials, 1)
    repetitions = REPETITIONS if finding.estimate.n else 1

    def noticed(truth: float) -> float:
        rng = np.random.default_rng(0)
        again = [finding.estimate.again(truth, rng) for _ in range(repetitions)]
        return float(np.mean([Finding("", finding.band, x).apart(confidence) for x in again]))

    return min(noticed(truth) for truth in finding.band.near)


def seeds_needed(finding: Finding, confidence: float) -> int | None:
    """Say roughly how many samples would decide a finding whose value stays where it is; None where none would.

    The width of an interval falls as 1/√n; within a band of two ends it has to clear both.
    """
    interval, n = finding.estimate.at(confidence), finding.estimate.n
    edges = [x for x in finding.band.ends if np.isfinite(x)]
    if not n or not np.isfinite(interval).all() or not edges:
        return None
    if not finding.band.low <= interval.mean <= finding.band.high:  # it has to come clear of the nearer end only
        edges = [min(edges, key=lambda x: abs(x - interval.mean))]
    if interval.mean in edges:
        return None
    halves = [interval.high - interval.mean if x > interval.mean else interval.mean - interval.low for x in edges]
    wider = max(half / abs(x - interval.mean) for half, x in zip(halves, edges, strict=True))
    return int(np.ceil(n * max(wider**2, 1.0)))


def weakest(findings: Sequence[Finding]) -> list[Finding]:
    """Return the finding that lies least apart from its band, the first of equals; none of none."""
    return [min(findings, key=apartness)] if findings else []


def apartness(finding: Finding) -> float:
    """Compute −log₁₀ of the lowest level at which the interval lies apart from the band; 0 where it does at none.

    Infinite for what lies apart without sampling error.
    """
    if not finding.known or not finding.apart(0.0):
        return 0.0
    if finding.estimate.n == 0:
        return float("inf") if finding.apart(1 - ERROR) else 0.0
    low, high = 0.0, DECADES
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if finding.apart(1 - 10**-middle) else (low, middle)
    return low
