"""Verdicts from intervals and bands."""

import numpy as np
import pytest

from experiments.analysis.intervals import Interval, point
from experiments.ledger.verdict import (
    Band,
    Finding,
    above,
    at_least,
    at_most,
    below,
    deciding,
    equal,
    exactly,
    magnitude,
    power,
    verdict,
)

UNIT = Band(0.0, 1.0, "")


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (0.2, 0.8, "supported"),
        (0.0, 1.0, "supported"),
        (1.1, 2.0, "refuted"),
        (-2.0, -0.1, "refuted"),
        (0.5, 1.5, "inconclusive"),
        (-1.0, 2.0, "inconclusive"),
        (-np.inf, np.inf, "inconclusive"),
        (1.0, 1.0, "supported"),
        (np.nan, np.nan, "inconclusive"),
        (-np.inf, -np.inf, "refuted"),
    ],
)
def test_verdict_of_one_interval(low: float, high: float, wanted: str) -> None:
    assert Finding("x", UNIT, Interval((low + high) / 2, low, high)).verdict == wanted


def _finding(wanted: str) -> Finding:
    return Finding(
        wanted, UNIT, {"supported": point(0.5), "refuted": point(2), "inconclusive": Interval(1, 0, 2)}[wanted]
    )


@pytest.mark.parametrize(
    ("parts", "wanted"),
    [
        (["supported", "supported"], "supported"),
        (["supported", "inconclusive"], "inconclusive"),
        (["inconclusive", "refuted", "supported"], "refuted"),
        (["refuted"], "refuted"),
        ([], "inconclusive"),
    ],
)
def test_verdict_of_several(parts: list[str], wanted: str) -> None:
    findings = [_finding(part) for part in parts]
    assert verdict(findings) == wanted
    if parts:
        assert deciding(findings).quantity == wanted


def test_strict_inequality_leaves_its_end_out() -> None:
    for band, text in ((above(0.0), "> 0"), (above(1.0), "> 1"), (below(0.0), "< 0"), (below(-0.1), "< -0.1")):
        assert str(band) == text
    assert Finding("x", above(0.0), point(0.0)).verdict == "refuted"
    assert Finding("x", below(1.0), point(1.0)).verdict == "refuted"
    assert Finding("x", above(0.0), Interval(0.1, 0.0, 0.2)).verdict == "inconclusive"


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
