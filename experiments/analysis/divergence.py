"""Tell whether a run diverges, oscillates, is stable (F2) or unstable (L1), and at which rate it turns unstable.

The words of F2a and their thresholds were fixed, and committed, before any trajectory was seen.
"""

from collections.abc import Callable

import numpy as np
import xarray as xr
from jaxtyping import Float

LAST = 10
"""Values at the end whose median is the final loss of a run: a tenth of it, so that no single spike decides."""
RISE = 1.1
"""A climb of 10% above the lowest loss so far is seen on any axis; descent to rounding never climbs that far."""


def largest_rise(loss: Float[np.ndarray, "n"]) -> float:
    """Return max_t ℓ_t / min_{u ≤ t} ℓ_u: 1 for a descent, infinite for a loss that is not finite."""
    return float(np.max(loss / np.minimum.accumulate(loss))) if np.isfinite(loss).all() else np.inf


def classify(loss: Float[np.ndarray, "n"]) -> str:
    """Name how a trajectory of the loss goes, by the first of these words that applies.

    "diverges": not finite, or the median of the last `LAST` losses exceeds the initial loss (more than everything
    is undone). "oscillates": somewhere the loss climbs by more than `RISE` above its lowest value so far. "stable":
    neither.
    """
    if not np.isfinite(loss).all() or np.median(loss[-LAST:]) > loss[0]:
        return "diverges"
    return "oscillates" if largest_rise(loss) > RISE else "stable"


def jitter(norms: Float[np.ndarray, "n"]) -> float:
    """Return the RMS of log n_t − (log n_{t−1} + log n_{t+1})/2 over the positive entries: how far from smooth.

    Zero for every exponential rise or decay whatever its size, so that it measures fluctuation and not level.
    """
    log = np.log(norms[norms > 0])
    return float(np.sqrt(np.mean((log[1:-1] - (log[:-2] + log[2:]) / 2) ** 2)))


def per_run(function: Callable[[np.ndarray], float | str], trajectories: xr.DataArray) -> xr.DataArray:
    """Apply a function of one trajectory, to a number or a word, to every run and seed."""
    time = next(name for name in trajectories.dims if name in ("time", "step"))
    kind = object if function is classify else float
    return xr.apply_ufunc(function, trajectories, input_core_dims=[[time]], vectorize=True, output_dtypes=[kind])


def final(loss: xr.DataArray) -> xr.DataArray:
    """Divide the median of the last losses by the initial loss."""
    return loss.isel(time=slice(-LAST, None)).median("time") / loss.isel(time=0)


def counted(names: xr.DataArray) -> str:
    """Count each word: stable 4/5, oscillates 1/5."""
    found, counts = np.unique(names.values.astype(str), return_counts=True)
    return ", ".join(f"{name} {count}/{names.size}" for name, count in zip(found, counts, strict=True))


CRITERIA = ("first", "climbs", "exceeds")
"""Meanings of "unstable": the first step raises the loss, some step does, the loss passes its initial value."""
ROUNDING = 1e-12
"""A relative rise of the loss below this is rounding."""


def unstable(criterion: str, loss: Float[np.ndarray, "n"]) -> bool:
    """Tell whether a trajectory of the loss is unstable; one that is not finite is, by every criterion."""
    later, before = {
        "first": (loss[1:2], loss[0]),
        "climbs": (loss[1:], loss[:-1]),
        "exceeds": (loss[1:], loss[0]),
    }[criterion]
    return not np.all(later <= before * (1 + ROUNDING))


def critical_rate(is_unstable: Callable[[float], bool], low: float, high: float, halvings: int) -> float:
    """Find the η at which `is_unstable` turns true by bisection in log η; NaN if it is not between `low` and `high`."""
    if is_unstable(low) or not is_unstable(high):
        return np.nan
    for _ in range(halvings):
        middle = float(np.sqrt(low * high))
        low, high = (low, middle) if is_unstable(middle) else (middle, high)
    return float(np.sqrt(low * high))
