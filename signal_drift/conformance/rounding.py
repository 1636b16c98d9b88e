"""Tells from what s·BAx leaves over in which precision a layer computed."""

import numpy as np

from signal_drift.conformance.framework import DTYPES
from signal_drift.conformance.scaling import Observation

EPSILON: dict[str, float] = dict(zip(DTYPES, (2.0**-52, 2.0**-23, 2.0**-10, 2.0**-7), strict=True))
"""The relative spacing of each; TensorFloat-32 has that of float16."""
ONE_ROUNDING = 0.1
"""Below the root mean square error of one rounding, 0.2ε for numbers that are spread evenly over a power of two."""


SUBNORMAL = {"float16": 2.0**-24}
"""The spacing of the smallest numbers, where it is large enough to be met."""


def rounding_bound(seen: Observation, epsilon: float, s: float | None = None) -> float:
    """Bound ‖Δy − s·BAx‖/‖Δy‖ by rounding alone: ε(√n + ‖y(A, 0)‖/‖Δy‖), n the terms of the longest sum of BAx.

    ‖Δy‖ is as it is seen, or ‖s·BAx‖ where s is given: from 1 on s·BAx is lost in the rounding of W₀x.

    One rounding is at most ε/2 of a number, and ε/(2√3) in the root mean square at most; twelve of them, independent,
    are ε, and those of a sum √n times that.
    """
    moved = float(np.linalg.norm(seen.change if s is None else s * seen.product)) or np.inf
    return epsilon * (float(np.sqrt(_terms(seen))) + float(np.linalg.norm(seen.without)) / moved)


def underflow_bound(seen: Observation, dtype: str, s: float) -> float:
    """Bound what is left over of s·BAx by the smallest numbers alone: δ√n(√(n_x d_out) + √d_out‖Ax‖)/‖s·BAx‖.

    δ is their spacing: the outputs are rounded to it, and sB, if s is multiplied into B, which Ax then multiplies.
    """
    P, Ax = seen.product, np.asarray(seen.x, float) @ np.asarray(seen.A, float).T
    rounded = P.size**0.5 + P.shape[1] ** 0.5 * float(np.linalg.norm(Ax))
    return SUBNORMAL.get(dtype, 0.0) * float(np.sqrt(_terms(seen))) * rounded / (abs(s) * float(np.linalg.norm(P)))


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
