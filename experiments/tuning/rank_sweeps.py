"""Set the sizes of the sweeps of F1a, F1b and F1c, and find the best points, exponents and gains in them."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from experiments.analysis.intervals import Estimate, difference_of, geometric_mean_of, mean_of
from experiments.analysis.sweeps import best_point, best_points, free_fit, is_cliff, root_fit, valley
from experiments.lab.errors import OptionError, check_ascending
from experiments.lab.problem import Problem, Tuning
from experiments.tuning.runs import Tuned, tuning_of

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
    """Return the sweeps of the size that the problem states, the grid's α in units of 1/σ_A.

    On a costly problem both paths start at the paper's 16 alone.
    """
    sizes, unit = tuning_of(problem), 1 / problem.typical_sigma()
    starts = (16.0,) if problem.costly else (16.0, _short(SAME_PLACE * unit))
    return Config(
        problem,
        sizes.seeds,
        sizes.steps,
        sizes.fft_rates,
        sizes.seeds,
        ranks=sizes.ranks,
        grid_ranks=sizes.grid_ranks,
        alphas=sizes.alphas,
        starts=starts,
        grid_alphas=tuple(_short(alpha * unit) for alpha in sizes.grid_alphas),
        grid_rates=sizes.grid_rates,
    )


def _short(value: float) -> float:
    """Round to six digits, which every machine finds alike."""
    return float(f"{value:.6g}")


def each_seed(data: xr.DataArray, *axes: str) -> np.ndarray:
    """Lay losses out as (seed, *axes)."""
    return data.transpose("seed", *axes).values


def grid_losses(data: xr.Dataset) -> np.ndarray:
    """Lay the losses of the (α, η) grid at one rank out as (seed, α, η)."""
    return each_seed(data.by_both, "grid_alpha", "grid_rate")


def best_alphas(config: Config, data: xr.Dataset) -> np.ndarray:
    """Return α* at η_FFT of every seed and rank, (seed, rank); NaN on the edge of the sweep."""
    return np.array([[b.x for b in best_points(config.alphas, x)] for x in each_seed(data.by_alpha, "rank", "alpha")])


def free_exponent(config: Config, data: xr.Dataset) -> Estimate:
    """Fit the slope of ln α* against ln r, seed by seed (F1c)."""
    return mean_of(np.array([free_fit(config.ranks, x).slope for x in best_alphas(config, data)]))


def coefficient(config: Config, data: xr.Dataset, unit: float = 0.0) -> Estimate:
    """Fit C of α* = C√r seed by seed, the slope fixed at ½ (Eq. 3), in units of σ_A to the power `unit`."""
    C = np.array([root_fit(config.ranks, x).prefactor for x in best_alphas(config, data)])
    return geometric_mean_of(C * config.problem.typical_sigma() ** -unit)


def coefficients_over_rate(config: Config, data: xr.Dataset) -> dict[float, Estimate]:
    """Fit C of α* = C√r at every η of the grid, as a multiple of η_FFT, where every seed has a best α inside it."""
    if not config.grid_alphas:
        return {}
    losses = each_seed(data.by_both.sel(rank=list(config.path_ranks)), "grid_rate", "rank", "grid_alpha")
    best = np.array([[[b.x for b in best_points(config.grid_alphas, at)] for at in seed] for seed in losses])
    C = np.exp(np.mean(np.log(best) - np.log(np.array(config.path_ranks)) / 2, axis=2))
    return {m: geometric_mean_of(x) for m, x in zip(config.grid_rates, C.T, strict=True) if np.isfinite(x).all()}


def steps_of_path(config: Config, data: xr.Dataset, start: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compare both paths from one α₀ at one rank, seed by seed (F1b, Eq. 2).

    Returns the best multiplier of α and of η, NaN where the best lies on the edge of the sweep, and ln of the lowest
    loss along η over that along α.
    """
    m = config.multipliers(start)
    along_alpha, along_rate = (
        [best_point(m, x) for x in each_seed(losses, "alpha")]
        for losses in (data.by_alpha, data.by_rate.sel(start=start))
    )
    deeper = [rate.log_loss - alpha.log_loss for alpha, rate in zip(along_alpha, along_rate, strict=True)]
    return np.array([b.x for b in along_alpha]), np.array([b.x for b in along_rate]), np.array(deeper)


def path_ratio(config: Config, data: xr.Dataset, start: float) -> Estimate:
    """Divide the best multiplier of α by that of η (F1b)."""
    alpha, rate, _ = steps_of_path(config, data, start)
    return geometric_mean_of(alpha / rate)


def path_depth(config: Config, data: xr.Dataset, start: float) -> Estimate:
    """Return ln of the lowest loss along η over that along α (F1b)."""
    return difference_of(steps_of_path(config, data, start)[2])


def room_above(config: Config, data: xr.Dataset, start: float) -> float:
    """Return the median over seeds of α*/α₀ at one rank: below 1 a path of α from there starts past its best."""
    return float(np.nanmedian(steps_of_path(config, data, start)[0]))


def purity_over_paths(config: Config, data: xr.Dataset, start: float) -> dict[float, Estimate]:
    """Divide signal to drift along α by that along η at one rank, near m = 4 and m = 16 (F2c)."""
    above = (data.purity_by_alpha / data.purity_by_rate.sel(start=start)).transpose("seed", "alpha")
    m = config.multipliers(start)
    near = [int(np.argmin(abs(np.log(m / 4.0**k)))) for k in (1, 2)]
    return {float(m[i]): geometric_mean_of(above.values[:, i]) for i in dict.fromkeys(near) if m[i] > 1}


def at_the_cliff(config: Config, data: xr.Dataset) -> str:
    """Say that full fine-tuning is at its cliff at η_FFT, so that what LoRA does there is a matter of stability."""
    losses = data.fft.isel({name: 0 for name in data.fft.dims if name != "fft_rate"}).values
    eta = float(data.eta_fft.values.flat[0])
    cliff = is_cliff(np.array(config.fft_rates), losses, eta)
    return f"full fine-tuning is at its cliff: twice η_FFT = {eta:.3g} undoes half of what it learned" if cliff else ""


def rate_exponents(config: Config, losses: np.ndarray) -> np.ndarray:
    """Fit the exponent of α in η* seed by seed, over the α whose best η was found (F1a)."""
    return np.array([free_fit(config.grid_alphas, valley(config.grid_rates, x)[0]).slope for x in losses])


def changes(config: Config, losses: np.ndarray) -> np.ndarray:
    """Return by how much each step of α changes the best ln loss, (seed, step); NaN next to an edge (F1a)."""
    return np.diff([valley(config.grid_rates, x)[1] for x in losses], axis=1)


def gains(config: Config, losses: np.ndarray) -> np.ndarray:
    """Return ln of the best loss at the smallest α over that at the largest, of those with a best η, by seed."""
    return np.array([_gain(valley(config.grid_rates, x)[1]) for x in losses])


def _gain(best: np.ndarray) -> float:
    found = best[np.isfinite(best)]
    return float(found[0] - found[-1]) if len(found) > 1 else np.nan


def wanted(config: Config, alpha: float, losses: np.ndarray) -> np.ndarray:
    """Return η*/η_FFT at one α of the grid, by seed."""
    place = config.grid_alphas.index(alpha)
    return np.array([best_point(config.grid_rates, x[place]).x for x in losses])
