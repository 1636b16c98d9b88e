"""What "diverges", "oscillates", "stable" and "unstable" mean: max_t ℓ_t / min_{u ≤ t} ℓ_u, the final loss (F2, L1).

The words of F2a were fixed, and committed, before any trajectory was seen.
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
    """max_t ℓ_t / min_{u ≤ t} ℓ_u: 1 for a descent, infinite for a loss that is not finite."""
    return float(np.max(loss / np.minimum.accumulate(loss))) if np.isfinite(loss).all() else np.inf


def behaviour(loss: Float[np.ndarray, "n"]) -> str:
    """The word for a trajectory, the first of these that applies.

    "diverges": not finite, or the median of the last `LAST` losses exceeds the initial loss (more than everything
    is undone). "oscillates": somewhere the loss climbs by more than `RISE` above its lowest value so far. "stable":
    neither.
    """
    if not np.isfinite(loss).all() or np.median(loss[-LAST:]) > loss[0]:
        return "diverges"
    return "oscillates" if largest_rise(loss) > RISE else "stable"


def jitter(norms: Float[np.ndarray, "n"]) -> float:
    """RMS of log n_t − (log n_{t−1} + log n_{t+1})/2 over the positive entries: how far, relatively, from smooth.

    Zero for every exponential rise or decay whatever its size, so that it measures fluctuation and not level.
    """
    log = np.log(norms[norms > 0])
    return float(np.sqrt(np.mean((log[1:-1] - (log[:-2] + log[2:]) / 2) ** 2)))


def per_run(function: Callable, trajectories: xr.DataArray) -> xr.DataArray:
    """A function of one trajectory to a number or a word, for every run and seed."""
    time = next(name for name in trajectories.dims if name in ("time", "step"))
    kind = object if function is behaviour else float
    return xr.apply_ufunc(function, trajectories, input_core_dims=[[time]], vectorize=True, output_dtypes=[kind])


def final(loss: xr.DataArray) -> xr.DataArray:
    """The median of the last losses over the initial loss."""
    return loss.isel(time=slice(-LAST, None)).median("time") / loss.isel(time=0)


def words(names: xr.DataArray) -> str:
    """How many of each: stable 4/5, oscillates 1/5."""
    found, counts = np.unique(names.values.astype(str), return_counts=True)
    return ", ".join(f"{name} {count}/{names.size}" for name, count in zip(found, counts, strict=True))


CRITERIA = ("first", "climbs", "exceeds")
ROUNDING = 1e-12
"""A relative rise of the loss below this is rounding."""


def unstable(criterion: str, loss: Float[np.ndarray, "n"]) -> bool:
    """Whether a trajectory of the loss is unstable; what is not finite is, by every criterion."""
    later, before = {
        "first": (loss[1:2], loss[0]),
        "climbs": (loss[1:], loss[:-1]),
        "exceeds": (loss[1:], loss[0]),
    }[criterion]
    return not np.all(later <= before * (1 + ROUNDING))


def critical_rate(is_unstable: Callable[[float], bool], low: float, high: float, halvings: int) -> float:
    """The η at which `is_unstable` turns true, by bisection in log η; NaN if it is true at `low` or false at `high`."""
    if is_unstable(low) or not is_unstable(high):
        return np.nan
    for _ in range(halvings):
        middle = float(np.sqrt(low * high))
        low, high = (low, middle) if is_unstable(middle) else (middle, high)
    return float(np.sqrt(low * high))
