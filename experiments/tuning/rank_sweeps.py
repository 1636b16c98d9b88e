"""Set the sizes of the sweeps of F1a, F1b and F1c, and find the best points, exponents and gains in them."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import xarray as xr

from experiments.analysis.intervals import Interval, bootstrap, mean_interval
from experiments.analysis.sweeps import best_points, free_fit, root_fit, valley
from experiments.lab.errors import OptionError, check_ascending
from experiments.lab.problem import Problem, Tuning
from experiments.tuning.runs import Tuned, tuning_of

PATHS = ("α", "η")
SAME_PLACE = 0.2
"""α₀σ_A where the paper starts: α₀ = 16 at d_in = 2048 with Kaiming-uniform A (Llama-3 1B), so 0.2 of V2/√r."""


@dataclass(frozen=True)
class Config(Tuned):
    """Sweep over α at η_FFT for every rank, over η at α₀ and over both for a few ranks."""

    ranks: tuple[int, ...] = Tuning.ranks
    """Ranks r of the sweep over α (F1c)."""
    grid_ranks: tuple[int, ...] = Tuning.grid_ranks
    """Ranks among them of the two paths (F1b) and of the (α, η) grid (F1a)."""
    alphas: tuple[float, ...] = Tuning.alphas
    """Values of α; m·α₀ along one path, with m·η_FFT at α₀ for the same m along the other."""
    starts: tuple[float, ...] = (16.0,)
    """Values of α₀ where the two paths of Eq. 2 start: the paper's 16, and 0.2/σ_A, which is 16 on Llama-3 1B."""
    grid_alphas: tuple[float, ...] = Tuning.grid_alphas
    """Values of α of the (α, η) grid; empty for none."""
    grid_rates: tuple[float, ...] = Tuning.grid_rates
    """Values of η of the grid, as multiples of η_FFT."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("ranks", "grid_ranks", "alphas", "starts", "grid_rates"):
            if min(getattr(self, name), default=0) <= 0:
                raise OptionError(f"{name}: must be positive and not empty, got {getattr(self, name)}")
        if min(self.grid_alphas, default=1) <= 0:
            raise OptionError(f"grid_alphas: must be positive, got {self.grid_alphas}")
        check_ascending(self, "ranks", "grid_ranks", "alphas", "grid_alphas", "grid_rates")

    @property
    def path_ranks(self) -> tuple[int, ...]:
        """Return the ranks of the paths and of the grid: those of `grid_ranks` that are swept at all."""
        return tuple(rank for rank in self.grid_ranks if rank in self.ranks)

    def multipliers(self, start: float) -> np.ndarray:
        """Return the m of Eq. 2 from α₀ = `start`: both paths are sampled alike."""
        return np.array(self.alphas) / start


def configure(problem: Problem) -> Config:
    """Return the sweeps of the size that the problem states, the grid's α in units of 1/σ_A."""
    sizes, unit = tuning_of(problem), 1 / typical_sigma(problem)
    return Config(
        problem,
        sizes.seeds,
        sizes.steps,
        sizes.fft_rates,
        sizes.seeds,
        ranks=sizes.ranks,
        grid_ranks=sizes.grid_ranks,
        alphas=sizes.alphas,
        starts=(16.0, _short(SAME_PLACE * unit)),
        grid_alphas=tuple(_short(alpha * unit) for alpha in sizes.grid_alphas),
        grid_rates=sizes.grid_rates,
    )


def _short(value: float) -> float:
    """Round to six digits, which every machine finds alike."""
    return float(f"{value:.6g}")


def by_seed(losses: xr.DataArray) -> np.ndarray:
    """Lay losses out as (seed, rank, α)."""
    return losses.transpose("seed", "rank", ...).values


def grid_losses(data: xr.Dataset) -> np.ndarray:
    """Lay the losses of the (α, η) grid at one rank out as (seed, α, η)."""
    return data.by_both.transpose("seed", "grid_alpha", "grid_rate").values


def best_alphas(config: Config, losses: np.ndarray) -> np.ndarray:
    """Return α* of every rank, NaN on the edge."""
    return np.array([best.x for best in best_points(config.alphas, losses)])


def free_exponent(config: Config, data: xr.Dataset) -> Interval:
    """Fit the slope of ln α* against ln r, with its bootstrap interval over seeds."""
    return bootstrap(lambda x: free_fit(config.ranks, best_alphas(config, x)).slope, by_seed(data.by_alpha))


def coefficient(config: Config, data: xr.Dataset, unit: float = 0.0) -> Interval:
    """Fit C of α* = C√r, the slope fixed at ½ (Eq. 3), in units of σ_A to the power `unit`."""
    C = bootstrap(partial(_prefactor, config), by_seed(data.by_alpha))
    return Interval(*(x * typical_sigma(config.problem) ** -unit for x in C))


def typical_sigma(problem: Problem) -> float:
    """Return the geometric mean of σ_A over layers: σ_A itself where all layers have the same."""
    return float(np.exp(np.mean(np.log(list(problem.sigma_a().values())))))


def _prefactor(config: Config, losses: np.ndarray) -> float:
    return root_fit(config.ranks, best_alphas(config, losses)).prefactor


def paths(data: xr.Dataset) -> np.ndarray:
    """Lay the losses at one rank out as (seed, path, m): first along α, then along η (Eq. 2)."""
    return xr.concat([data.by_alpha, data.by_rate], "path").transpose("seed", "path", "alpha").values


def path_ratio(config: Config, data: xr.Dataset) -> Interval:
    """Divide the best multiplier of α by that of η (F1b)."""
    return bootstrap(lambda x: _compared(config.multipliers, x)[0], paths(data))


def path_depth(config: Config, data: xr.Dataset) -> Interval:
    """Return ln of the lowest loss along η over that along α (F1b)."""
    return bootstrap(lambda x: _compared(config.multipliers, x)[1], paths(data))


def _compared(multipliers: np.ndarray, losses: np.ndarray) -> tuple[float, float]:
    """Best multiplier of α over that of η, and ln of the lowest loss along η over that along α."""
    along_alpha, along_rate = best_points(multipliers, losses)
    if along_alpha.flag or along_rate.flag:
        return np.nan, np.nan
    return along_alpha.x / along_rate.x, along_rate.log_loss - along_alpha.log_loss


def purity_over_paths(config: Config, data: xr.Dataset) -> dict[float, Interval]:
    """Divide signal to drift along α by that along η at one rank, for every m = 4, 16, 64, … that was run (F2c)."""
    above = np.exp(np.log(data.purity.sel(path="α")) - np.log(data.purity.sel(path="η")))
    return {
        float(m): mean_interval(above.sel(alpha=alpha).values)
        for m, alpha in zip(config.multipliers, config.alphas, strict=True)
        if m > 1 and np.log2(m) % 2 == 0
    }


def rate_exponent(config: Config, losses: np.ndarray) -> float:
    """Fit the exponent of α in η*, over the α whose best η was found (F1a)."""
    return free_fit(config.grid_alphas, valley(config.grid_rates, losses)[0]).slope


def lowering(config: Config, losses: np.ndarray) -> np.ndarray:
    """Say of every step of α between two best losses whether it lowers them (F1a)."""
    steps = np.diff(valley(config.grid_rates, losses)[1])
    return steps[np.isfinite(steps)] < 0


def gain(config: Config, losses: np.ndarray) -> float:
    """Return ln of the best loss at the smallest α over that at the largest, of those with a best η."""
    found = valley(config.grid_rates, losses)[1]
    found = found[np.isfinite(found)]
    return float(found[0] - found[-1]) if len(found) > 1 else np.nan


def wanted(config: Config, alpha: float, losses: np.ndarray) -> float:
    """Return η*/η_FFT at one α of the grid."""
    return float(valley(config.grid_rates, losses)[0][config.grid_alphas.index(alpha)])
