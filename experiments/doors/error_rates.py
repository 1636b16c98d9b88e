"""Simulate how often a verdict is wrong, through the very functions by which the ledger decides.

A cell is one kind of claim at one number of seeds, one noise and one truth; every simulated ledger decides it once. One
seed differs from another by a standard deviation of one margin.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.stats
from tqdm import tqdm

from experiments.analysis.intervals import (
    Estimate,
    Interval,
    certified_between,
    correlation_of,
    exponents,
    geometric_mean_of,
    mean_of,
    median_of,
    quotient_of,
    share_of,
)
from experiments.ledger.verdict import (
    ERROR,
    EXPONENT,
    FRACTION,
    MOST,
    Band,
    Finding,
    Verdict,
    above,
    at_least,
    at_most,
    decide,
    equal,
    near,
    power,
)


@dataclass(frozen=True)
class Options:
    """Say how many ledgers are simulated and where the page is written."""

    ledgers: int = 2000
    page: Path = Path("docs/error_rates.md")


def write_rates(options: Options) -> None:
    """Simulate every cell, write the page and say where it lies."""
    cells = [(noise, kind, n) for noise in NOISES for kind in KINDS if kind.noisy or noise is NORMAL for n in SEEDS]
    cells += [(NORMAL, RARE, n) for n in SEEDS]
    rates = [rates_of(*cell, options.ledgers) for cell in tqdm(cells, desc="error rates")]
    options.page.write_text(page(rates, options.ledgers), encoding="utf-8")
    print(options.page)


SEEDS = (3, 5, 10, 20)
LOOKS = (1, 2, 4)
"""Of a staged claim: so many times the seeds of its first look."""
DIVERGE = 0.1
"""Share of runs that diverge where some do, and of seeds with a counterexample where they are rare."""
SPREAD = 0.1
"""From seed to seed, of numerators and denominators; the margin of their quotient."""
ROUNDING = 1e-6
"""Half-width of numerical bounds, in margins."""
BEYOND = 1e-3
"""How far a false claim lies beyond the end of its band in the worst case, in margins."""
PATH = np.array([1.0, 3.0, 10.0, 30.0, 100.0])
"""Where an exponent is measured: over two decades."""


class Noise(NamedTuple):
    """Hold a distribution of mean 0 and standard deviation 1: its name, how it is drawn, and its quantiles."""

    name: str
    draw: Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
    quantile: Callable[[float], float]


_MEAN, _DEVIATION = np.exp(0.5), np.sqrt((np.e - 1) * np.e)
"""Of a lognormal whose logarithm is standard normal."""
NORMAL = Noise("normal", lambda rng, shape: rng.standard_normal(shape), lambda q: float(scipy.stats.norm.ppf(q)))
SKEWED = Noise(
    "lognormal",
    lambda rng, shape: (rng.lognormal(0.0, 1.0, shape) - _MEAN) / _DEVIATION,
    lambda q: float((np.exp(scipy.stats.norm.ppf(q)) - _MEAN) / _DEVIATION),
)
HEAVY = Noise(
    "Student's t of 3 degrees",
    lambda rng, shape: rng.standard_t(3, shape) / np.sqrt(3),
    lambda q: float(scipy.stats.t.ppf(q, 3) / np.sqrt(3)),
)
NOISES = (NORMAL, SKEWED, HEAVY)


class Truths(NamedTuple):
    """Hold the values of a quantity at which a claim is simulated: two at which it is true, three at which it is not.

    The worst true one lies at the end of the band, the worst false one just beyond. Of a band of two ends it is the low
    one and the high one, where noise with a long tail upwards errs most.
    """

    middle: float
    edge: float
    beyond: float
    half: float
    far: float

    @classmethod
    def of(cls, band: Band) -> "Truths":
        """Take those of a band; `far` is two margins off what is stated, `half` between the end and there."""
        low, high = band.ends
        far = band.near[-1]
        if np.isfinite(low) and np.isfinite(high):
            return cls((low + high) / 2, low, high + BEYOND * (high - low) / 2, (high + far) / 2, far)
        end = low if np.isfinite(low) else high
        return cls(2 * end - far, end, end + BEYOND * (far - end) / 2, (end + far) / 2, far)


Measure = Callable[[np.random.Generator, Noise, float, int], list[Estimate]]
"""From a truth and a number of seeds to what one experiment estimates."""


class Kind(NamedTuple):
    """Hold a kind of claim: its name, its band, what is measured, and how many looks are taken."""

    name: str
    band: Band
    measure: Measure
    noisy: bool = True
    """Whether the noise has a distribution that could be another."""
    looks: tuple[int, ...] = (1,)

    def decided(self, rng: np.random.Generator, noise: Noise, truth: float, n: int) -> Verdict:
        """Decide one simulated claim, at the first look that does."""
        verdict: Verdict = "inconclusive"
        for times in self.looks:
            findings = [Finding("", self.band, x) for x in self.measure(rng, noise, truth, n * times)]
            verdict = decide(findings, len(self.looks)).verdict
            if verdict != "inconclusive":
                break
        return verdict


UNIT = near(0.0, 1.0, "a margin of 1")


def _ratio(rng: np.random.Generator, noise: Noise, truth: float, n: int) -> list[Estimate]:
    return [geometric_mean_of(truth * np.exp(FRACTION * noise.draw(rng, (n,))))]


def _exponent(rng: np.random.Generator, noise: Noise, truth: float, n: int) -> list[Estimate]:
    u = np.log(PATH) - np.mean(np.log(PATH))
    scatter = EXPONENT * np.sqrt(u @ u) * noise.draw(rng, (n, len(PATH)))
    return [mean_of(exponents(PATH, np.exp(truth * np.log(PATH) + scatter)))]


def _mean(rng: np.random.Generator, noise: Noise, truth: float, n: int) -> list[Estimate]:
    return [mean_of(truth + noise.draw(rng, (n,)))]


def _with_diverging(rng: np.random.Generator, noise: Noise, truth: float, n: int) -> list[Estimate]:
    """Runs whose median is the truth when those that diverge count as −∞."""
    shift = _median_of_finite(noise)
    return [median_of(np.where(rng.random(n) < DIVERGE, -np.inf, truth - shift + noise.draw(rng, (n,))))]


@cache
def _median_of_finite(noise: Noise) -> float:
    return noise.quantile((0.5 - DIVERGE) / (1 - DIVERGE))


def _majority(rng: np.random.Generator, noise: Noise, truth: float, n: int) -> list[Estimate]:
    return [share_of(rng.random(n) < truth)]


def _eight(rng: np.random.Generator, noise: Noise, truth: float, n: int, moved: int) -> list[Estimate]:
    """So many of eight quantities have the truth that is given; the others lie in the middle of their bands."""
    return [mean_of(truth * (i < moved) + x) for i, x in enumerate(noise.draw(rng, (8, n)))]


def _quotient(rng: np.random.Generator, noise: Noise, truth: float, n: int) -> list[Estimate]:
    a, b = SPREAD * noise.draw(rng, (2, n)) + np.array([[truth], [1.0]])
    return [quotient_of(a, b)]


def _correlation(rng: np.random.Generator, noise: Noise, truth: float, n: int) -> list[Estimate]:
    x, e = noise.draw(rng, (2, n))
    return [correlation_of(x, truth * x + np.sqrt(1 - truth**2) * e)]


def _certified(rng: np.random.Generator, noise: Noise, truth: float, n: int) -> list[Estimate]:
    """A quantity that is the truth at every seed, known between numerical bounds."""
    return [certified_between(x, x - ROUNDING, x + ROUNDING) for x in truth + ROUNDING * rng.uniform(-1, 1, n)]


def _certified_rarely(rng: np.random.Generator, noise: Noise, truth: float, n: int) -> list[Estimate]:
    """Draw bounds that hold the given truth at a share of the seeds, and elsewhere a value well within the band."""
    rare = rng.random(n) < DIVERGE
    return [certified_between(x, x - ROUNDING, x + ROUNDING) for x in np.where(rare, truth, -1.0)]


KINDS: tuple[Kind, ...] = (
    Kind("equal averages, ±5%, on logarithms", equal(1.0), _ratio),
    Kind("exponent, ±0.1", power(-1.0), _exponent),
    Kind("paired difference > 0, mean", above(0.0, margin=1.0), _mean),
    Kind("paired difference > 0, median, 10% of runs diverge", above(0.0, margin=1.0), _with_diverging),
    Kind("at the majority of seeds", MOST, _majority, noisy=False),
    Kind("eight quantities, one of them moved", UNIT, partial(_eight, moved=1)),
    Kind("eight quantities, all moved", UNIT, partial(_eight, moved=8)),
    Kind("quotient of means ≥ 0.5", at_least(0.5, "", margin=SPREAD), _quotient),
    Kind("correlation ≥ 0.5", at_least(0.5, "", margin=0.2), _correlation),
    Kind("staged: n, 2n, 4n seeds", UNIT, _mean, looks=LOOKS),
    Kind("at every seed, certified", at_most(0.0, "", margin=1.0), _certified, noisy=False),
)
RARE = Kind(
    "at every seed, counterexamples at 10% of them", at_most(0.0, "", margin=1.0), _certified_rarely, noisy=False
)
"""What no number of seeds can exclude; it is kept apart."""


class Rates(NamedTuple):
    """Hold what came of one kind of claim at one noise and number of seeds: its verdicts, counted at each truth."""

    noise: Noise
    kind: Kind
    n: int
    counts: Mapping[str, Counter[Verdict]]

    def hits(self, verdict: Verdict, *truths: str) -> int:
        """Return how many ledgers had a verdict at that of the truths where most had it."""
        return max(self.counts[truth][verdict] for truth in truths)

    @property
    def ledgers(self) -> int:
        return self.counts["edge"].total()

    @property
    def refuted_though_true(self) -> int:
        return self.hits("refuted", "middle", "edge")

    @property
    def supported_though_false(self) -> int:
        return self.hits("supported", "beyond", "half", "far")

    @property
    def wrong(self) -> Interval:
        """Return the larger share of wrong verdicts with its interval."""
        hits = max(self.refuted_though_true, self.supported_though_false)
        return share_of(np.arange(self.ledgers) < hits).at()

    @property
    def decided(self) -> float:
        """Return the share of all ledgers, over all five truths, that decide."""
        return 1 - sum(counted["inconclusive"] for counted in self.counts.values()) / (5 * self.ledgers)


def rates_of(noise: Noise, kind: Kind, n: int, ledgers: int) -> Rates:
    """Decide one kind of claim in so many simulated ledgers, at each of the five truths."""
    rng = np.random.default_rng([n, *f"{noise.name}: {kind.name}".encode()])
    counts: dict[str, Counter[Verdict]] = {
        name: Counter(kind.decided(rng, noise, truth, n) for _ in range(ledgers))
        for name, truth in Truths.of(kind.band)._asdict().items()
    }
    return Rates(noise, kind, n, counts)


def page(rates: Sequence[Rates], ledgers: int) -> str:
    """Write what was found, its conditions, and a table for every noise."""
    kept = [r for r in rates if r.kind is not RARE]
    plain = max((r for r in kept if r.noise is NORMAL), key=lambda r: r.wrong)
    parts = [OPENING.format(ledgers=f"{ledgers:,}", worst=_with_interval(plain), kind=plain.kind.name, n=plain.n)]
    for noise in NOISES:
        here = [r for r in kept if r.noise is noise]
        parts += [f"## Noise: {noise.name}", _excess(here), _table(here)]
    rare = [r for r in rates if r.kind is RARE]
    parts += [RARELY, "\n".join(_rarely(rare)), PROOF, "Back to [README](../README.md)."]
    return "\n\n".join(parts) + "\n"


OPENING = f"""# How often a verdict is wrong

Written by `python -m experiments error-rates`: {{ledgers}} ledgers are simulated, and every claim in them is decided
by the functions that decide the real ones. A verdict is wrong if it is *supported* and the claim false, or *refuted*
and the claim true; {ERROR:.0%} are allowed. With normal noise the largest share is {{worst}}: {{kind}}, {{n}} seeds.

Every kind of claim has five truths. It is true in the *middle* of its band, or two margins within an inequality, and at
the *edge*, the worst case. It is false *just beyond* the edge, by a thousandth of a margin, which is the worst case
again; *far* off, two margins from what is stated; and *halfway* between the edge and there. The spread from seed to
seed is one margin, of shares and correlations what chance gives. A band of two ends is left where noise with a long
tail upwards errs most.

*Wrong* is the larger of both errors with its interval of 95% (Clopper and Pearson). *Decided* is the share that is not
inconclusive, over all five truths. *Power* is the share refuted. Below six seeds the order statistics of 95% are
unbounded and no share refutes a majority, and below four a correlation has no interval: nothing is decided there, and
nothing wrong.

The lognormal noise is the exponential of a standard normal, of skewness 6.2. Student's t, Fieller and Fisher assume
normal noise, and skewness costs them more the more quantities a claim has, as Holm asks for their far tails; more seeds
hardly help. What is skewed belongs on logarithms or to order statistics, which keep their level under any noise."""

RARELY = f"""## What no number of seeds excludes

A statement about *every* seed, or every step, is refuted by one certified counterexample. That it is supported means
only that there was none among the seeds that were measured. Where {DIVERGE:.0%} of all seeds are counterexamples, it is
supported all the same in so many cases:"""

PROOF = "No interval mends that; a proof does, or a statement about a share of the seeds."


def _excess(rates: Sequence[Rates]) -> str:
    """Name the kinds whose errors are more than is allowed, beyond what the simulation's own error explains."""
    over = [r for r in rates if r.wrong[1] > ERROR]
    if not over:
        return f"No kind has more than {ERROR:.0%} wrong verdicts."
    worst = {
        kind.name: max((r for r in over if r.kind is kind), key=lambda r: r.wrong) for kind in KINDS if _any(over, kind)
    }
    return (
        f"**More than {ERROR:.0%} wrong verdicts**, at worst: "
        + "; ".join(f"{name} {_with_interval(r)} at {r.n} seeds" for name, r in worst.items())
        + "."
    )


def _any(rates: Sequence[Rates], kind: Kind) -> bool:
    return any(r.kind is kind for r in rates)


def _table(rates: Sequence[Rates]) -> str:
    head = (
        "kind",
        "seeds",
        "refuted at the edge, though true",
        "supported just beyond, though false",
        "wrong",
        "decided",
        "supported in the middle",
        "power halfway",
        "power far off",
    )
    rows = [_row(r) for r in rates]
    return "\n".join([f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)])


def _row(r: Rates) -> list[str]:
    shares = [r.refuted_though_true, r.supported_though_false]
    after = [r.counts["middle"]["supported"], r.counts["half"]["refuted"], r.counts["far"]["refuted"]]
    wrong = f"**{_with_interval(r)}**" if r.wrong[1] > ERROR else _with_interval(r)
    return [
        r.kind.name,
        str(r.n),
        *(_percent(hits / r.ledgers) for hits in shares),
        wrong,
        _percent(r.decided),
        *(_percent(hits / r.ledgers) for hits in after),
    ]


def _rarely(rates: Sequence[Rates]) -> list[str]:
    return [
        f"| seeds | {' | '.join(str(r.n) for r in rates)} |",
        f"|---|{'---|' * len(rates)}",
        f"| supported though false | {' | '.join(_with_interval(r) for r in rates)} |",
    ]


def _with_interval(r: Rates) -> str:
    share, low, high = map(_percent, r.wrong)
    return f"{share} [{low}, {high}]"


def _percent(share: float) -> str:
    return f"{share:.1%}"
