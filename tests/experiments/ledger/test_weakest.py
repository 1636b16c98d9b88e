"""The finding of a control that convinces least is the one that is nearest to its band, in levels."""

import numpy as np
import pytest

from experiments.analysis.intervals import certified_between, exactly_known, mean_of
from experiments.ledger.verdict import Finding, apartness, at_most, weakest

BAND = at_most(0.0, "a band")


def finding(name: str, *samples: float) -> Finding:
    return Finding(name, BAND, mean_of(np.array(samples)))


def test_apartness_is_the_level_of_a_t_test():
    """The mean of the samples 1, 2, 3 is 2 = √12 standard errors; for 2 degrees of freedom p = 1 − t/√(t² + 2)."""
    p = 1 - np.sqrt(12 / 14)
    assert apartness(finding("", 1.0, 2.0, 3.0)) == pytest.approx(-np.log10(p), abs=1e-4)


def test_the_weakest_is_the_least_apart_whatever_its_place():
    far, near, within = finding("far", 9.0, 9.1, 9.2), finding("near", 1.0, 2.0, 3.0), finding("within", -1.0, -1.1)
    for every in ([far, near], [near, far]):
        assert [x.quantity for x in weakest(every)] == ["near"]
    assert [x.quantity for x in weakest([far, within, near])] == ["within"]
    assert weakest([]) == []


def test_what_has_no_sampling_error_is_apart_for_certain_or_not_at_all():
    wide, apart = certified_between(1.0, -1.0, 3.0), exactly_known(1.0)
    assert apartness(Finding("", BAND, apart)) == np.inf
    assert apartness(Finding("", BAND, wide)) == 0.0
    assert [x.quantity for x in weakest([Finding("apart", BAND, apart), Finding("wide", BAND, wide)])] == ["wide"]
    assert apartness(Finding("", BAND, exactly_known(np.nan))) == 0.0
