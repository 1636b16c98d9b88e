"""Both ends of the four Hessians, certified, and what they are called in tables and figures."""

import numpy as np
import xarray as xr

import signal_drift as sd
from signal_drift.spectra.extremes import End

OPERATORS = ("task", "signal", "drift", "lora")
"""The four Hessians of a decomposition, by their names there."""
PLAIN = {"task": "H_ℓ", "signal": "H_Signal", "drift": "H_Drift", "lora": "H_LoRA"}
"""Their names in tables."""
SYMBOL = {"task": r"$H_\ell$", "signal": "$H_{Signal}$", "drift": "$H_{Drift}$", "lora": "$H_{LoRA}$"}
"""Their names in figures."""
STATES = ("initial", "trained")
"""Where curvature is taken: at B = 0, and after training."""


def certified(
    op: sd.SymmetricOperator, which: End = "largest", tolerance: float | None = None
) -> sd.ExtremeEigenvalues:
    """Return the outermost eigenvalue; NaN where the search ended without a certificate: no verdict rests on it."""
    found = sd.extreme_eigenvalues(op, which=which, tolerance=tolerance)
    return found if found.converged else found._replace(values=np.full_like(found.values, np.nan))


def lowest_over_highest(ends: xr.DataArray) -> xr.DataArray:
    """Divide λmin by λmax along the axis `end`, of "min" and "max"."""
    return ends.sel(end="min") / ends.sel(end="max")
