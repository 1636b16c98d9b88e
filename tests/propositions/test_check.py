"""A check says its tolerance and where that is from, its ratio, and what it does not claim."""

import math

import numpy as np
import pytest

from signal_drift.propositions.check import (
    Check,
    Tolerance,
    exact,
    failures,
    over,
    relative,
    rounding,
    spoiled,
    standard_errors,
)


def check(error: float, tolerance: Tolerance, control_error: float = 1.0, **assumptions: bool) -> Check:
    return Check("X0", "a = b", 1.0, 1.0, error, tolerance, "a = 2b", control_error, assumptions)


def test_rounding_is_terms_times_unit_times_scale():
    assert rounding(3, 2.0).value == 16 * 3 * 2.0**-52 * 2.0
    assert str(rounding(3, 2.0)) == "2.1e-14 (16·n·ε·scale; n = 3, scale = 2)"


def test_standard_errors_states_how_often_it_raises_a_false_alarm():
    tolerance = standard_errors(2.0, 3.0, 36)
    assert tolerance.value == 1.0
    assert "with probability 5e-02" in tolerance.rule  # two-sided, 2 standard errors: 4.6%
    assert "σ = 3, N = 36" in str(tolerance)


def test_exact_allows_no_error_at_all():
    tolerance = exact("a sum of zeros")
    assert str(tolerance) == "0 (exact: a sum of zeros)"
    assert check(0.0, tolerance).holds
    assert not check(1e-300, tolerance).holds


@pytest.mark.parametrize(
    ("error", "tolerance", "ratio"), [(0.0, 0.0, 0.0), (1e-300, 0.0, np.inf), (0.0, 2.0, 0.0), (3.0, 2.0, 1.5)]
)
def test_ratio(error, tolerance, ratio):
    one = check(error, Tolerance(tolerance, "", ""), control_error=error)
    assert over(error, tolerance) == one.ratio == one.control_ratio == ratio
    assert one.holds == (ratio <= 1) != one.refutes_control


def test_error_is_relative_to_a_scale_that_may_vanish():
    assert relative(np.array([0.0, -3.0]), 2.0) == 1.5
    assert relative(np.zeros(2), 0.0) == 0.0
    assert relative(np.ones(2), 0.0) == np.inf


def test_what_is_not_computed_neither_holds_nor_fails():
    nothing = check(np.nan, rounding(1, np.nan), np.nan, premise=False)
    assert not nothing.holds
    assert not nothing.refutes_control
    assert math.isnan(nothing.ratio)
    assert str(nothing) == "X0 says nothing here (not met: premise); its conclusion was not computed: a = b"
    assert failures([nothing]) == []


def test_number_that_is_missing_where_the_assumptions_are_met_is_a_failure():
    """NaN is no excuse."""
    broken = check(np.nan, rounding(1, 1.0), premise=True)
    assert str(broken).startswith("X0 FAILS: a = b")
    assert failures([broken]) == [str(broken)]


def test_failures_are_those_whose_assumptions_are_met():
    passed, failed = check(0.0, rounding(1, 1.0)), check(1.0, rounding(1, 1.0), premise=True)
    excused = check(1.0, rounding(1, 1.0), premise=False)
    assert failures([passed, failed, excused]) == [str(failed)]


def test_statement_that_holds_without_power_is_a_failure():
    """A comparison that passes its control as well, two tolerances off, would pass anything."""
    blind = check(0.0, Tolerance(2.0, "", ""), control_error=2.0, premise=True)
    assert failures([blind]) == [f"{blind}; has no power: its control passes: a = 2b"]
    assert failures([check(0.0, Tolerance(2.0, "", ""), control_error=2.0, premise=False)]) == []
    assert failures([check(0.0, Tolerance(2.0, "", ""), control_error=np.nan)]) != []
    assert failures([check(0.0, Tolerance(2.0, "", ""), control_error=2.1)]) == []


def test_control_is_two_tolerances_from_the_statement_towards_the_wrong_one():
    right, wrong = np.array([1.0, 2.0]), np.array([5.0, 4.0])
    np.testing.assert_allclose(spoiled(right, wrong, 0.5), [2.0, 2.5], rtol=1e-15)
    np.testing.assert_array_equal(spoiled(right, wrong, 2.0), wrong)
    np.testing.assert_array_equal(spoiled(right, wrong, 3.0), wrong)


def test_control_of_an_exact_statement_is_two_units_of_rounding_off():
    assert spoiled(1.0, 5.0, 0.0) - 1.0 == 2 * 2.0**-52
    assert spoiled(0.0, 5.0, 0.0) == 5.0


@pytest.mark.parametrize("made", [check(0.5, rounding(1, 1.0)), check(0.0, exact("zeros"), a=False)])
def test_check_is_one_line(made):
    assert "\n" not in str(made)


def test_equality_is_entry_by_entry_and_bound_against_zero():
    tolerance = Tolerance(0.25, "", "")
    one = Check.equality("X0", "a = b", [1.0, 2.0], [1.0, 2.5], tolerance, control=("a = 0", [0.0, 0.0]))
    assert (one.measured, one.predicted, one.error) == (2.0, 2.5, 0.5)
    assert one.control_error == pytest.approx(0.2, rel=1e-14)
    assert one.control == "two tolerances towards: a = 0"
    other = Check.bound("X0", "a ≥ 0", 0.25, rounding(1, 1.0), control=("a ≥ 1", 1.25))
    assert (other.measured, other.predicted, other.error, other.control_error) == (0.25, 0.0, 0.25, 1.25)
