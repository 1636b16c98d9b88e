"""The outcome of holding one statement against one model."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

SAFETY = 16.0
"""c in c·n·ε·scale: every operand of a sum is itself the result of a few such sums."""


class Tolerance(NamedTuple):
    """c·n·ε·scale, the rounding of n additions of terms that add up to `scale`."""

    terms: int
    scale: float

    @property
    def value(self) -> float:
        return SAFETY * self.terms * float(np.finfo(float).eps) * self.scale

    def __str__(self) -> str:
        return f"{self.value:.2g} = {SAFETY:g}·n·ε·scale with n = {self.terms}, scale = {self.scale:.3g}"


def rounding(terms: int, scale: float) -> Tolerance:
    return Tolerance(terms, float(scale))


def largest(x: Any) -> float:
    """The largest absolute entry."""
    return float(np.max(np.abs(np.asarray(x)), initial=0.0))


def relative(x: Any, scale: float) -> float:
    """The largest entry over the size of the terms it comes from; 0 if it is exactly 0, whatever the size."""
    size = largest(x)
    return size / scale if scale > 0 else (np.inf if size else 0.0)


@dataclass(frozen=True)
class Check:
    """Does the statement hold here? Assumptions are reported beside the conclusion, never folded into it.

    `error` is the largest deviation of `measured` from `predicted`; `control_error` the same for the statement
    `control`, which is wrong on purpose and must be told from the right one where the assumptions are met.
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
        """`measured` = `predicted` entry by entry; both are shown by their largest entry."""
        errors = (largest(np.asarray(measured) - np.asarray(wanted)) for wanted in (predicted, control[1]))
        error, control_error = errors
        shown = largest(measured), largest(predicted)
        return cls(claim, statement, *shown, error, tolerance, control[0], control_error, assumptions or {})

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
        """`excess` = 0, where it measures by how much the statement is violated."""
        return cls(claim, statement, excess, 0.0, excess, tolerance, control[0], control[1], assumptions or {})

    @property
    def holds(self) -> bool:
        return self.error <= self.tolerance.value

    @property
    def refutes_control(self) -> bool:
        return self.control_error > self.tolerance.value

    @property
    def applicable(self) -> bool:
        """Every assumption is met here."""
        return all(self.assumptions.values())

    def __str__(self) -> str:
        unmet = ", ".join(name for name, met in self.assumptions.items() if not met)
        verdict = "holds" if self.holds else "FAILS"
        note = f"says nothing here (not met: {unmet}); its conclusion {verdict}" if unmet else verdict
        errors = f"error {self.error:.2g}, control {self.control_error:.2g}, tolerance {self.tolerance}"
        return f"{self.claim} {note}: {self.statement}; {errors}"
