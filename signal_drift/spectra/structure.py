"""Says what sign structure a Hessian has: LoRA's ±λ pairs of H_Drift are a property of its map, not of P1."""

from typing import Literal

import numpy as np
from jaxtyping import Array, Float

from signal_drift.operators.operator import SymmetricOperator
from signal_drift.spectra.exact import eigenvalues

Structure = Literal["zero", "paired", "one-signed", "neither"]


def structure(drift: SymmetricOperator | Float[Array, "n n"] | Float[np.ndarray, "n n"]) -> Structure:
    """Tell the sign structure of H_Drift from its spectrum λ₁ ≤ … ≤ λ_n, to n·ε·‖H‖ times ten.

    "zero" is exactly zero, as for a map that is linear in θ; "paired" is λ_i = −λ_{n+1−i} for every i (X1), as for a
    map that is linear in each of two halves of θ; "one-signed" is no two eigenvalues of opposite sign; or "neither".
    Raises as `eigenvalues` does.

    >>> [structure(np.diag(x)) for x in ([0.0, 0.0], [1.0, -1.0], [1.0, 2.0], [-2.0, 1.0])]
    ['zero', 'paired', 'one-signed', 'neither']
    """
    spectrum = eigenvalues(drift)
    size = float(np.max(np.abs(spectrum)))
    error = 10 * len(spectrum) * float(np.finfo(float).eps) * size
    if size == 0:
        return "zero"
    if np.all(np.abs(spectrum + spectrum[::-1]) <= error):
        return "paired"
    return "one-signed" if spectrum[0] >= -error or spectrum[-1] <= error else "neither"
