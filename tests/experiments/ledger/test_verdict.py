"""Verdicts from intervals and bands, by an independent Holm over p-values of scipy's own tests."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import scipy.stats

from experiments.analysis.intervals import (
    Estimate,
    certified_between,
    correlation_of,
    exactly_known,
    geometric_mean_of,
    mean_of,
    median_of,
    quotient_of,
    share_of,
)
from experiments.ledger.verdict import (
    ERROR,
    MOST,
    Band,
    Finding,
    Verdict,
    above,
    at_least,
    at_most,
    below,
    decide,
    deciding,
    equal,
    exactly,
    magnitude,
    near,
    power,
    power_of,
    seeds_needed,
)

UNIT = Band(0.0, 1.0, "")


def between(low: float, high: float, value: float | None = None) -> Finding:
    """A quantity certain to lie between both, beside the band from 0 to 1."""
    return Finding("x", UNIT, certified_between((low + high) / 2 if value is None else value, low, high))


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (0.2, 0.8, "supported"),
        (0.0, 1.0, "supported"),
        (1.1, 2.0, "refuted"),
        (-2.0, -0.1, "refuted"),
        (0.5, 1.5, "inconclusive"),
        (-1.0, 2.0, "inconclusive"),
        (1.0, 1.0, "supported"),
        (1.0, 1.1, "inconclusive"),
        (np.nan, np.nan, "inconclusive"),
        (-np.inf, -np.inf, "refuted"),
    ],
)
def test_verdict_of_one_interval(low: float, high: float, wanted: Verdict) -> None:
    decided = decide([between(low, high)])
    assert (decided.verdict, decided.each) == (wanted, (wanted,))


def test_an_unbounded_interval_and_an_unknown_value_decide_nothing() -> None:
    for estimate in (
        certified_between(0.5, -np.inf, np.inf),
        certified_between(np.nan, 0.2, 0.8),
        certified_between(np.nan, 2.0, 3.0),
        certified_between(0.5, 0.2, np.nan),
        certified_between(2.5, 2.0, np.nan),
        mean_of(np.array([0.5, np.nan, 0.5])),
        mean_of(np.array([0.5, np.inf, 0.5])),
        mean_of(np.array([0.5])),
    ):
        assert decide([Finding("x", UNIT, estimate)]).each == ("inconclusive",)
        assert power_of(Finding("x", UNIT, estimate)) == 0 or estimate.n == 0
    everything = Finding("x", Band(-np.inf, np.inf, ""), mean_of(np.array([np.nan, 0.5])))
    assert decide([everything]).verdict == "inconclusive"


def _finding(wanted: str) -> Finding:
    return {"supported": between(0.5, 0.5), "refuted": between(2, 2), "inconclusive": between(0, 2)}[wanted]


@pytest.mark.parametrize(
    ("parts", "wanted", "place"),
    [
        (["supported", "supported"], "supported", 0),
        (["supported", "inconclusive"], "inconclusive", 1),
        (["inconclusive", "refuted", "supported", "refuted"], "refuted", 1),
        (["refuted"], "refuted", 0),
        (["supported"] * 9 + ["refuted"], "refuted", 9),
    ],
)
def test_verdict_of_several_and_the_finding_that_it_rests_on(parts: list[str], wanted: str, place: int) -> None:
    findings = [_finding(part) for part in parts]
    decided = decide(findings)
    assert decided.verdict == wanted
    assert decided.each == tuple(parts)
    assert deciding(findings, decided) == place


def test_no_finding_decides_nothing() -> None:
    assert decide([]).verdict == "inconclusive"


def holm(p: Sequence[float], level: float) -> list[bool]:
    """Holm's procedure by sorted p-values: step i is rejected while p₍ᵢ₎ ≤ level/(m − i)."""
    rejected = [False] * len(p)
    for i, place in enumerate(np.argsort(p)):
        if p[place] > level / (len(p) - i):
            break
        rejected[place] = True
    return rejected


def test_holm_by_hand() -> None:
    """0.05/4 = 0.0125, /3 = 0.0167, /2 = 0.025, /1 = 0.05."""
    assert holm([0.01, 0.04, 0.016, 0.024], 0.05) == [True, True, True, True]
    assert holm([0.01, 0.04, 0.017, 0.024], 0.05) == [True, False, False, False]
    assert holm([0.013, 0.013, 0.013, 0.013], 0.05) == [False] * 4
    assert holm([0.01, 0.06, 0.016, 0.024], 0.05) == [True, False, True, True]


BELOW_ZERO = Band(-np.inf, 0.0, "")


def with_p(p: float, n: int = 6) -> Finding:
    """A mean above 0, of which the two-sided p-value of scipy's t test against 0 is p."""
    z = np.arange(n) - (n - 1) / 2
    t = scipy.stats.t.isf(p / 2, n - 1)
    return Finding(f"p = {p}", BELOW_ZERO, mean_of(z + t * np.std(z, ddof=1) / np.sqrt(n)))


@pytest.mark.parametrize(
    "p",
    [
        [0.01, 0.04, 0.016, 0.024],
        [0.01, 0.04, 0.017, 0.024],
        [0.013, 0.013, 0.013, 0.013],
        [0.01, 0.06, 0.016, 0.024],
        [0.049],
        [0.051],
        [0.0249, 0.0499],
        [0.0251, 0.0249],
    ],
)
@pytest.mark.parametrize("looks", [1, 3])
def test_a_statement_is_refuted_at_holms_level_shared_by_the_looks(p: list[float], looks: int) -> None:
    findings = [with_p(x / looks) for x in p]
    decided = decide(findings, looks)
    for finding, x in zip(findings, p, strict=True):
        assert scipy.stats.ttest_1samp(_samples(finding), 0)[1] == pytest.approx(x / looks, rel=1e-9)
    assert [v == "refuted" for v in decided.each] == holm(p, 0.05)
    assert (decided.verdict == "refuted") == any(holm(p, 0.05))
    assert decided.confidence == pytest.approx(1 - 0.05 / looks)


def _samples(finding: Finding, n: int = 6) -> np.ndarray:
    return np.arange(n) - (n - 1) / 2 + finding.estimate.value


def test_a_quantity_refuted_alone_is_not_refuted_among_others() -> None:
    """p = 0.03 is refuted alone, open beside one that holds, and refuted beside one that is clear: Holm's, no other."""
    inside, clear = Finding("", BELOW_ZERO, mean_of(np.arange(6) - 9.0)), with_p(1e-6)
    assert decide([with_p(0.03)]).verdict == "refuted"
    assert decide([with_p(0.03), inside]).each == ("inconclusive", "supported")
    assert decide([with_p(0.03), clear]).each == ("refuted", "refuted")


def test_what_has_no_sampling_error_is_no_trial() -> None:
    """Nine exact quantities, within or apart, leave the level of a tenth as it was."""
    exact = [Finding("", BELOW_ZERO, exactly_known(x)) for x in [-1.0] * 5 + [1.0] * 4]
    for p, wanted in ((0.049, "refuted"), (0.051, "inconclusive")):
        assert decide([*exact, with_p(p)]).each == ("supported",) * 5 + ("refuted",) * 4 + (wanted,)
    assert decide([with_p(0.03), Finding("", BELOW_ZERO, mean_of(np.array([np.nan, 1.0])))]).verdict == "inconclusive"


def test_support_is_not_corrected_for_many_and_is_for_looks() -> None:
    """Each interval of 95% has to lie within; at three looks one of 98.3%."""
    finding = Finding("", at_least(0.0, ""), mean_of(_samples(with_p(0.04))))
    assert decide([finding] * 8).verdict == "supported"
    assert decide([finding], looks=3).verdict == "inconclusive"


def test_strict_inequality_leaves_its_end_out() -> None:
    for band, text in ((above(0.0), "> 0"), (above(1.0), "> 1"), (below(0.0), "< 0"), (below(-0.1), "< -0.1")):
        assert str(band) == text
    assert decide([Finding("x", above(0.0), exactly_known(0.0))]).verdict == "refuted"
    assert decide([Finding("x", below(1.0), exactly_known(1.0))]).verdict == "refuted"
    assert decide([Finding("x", above(0.0), certified_between(0.1, 0.0, 0.2))]).verdict == "inconclusive"


@pytest.mark.parametrize(
    ("band", "text"),
    [
        (at_least(0.5, ""), "≥ 0.5"),
        (at_most(0.1, ""), "≤ 0.1"),
        (exactly(0.0), "0"),
        (power(2), "1.9 to 2.1"),
        (equal(1.0), "0.95 to 1.05"),
        (magnitude(10.0), "3.162 to 31.62"),
        (at_least(-1e-12, ""), "≥ -1e-12"),
    ],
)
def test_band_says_what_it_allows(band: Band, text: str) -> None:
    assert str(band) == text


@pytest.mark.parametrize(
    ("band", "wanted"),
    [
        (power(-1.0), [-1.2, -0.8]),
        (equal(2.0), [1.8, 2.2]),
        (magnitude(10.0), [1.0, 100.0]),
        (above(0.0, margin=0.3), [-0.6]),
        (at_most(0.1, "", margin=0.2), [0.5]),
        (exactly(1.0), [0.9, 1.1]),
        (MOST, [0.0]),
    ],
)
def test_near_is_two_margins_off_what_is_stated(band: Band, wanted: list[float]) -> None:
    assert band.near == pytest.approx(wanted, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("n", [3, 6, 20])
@pytest.mark.parametrize(("margin", "trials", "looks"), [(0.5, 1, 1), (1.0, 1, 1), (1.0, 8, 1), (0.5, 2, 3)])
def test_power_of_a_mean_is_that_of_noncentral_t(n: int, margin: float, trials: int, looks: int) -> None:
    """P(t > tₙ₋₁ quantile) with noncentrality √n·2·margin/s, and the little beyond the other quantile, which misses
    nothing of an inequality; within 4.5 binomial errors of 200 experiments. One margin off is not the same number."""
    x = np.random.default_rng(n).standard_normal(n)
    x = (x - x.mean()) / np.std(x, ddof=1)
    quantile = scipy.stats.t.isf(ERROR / looks / trials / 2, n - 1)

    def closed(margins: float) -> float:
        return float(scipy.stats.nct.sf(quantile, n - 1, np.sqrt(n) * margins * margin))

    found = power_of(Finding("", at_most(0.0, "", margin=margin), mean_of(x)), trials, looks)
    assert abs(found - closed(2)) < 4.5 * np.sqrt(closed(2) * (1 - closed(2)) / 200) + 1 / 200


def test_power_has_the_number_of_margins_that_it_says() -> None:
    """At n = 10 one margin off gives 0.80, two give 0.9999: a power of the wrong truth would be found."""
    x = np.random.default_rng(0).standard_normal(10)
    x = (x - x.mean()) / np.std(x, ddof=1)
    assert power_of(Finding("", at_most(0.0, "", margin=1.0), mean_of(x))) > 0.97
    assert power_of(Finding("", at_most(0.0, "", margin=0.5), mean_of(x))) < 0.92


def test_power_of_a_share_is_a_sum_of_binomial_weights() -> None:
    """MOST, truth 0: no seed of six, whose interval ends at 0.459, is apart; none of five, at 0.522, is not."""
    assert power_of(Finding("", MOST, share_of(np.ones(6)))) == 1
    assert power_of(Finding("", MOST, share_of(np.ones(5)))) == 0
    found = power_of(Finding("", at_least(0.8, "", margin=0.2), share_of(np.ones(12))))
    apart = [k for k in range(13) if scipy.stats.beta.isf(0.025, k + 1, 12 - k) < 0.8]
    closed = scipy.stats.binom.pmf(apart, 12, 0.4).sum()
    assert abs(found - closed) < 4.5 * np.sqrt(closed * (1 - closed) / 200)


def test_a_spread_beyond_floating_point_has_hardly_any_power_and_no_warning() -> None:
    """Estimates lie apart by chance alone: 2.5% of 200, and 4.5 standard errors of it."""
    estimate = geometric_mean_of(np.array([1.0, 1.1, 1e300]))
    for band in (at_least(0.05, ""), at_most(0.95, "", margin=0.1), equal(1.0), magnitude(1.0)):
        assert power_of(Finding("", band, estimate)) < 0.075


def test_power_of_what_is_certain() -> None:
    assert power_of(Finding("", exactly(1.0), exactly_known(1.0))) == 1
    assert power_of(Finding("", near(1.0, 0.1, ""), exactly_known(1.0))) == 1
    assert power_of(Finding("", near(1.0, 0.1, ""), certified_between(1.0, 0.0, 2.0))) == 0


@pytest.mark.parametrize(
    "estimate",
    [
        mean_of(np.array([1.0, np.inf, 1.0, 1.0])),
        median_of(np.full(12, np.inf)),
        median_of(np.array([-np.inf] * 6 + [np.inf] * 6)),
        quotient_of(np.ones(4), np.zeros(4)),
        correlation_of(np.ones(5), np.arange(5.0)),
        correlation_of(np.arange(3.0), np.array([0.0, 2.0, 1.0])),
    ],
    ids=lambda e: e.method,
)
def test_what_is_unbounded_has_no_power_and_no_warning(estimate: Estimate) -> None:
    for band in (at_least(0.05, ""), at_most(0.95, "", margin=0.1), equal(1.0), magnitude(1.0)):
        assert power_of(Finding("", band, estimate)) == 0


@pytest.mark.parametrize(
    ("band", "value", "half", "wanted"),
    [
        (at_least(0.0, ""), 1.0, 2.0, 40),  # the gap is 1: half the width, four times the seeds
        (at_most(0.0, ""), 1.0, 2.0, 40),  # from outside it has to come clear of the end
        (at_least(0.0, ""), 1.0, 0.5, 10),  # decided: no fewer than there are
        (Band(0.0, 3.0, ""), 1.0, 2.5, 63),  # 10·2.5²: the nearer end
        (Band(0.0, 3.0, ""), 4.0, 2.0, 40),  # from outside only the nearer end counts
        (at_least(0.0, ""), 0.0, 2.0, None),  # on the end itself
        (Band(-np.inf, np.inf, ""), 0.0, 1.0, None),
        (at_least(0.0, ""), 1.0, np.inf, None),
    ],
)
def test_seeds_needed(band: Band, value: float, half: float, wanted: int | None) -> None:
    estimate = Estimate(value, "", 10, lambda level: (value - half, value + half), lambda truth, rng: estimate)
    assert seeds_needed(Finding("", band, estimate), 0.95) == wanted


def test_seeds_needed_clears_both_ends_of_a_band() -> None:
    """0.2 to the left, where 0.1 are wanted, is decided; 0.4 to the right, where 0.2 are, takes four times as many."""
    estimate = Estimate(1.0, "", 10, lambda level: (0.9, 1.4), lambda truth, rng: estimate)
    assert seeds_needed(Finding("", Band(0.81, 1.2, ""), estimate), 0.95) == 40
    assert seeds_needed(Finding("", exactly(1.0), exactly_known(2.0)), 0.95) is None


def test_so_many_seeds_decide_if_the_value_stays() -> None:
    """The samples repeated so many times over leave mean and spread, and half as many do not decide."""
    x = np.array([0.2, 1.0, 1.8, 0.6, 1.4, 1.0, 0.9, 1.1, 3.0, -1.0] * 2)
    finding = Finding("", at_least(0.8, ""), mean_of(x))
    assert decide([finding]).verdict == "inconclusive"
    times = [m * len(x) for m in range(1, 40)]
    decided = [decide([Finding("", finding.band, mean_of(np.tile(x, n // len(x))))]).verdict for n in times]
    first = times[decided.index("supported")]
    assert all(a == b or (a, b) == ("inconclusive", "supported") for a, b in pairwise(decided))
    needed = seeds_needed(finding, 0.95)
    assert needed is not None
    assert 0.8 * first <= needed <= 1.25 * first
