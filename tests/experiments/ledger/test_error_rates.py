"""The simulated ledgers: their rate of wrong verdicts, what it would be if a rule were broken, and the page."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.special
import scipy.stats

from experiments.analysis.intervals import Estimate
from experiments.doors.error_rates import (
    KINDS,
    NOISES,
    NORMAL,
    RARE,
    SEEDS,
    Kind,
    Noise,
    Options,
    Truths,
    page,
    rates_of,
    write_rates,
)
from experiments.ledger.verdict import ERROR, Finding, Verdict, above, decide, near

LEDGERS = 400
TOO_MANY = scipy.stats.binom.ppf(1 - 1e-5, LEDGERS, ERROR)
"""Wrong verdicts of so many that a rate of 5% has with probability 1e-5: 40 of 400, a tenth."""


def by_name(name: str) -> Kind:
    return next(kind for kind in KINDS if kind.name.startswith(name))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_five_percent_of_verdicts_are_wrong_at_most(kind: Kind) -> None:
    rates = rates_of(NORMAL, kind, 5, LEDGERS)
    assert rates.refuted_though_true <= TOO_MANY
    assert rates.supported_though_false <= TOO_MANY
    assert all(counted.total() == LEDGERS for counted in rates.counts.values())


def _by_z(x: np.ndarray) -> Estimate:
    """A mean whose interval has the normal quantile in place of Student's."""
    mean, error = float(np.mean(x)), float(np.std(x, ddof=1) / np.sqrt(len(x)))

    def ends(level: float) -> tuple[float, float]:
        half = float(scipy.special.ndtri((1 + level) / 2)) * error
        return mean - half, mean + half

    return Estimate(mean, "", len(x), ends, lambda truth, rng: _by_z(x))


def test_a_wrong_quantile_is_found() -> None:
    """Eight quantities at n = 5 by z: each is refuted in 2.6% in place of 0.3%, all together in 19%."""

    def measure(rng: np.random.Generator, noise: Noise, truth: float, n: int) -> list[Estimate]:
        return [_by_z(truth + x) for x in noise.draw(rng, (8, n))]

    assert rates_of(NORMAL, Kind("z", near(0.0, 1.0, ""), measure), 5, LEDGERS).refuted_though_true > TOO_MANY


class Uncorrected(Kind):
    """Each of many findings decided for itself, as if it were alone."""

    def decided(self, rng: np.random.Generator, noise: Noise, truth: float, n: int) -> Verdict:
        each = [decide([Finding("", self.band, x)]).verdict for x in self.measure(rng, noise, truth, n)]
        return "refuted" if "refuted" in each else "inconclusive"


def test_without_holm_too_many_true_statements_are_refuted() -> None:
    """Eight times 2.5%: 18%."""
    kind = by_name("eight quantities, all")
    assert rates_of(NORMAL, Uncorrected(*kind), 10, LEDGERS).refuted_though_true > TOO_MANY


def test_a_skewed_mean_is_wrong_too_often_and_a_median_is_not() -> None:
    """The page warns of means of lognormal noise and not of medians, here at ten seeds."""
    lognormal = NOISES[1]
    assert rates_of(lognormal, by_name("paired difference > 0, mean"), 10, LEDGERS).refuted_though_true > TOO_MANY
    assert rates_of(lognormal, by_name("paired difference > 0, median"), 10, LEDGERS).refuted_though_true <= TOO_MANY


@pytest.mark.parametrize("n", SEEDS)
def test_rare_counterexamples_are_missed_as_often_as_chance_has_it(n: int) -> None:
    """0.9ⁿ, within 4.5 standard errors."""
    rate = 0.9**n
    found = rates_of(NORMAL, RARE, n, LEDGERS).supported_though_false / LEDGERS
    assert abs(found - rate) < 4.5 * np.sqrt(rate * (1 - rate) / LEDGERS) + 0.02  # the largest of three truths


@pytest.mark.parametrize(
    ("noise", "law"),
    list(zip(NOISES, (scipy.stats.norm(), scipy.stats.lognorm(1.0), scipy.stats.t(3)), strict=True)),
    ids=lambda x: x.name if isinstance(x, Noise) else "",
)
def test_noise_is_a_law_of_scipy_brought_to_mean_0_and_deviation_1(noise: Noise, law: Any) -> None:
    """The share of 200,000 draws that is below a quantile lies within 4.5 standard errors."""
    x = noise.draw(np.random.default_rng(0), (200_000,))
    for share in (0.1, 4 / 9, 0.9):
        assert noise.quantile(share) == pytest.approx((law.ppf(share) - law.mean()) / law.std(), rel=1e-9)
        assert abs(np.mean(x < noise.quantile(share)) - share) < 4.5 * np.sqrt(share * (1 - share) / len(x))


@pytest.mark.parametrize("kind", [*KINDS, RARE], ids=lambda kind: kind.name)
def test_truths_are_true_and_false_as_they_say(kind: Kind) -> None:
    truths, band = Truths.of(kind.band), kind.band
    margin = abs(band.near[-1] - band.ends[1 if np.isfinite(band.high) else 0])
    assert band.low <= truths.middle <= band.high
    assert min(abs(truths.edge - end) for end in band.ends) == 0
    for truth in (truths.beyond, truths.half, truths.far):
        assert not band.low <= truth <= band.high
    assert min(abs(truths.beyond - end) for end in band.ends) == pytest.approx(1e-3 * margin, rel=0.51)
    assert truths.far == band.near[-1]


def test_an_inequality_is_left_to_the_right_side() -> None:
    assert Truths.of(above(0.0, margin=1.0)) == pytest.approx((2.0, 0.0, -1e-3, -1.0, -2.0))
    assert Truths.of(near(0.0, 1.0, "")) == pytest.approx((0.0, -1.0, 1.001, 1.5, 2.0))


def test_a_staged_claim_stops_at_the_first_look_that_decides() -> None:
    asked: list[int] = []

    def measure(rng: np.random.Generator, noise: Noise, truth: float, n: int) -> list[Estimate]:
        asked.append(n)
        return by_name("staged").measure(rng, noise, truth, n)

    staged = by_name("staged")._replace(measure=measure)
    assert staged.decided(np.random.default_rng(0), NORMAL, 1000.0, 3) == "refuted"
    assert asked == [3]
    assert staged.decided(np.random.default_rng(0), NORMAL, 1.0, 3) == "inconclusive"
    assert asked[1:] == [3, 6, 12]


def test_the_page_has_every_kind_at_every_number_of_seeds(tmp_path: Path) -> None:
    write_rates(Options(ledgers=60, page=tmp_path / "page.md"))
    text = (tmp_path / "page.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if re.match(r"\|.*\| \d+ \|", line) and not line.startswith("| seeds")]
    named = Counter(row.split(" | ")[0].removeprefix("| ") for row in rows)
    assert named == {k.name: len(SEEDS) * (len(NOISES) if k.noisy else 1) for k in KINDS}
    assert all(row.partition(" | ")[2].count("%") == 9 for row in rows)
    assert not re.search(r"nan|inf\b|[{}]", text)
    assert all(f"## Noise: {noise.name}" in text for noise in NOISES)
    assert text.count("supported though false") == 1


def test_the_page_names_what_is_wrong_too_often() -> None:
    """38% wrong stand out; 5 of 100 do not."""
    kind = by_name("paired difference > 0, mean")
    few = rates_of(NORMAL, kind, 3, 100)
    many = few._replace(counts={**few.counts, "edge": Counter({"refuted": 38, "inconclusive": 62})})
    allowed = few._replace(counts={**few.counts, "edge": Counter({"refuted": 5, "inconclusive": 95})})
    others = [few._replace(noise=noise) for noise in NOISES[1:]]
    sentence = f"**More than 5% wrong verdicts**, at worst: {kind.name} 38.0% [28.5%, 48.3%] at 3 seeds."
    assert sentence in page([many, *others], 100)
    assert "More than 5%" not in page([allowed, *others], 100)
