"""Checks up to which rate gradient descent on a quadratic stays bounded: L1-stability."""

import numpy as np

from signal_drift.propositions.check import Check, Tolerance
from signal_drift.propositions.subject import Instance
from signal_drift.spectra.exact import eigenvalues

SQUARINGS = 10
"""k: the iteration is followed for n = 2ᵏ steps."""
HALVINGS = 12
"""Bisections of the logarithm of the bracket."""
RULE = "what n steps and the last bracket resolve"


def critical_rate_is_two_over_lambda_max(x: Instance) -> Check:
    """Check that v ↦ (I − ηH_ℓ)v stays bounded iff η ≤ 2/λ_max, for H_ℓ ⪰ 0 and not 0 (L1-stability, Eq. 41–42)."""
    H = x.dense["task"]
    assumptions = {**x.convex, **x.curved}
    measured, predicted, tolerance = np.nan, np.nan, Tolerance(np.nan, RULE, "")
    if all(assumptions.values()):
        low, high = _critical_rate(H)
        measured, predicted = float(np.sqrt(low * high)), float(2 / eigenvalues(H)[-1])
        tolerance = _resolution(len(H), predicted, high / low)
    return Check.equality(
        "L1-stability",
        "the iteration v ↦ (I − ηH_ℓ)v stays bounded up to η = 2/λ_max(H_ℓ)",
        measured,
        predicted,
        tolerance,
        control=("up to 1/λ_max", predicted / 2),
        assumptions=assumptions,
    )


def _critical_rate(H: np.ndarray) -> tuple[float, float]:
    """A bounded and an unbounded η, bisected between 1/‖H‖_F and 4√D/‖H‖_F, as ‖H‖_F/√D ≤ λ_max ≤ ‖H‖_F."""
    size = float(np.linalg.norm(H))
    low, high = 1 / size, 4 * np.sqrt(len(H)) / size
    for _ in range(HALVINGS):
        middle = np.sqrt(low * high)
        low, high = (middle, high) if _stays_bounded(np.eye(len(H)) - middle * H) else (low, middle)
    return float(low), float(high)


def _stays_bounded(M: np.ndarray) -> bool:
    """‖Mⁿ‖_F ≤ 2√D for n = 2ᵏ, by k squarings: no contraction exceeds √D, and no power that does returns."""
    limit = 2 * np.sqrt(len(M))
    for _ in range(SQUARINGS):
        if np.linalg.norm(M) > limit:
            return False
        M = M @ M
    return bool(np.linalg.norm(M) <= limit)


def _resolution(D: int, rate: float, bracket: float) -> Tolerance:
    """At η = (1 + δ)·2/λ_max one eigenvalue is −(1 + 2δ), whose nth power is seen where it exceeds 2√D."""
    n = 2**SQUARINGS
    seen = ((2 * np.sqrt(D)) ** (1 / n) - 1) / 2
    value = float(rate * (seen + bracket - 1))
    return Tolerance(value, RULE, f"n = {n}: {seen:.1e}, bracket: {bracket - 1:.1e}, relative")
