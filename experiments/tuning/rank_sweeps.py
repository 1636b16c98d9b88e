"""What follows from the sweeps of F1a, F1b and F1c: best points, exponents and gains, with intervals over seeds."""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from experiments.analysis.intervals import Interval
from experiments.analysis.sweeps import best_points, bootstrap, free_fit, root_fit, valley

if TYPE_CHECKING:
    from experiments.tuning.rank_law import Config


def by_seed(losses: xr.DataArray) -> np.ndarray:
    return losses.transpose("seed", "rank", ...).values


def best_alphas(config: "Config", losses: np.ndarray) -> np.ndarray:
    return np.array([best.x for best in best_points(config.alphas, losses)])


def free_exponent(config: "Config", task: str, data: xr.Dataset) -> Interval:
    """The slope of ln α* against ln r, with its bootstrap interval over seeds."""
    ranks = config.ranks_of(task)
    return bootstrap(lambda x: free_fit(ranks, best_alphas(config, x)).slope, by_seed(data.by_alpha))


def prefactor(config: "Config", task: str, losses: np.ndarray) -> float:
    """C of α* = C√r, the slope fixed at ½ (Eq. 3)."""
    return root_fit(config.ranks_of(task), best_alphas(config, losses)).prefactor


def paths(data: xr.Dataset) -> np.ndarray:
    """(seed, path, m) at one rank: first along α, then along η (Eq. 2)."""
    return xr.concat([data.by_alpha, data.by_rate], "path").transpose("seed", "path", "alpha").values


def path_ratio(multipliers: np.ndarray, data: xr.Dataset) -> Interval:
    """Best multiplier of α over that of η (F1b)."""
    return bootstrap(lambda x: _compared(multipliers, x)[0], paths(data))


def path_depth(multipliers: np.ndarray, data: xr.Dataset) -> Interval:
    """Ln of the lowest loss along η over that along α (F1b)."""
    return bootstrap(lambda x: _compared(multipliers, x)[1], paths(data))


def _compared(multipliers: np.ndarray, losses: np.ndarray) -> tuple[float, float]:
    """Best multiplier of α over that of η, and ln of the lowest loss along η over that along α."""
    along_alpha, along_rate = best_points(multipliers, losses)
    if along_alpha.flag or along_rate.flag:
        return np.nan, np.nan
    return along_alpha.x / along_rate.x, along_rate.log_loss - along_alpha.log_loss


def rate_exponent(config: "Config", losses: np.ndarray) -> float:
    return free_fit(config.grid_alphas, valley(config.grid_rates, losses)[0]).slope


def gain(config: "Config", losses: np.ndarray) -> float:
    """The logarithm of the best loss at the smallest α over that at the largest, of those with a best η."""
    found = valley(config.grid_rates, losses)[1]
    found = found[np.isfinite(found)]
    return float(found[0] - found[-1]) if len(found) > 1 else np.nan


def wanted(config: "Config", alpha: float, losses: np.ndarray) -> float:
    return float(valley(config.grid_rates, losses)[0][config.grid_alphas.index(alpha)])
