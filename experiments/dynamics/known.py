"""Write the mean of the samples that are known: what has no certificate or was not bracketed is NaN, and no number."""

from collections.abc import Callable

import numpy as np
import xarray as xr

from experiments.analysis.intervals import Estimate, mean_of


def known(values: xr.DataArray | np.ndarray) -> np.ndarray:
    """Return the samples that are finite."""
    found = np.asarray(values, float).ravel()
    return found[np.isfinite(found)]


def mean_cells(values: xr.DataArray | np.ndarray, of: Callable[[np.ndarray], Estimate] = mean_of) -> tuple[str, str]:
    """Write the estimate of the known samples and its interval for a table, "unknown" where there are none."""
    found = known(values)
    return of(found).cells("unknown") if found.size else ("unknown", "–")
