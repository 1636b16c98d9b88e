"""Tells from what s·BAx leaves over in which precision a layer computed."""

import numpy as np

from signal_drift.conformance.scaling import Observation

EPSILON = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
"""The relative spacing of each; TensorFloat-32 has that of float16."""
ONE_ROUNDING = 0.1
"""Below the root mean square error of one rounding, 0.2ε for numbers that are spread evenly over a power of two."""


def rounding_bound(seen: Observation, epsilon: float) -> float:
    """Bound ‖Δy − s·BAx‖/‖Δy‖ by rounding alone: ε(√n + ‖y(A, 0)‖/‖Δy‖), n the terms of the longest sum of BAx.

    One rounding is at most ε/2 of a number, and ε/(2√3) in the root mean square at most; twelve of them, independent,
    are ε, and those of a sum √n times that.
    """
    moved = float(np.linalg.norm(seen.change)) or np.inf
    return epsilon * (float(np.sqrt(_terms(seen))) + float(np.linalg.norm(seen.without)) / moved)


def dtypes(residual: float, seen: Observation) -> tuple[str, ...]:
    """List the dtypes whose rounding leaves so much over: from one rounding to `rounding_bound`.

    It is one where every sum has one term (n = 1), and may be two where sums are long. Nothing fits a residual that is
    above that of bfloat16.
    """
    return tuple(
        name
        for name, epsilon in EPSILON.items()
        if (ONE_ROUNDING * epsilon <= residual or name == "float64") and residual <= rounding_bound(seen, epsilon)
    )


def _terms(seen: Observation) -> int:
    """The terms of Ax and of B(Ax), zeros left out."""
    inputs = max(int(np.count_nonzero(row)) for row in seen.x)
    directions = int(np.count_nonzero(np.any(seen.A, axis=1) & np.any(seen.B, axis=0)))
    return max(1, inputs, directions)
