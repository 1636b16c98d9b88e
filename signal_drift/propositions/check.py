"""Defines what comes of holding one statement against one instance: a check, and its tolerance."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from signal_drift.display import Table, displayed_as, number

SAFETY = 16.0
"""c in c·n·ε·scale: every operand of a sum is itself the result of a few such sums."""


class Tolerance(NamedTuple):
    """Says how large an error is no evidence, by which rule it is derived, and from which numbers."""

    value: float
    rule: str
    numbers: str

    def __str__(self) -> str:
        return f"{self.value:.2g} ({self.rule}; {self.numbers})" if self.numbers else f"{self.value:.2g} ({self.rule})"


def rounding(terms: int, scale: float) -> Tolerance:
    """Bound the rounding of n additions of terms that add up to `scale` by c·n·ε·scale."""
    value = SAFETY * terms * float(np.finfo(float).eps) * float(scale)
    return Tolerance(value, f"{SAFETY:g}·n·ε·scale", f"n = {terms}, scale = {scale:.3g}")


def standard_errors(count: float, deviation: float, draws: int) -> Tolerance:
    """Allow a mean of N draws of the known standard deviation σ an error of `count` times σ/√N."""
    alarms = math.erfc(count / math.sqrt(2))
    rule = f"{count:g} standard errors σ/√N: a true statement fails with probability {alarms:.0e}"
    return Tolerance(count * deviation / math.sqrt(draws), rule, f"σ = {deviation:.3g}, N = {draws}")


def exact(reason: str) -> Tolerance:
    """Allow no error, where there is a reason for no rounding at all."""
    return Tolerance(0.0, f"exact: {reason}", "")


NEARNESS = 2.0
"""Tolerances between a statement and its control: twice the smallest error that the comparison has to notice."""
TOWARDS = "two tolerances towards: "
"""What the name of a control begins with that lies between the statement and a wrong one."""


def spoiled(predicted: Any, wrong: Any, tolerance: float) -> np.ndarray:
    """Move what is predicted towards what a wrong statement says until the farthest entry is two tolerances off.

    Two units of rounding of the largest entry where the tolerance is less; all the way where both are nearer than that.
    """
    right, gap = np.asarray(predicted), np.asarray(wrong) - np.asarray(predicted)
    step = NEARNESS * max(tolerance, float(np.finfo(float).eps) * largest(right))
    return np.asarray(right + gap * (step / largest(gap)) if 0 < step < largest(gap) else wrong)


def largest(x: Any) -> float:
    """Return the largest absolute entry, 0 if there is none."""
    return float(np.max(np.abs(np.asarray(x)), initial=0.0))


def relative(x: Any, scale: float) -> float:
    """Divide the largest entry by the size of the terms it comes from; 0 if it is exactly 0, whatever the size."""
    return over(largest(x), scale)


def worst(*errors: float) -> float:
    """Return the largest error, NaN if one of them is: what could not be computed is not left out."""
    return float(np.max(errors))


def below_zero(x: float) -> float:
    """Return by how much x lies below 0, and NaN for NaN."""
    return float(np.maximum(-x, 0.0))


def over(error: float, tolerance: float) -> float:
    """Return error/tolerance; 0 if both are 0, infinite if only the tolerance is, NaN where it has no bound."""
    if not math.isfinite(tolerance):
        return math.nan
    if tolerance == 0:
        return 0.0 if error == 0 else error * np.inf
    return error / tolerance


@dataclass(frozen=True, repr=False)
class Check:
    """Says whether a statement holds here; assumptions are reported beside the conclusion, never folded into it.

    `error` is the largest deviation of `measured` from `predicted`; `control_error` the same for the statement
    `control`, which is wrong on purpose and must be told from the right one where the assumptions are met. All four
    are NaN where an assumption that the conclusion cannot even be computed without is not met.
    """

    claim: str
    statement: str
    measured: float
    predicted: float
    error: float
    tolerance: Tolerance
    control: str
    control_error: float
    assumptions: Mapping[str, bool] = field(default_factory=dict)

    @classmethod
    def equality(
        cls,
        claim: str,
        statement: str,
        measured: Any,
        predicted: Any,
        tolerance: Tolerance,
        *,
        control: tuple[str, Any],
        assumptions: Mapping[str, bool] | None = None,
    ) -> "Check":
        """Compare `measured` with `predicted` entry by entry; both are shown by their largest entry.

        The control is not what `control` says but two tolerances from the statement towards it.
        """
        wrong = spoiled(predicted, control[1], tolerance.value)
        error, control_error = (largest(np.asarray(measured) - np.asarray(x)) for x in (predicted, wrong))
        name, shown = f"{TOWARDS}{control[0]}", (largest(measured), largest(predicted))
        return cls(claim, statement, *shown, error, tolerance, name, control_error, assumptions or {})

    @classmethod
    def bound(
        cls,
        claim: str,
        statement: str,
        excess: float,
        tolerance: Tolerance,
        *,
        control: tuple[str, float],
        assumptions: Mapping[str, bool] | None = None,
    ) -> "Check":
        """Compare with 0 the `excess` by which the statement is violated."""
        return cls(claim, statement, excess, 0.0, excess, tolerance, control[0], control[1], assumptions or {})

    @property
    def holds(self) -> bool:
        """Say whether the error is within the tolerance, which has to be finite."""
        return self.error <= self.tolerance.value < math.inf

    @property
    def refutes_control(self) -> bool:
        """Say whether the error of the control is beyond the tolerance."""
        return self.control_error > self.tolerance.value

    @property
    def applicable(self) -> bool:
        """Say whether every assumption is met here."""
        return all(self.assumptions.values())

    @property
    def ratio(self) -> float:
        """Return the error in units of the tolerance: at most 1 where the statement holds."""
        return over(self.error, self.tolerance.value)

    @property
    def control_ratio(self) -> float:
        """Return the control's error in units of the tolerance: above 1 where it is refuted."""
        return over(self.control_error, self.tolerance.value)

    def __repr__(self) -> str:
        computed = self.applicable or not math.isnan(self.error)
        verdict = ("holds" if self.holds else "FAILS") if computed else "was not computed"
        unmet = ", ".join(name for name, met in self.assumptions.items() if not met)
        note = f"says nothing here (not met: {unmet}); its conclusion {verdict}" if unmet else verdict
        errors = f"error {self.error:.2g}, control {self.control_error:.2g}, tolerance {self.tolerance}"
        return f"{self.claim} {note}: {self.statement}" + f"; {errors}" * computed


class Checks(tuple[Check, ...]):
    """Holds the checks of one instance."""

    __slots__ = ()


def failures(checks: Iterable[Check]) -> list[str]:
    """List what a test asserts to be empty, in one line each, of the checks whose assumptions are met.

    Each statement that fails, and each that holds without power: its control, two tolerances off, passes as well.
    """
    found = list(checks)
    return [
        *(str(check) for check in _failed(found)),
        *(f"{check}; has no power: its control passes: {check.control}" for check in _blind(found)),
    ]


def _failed(checks: Iterable[Check]) -> list[Check]:
    return [check for check in checks if check.applicable and not check.holds]


def _blind(checks: Iterable[Check]) -> list[Check]:
    """Those that hold and would have held whatever is true."""
    return [check for check in checks if check.applicable and check.holds and not check.refutes_control]


def _table(checks: Checks) -> Table:
    rows = [(c.claim, c.statement, _outcome(c), number(c.ratio), number(c.control_ratio)) for c in checks]
    failed, blind = len(_failed(checks)), len(_blind(checks))
    outcome = f"{f'{failed} FAIL' if failed else 'none fails'}{f', {blind} without power' if blind else ''}"
    title = f"{len(checks)} checks, {outcome} where the assumptions are met"
    return Table(title, ("claim", "statement", "", "error/tolerance", "of the control"), rows)


def _outcome(check: Check) -> str:
    unmet = ", ".join(name for name, met in check.assumptions.items() if not met)
    if unmet:
        return f"not met: {unmet}"
    return "FAILS" if not check.holds else "holds" if check.refutes_control else "holds, without power"


displayed_as(_table)(Checks)
