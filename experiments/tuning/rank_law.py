"""F1a, F1b, F1c: how the best α and η move together, the two paths of Eq. 2, and α*(r) ≈ C√r at η_FFT (Eq. 3).

The loss is the training loss after the last step ("fitting", Sec. 2), averaged over seeds as its logarithm.
"""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import xarray as xr

from experiments.analysis.intervals import Interval
from experiments.analysis.sweeps import Best, best_point, best_points, bootstrap, half_octaves, valley
from experiments.lab.errors import OptionError
from experiments.lab.experiment import Experiment, Report, Row, main
from experiments.problems.adaptation import Adaptations, fft_losses, fft_rate, lora_losses, width_of
from experiments.tuning import rank_law_figures
from experiments.tuning.rank_sweeps import (
    best_alphas,
    by_seed,
    free_exponent,
    gain,
    path_depth,
    path_ratio,
    paths,
    prefactor,
    rate_exponent,
    wanted,
)

WIDE = 128
"""From this width on a run costs seconds: fewer ranks, and the (α, η) grid at one of them."""
STATED_C = "≫ 1 (256–1024 on Llama)"


@dataclass(frozen=True)
class Config(Adaptations):
    """Sweeps over α at η_FFT for every rank, over η at α₀ and over both for a few ranks."""

    ranks: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    """Ranks r of the sweep over α (F1c)."""
    wide_ranks: tuple[int, ...] = (1, 4, 16, 64)
    """The same for widths of 128 and more, where a run costs twenty times as much."""
    grid_ranks: tuple[int, ...] = (1, 8, 64)
    """Ranks of the paths (F1b) and of the (α, η) grid (F1a)."""
    wide_grid_ranks: tuple[int, ...] = (16,)
    """The same for widths of 128 and more."""
    alphas: tuple[float, ...] = half_octaves(-2, 12)
    """Values of α; m·α₀ along the paths, with m·η_FFT for the same m."""
    alpha_0: float = 16.0
    """α₀, where the two paths of Eq. 2 start; the paper's value."""
    grid_alphas: tuple[float, ...] = tuple(4.0**k for k in range(-1, 7))
    """Values of α of the (α, η) grid."""
    grid_rates: tuple[float, ...] = tuple(10.0 ** (k / 2) for k in range(-6, 5))
    """Values of η of the grid, as multiples of η_FFT."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("ranks", "wide_ranks", "grid_ranks", "wide_grid_ranks", "alphas", "grid_alphas", "grid_rates"):
            if min(getattr(self, name), default=0) <= 0:
                raise OptionError(f"{name}: must be positive and not empty, got {getattr(self, name)}")

    def ranks_of(self, task: str) -> tuple[int, ...]:
        return self.wide_ranks if width_of(task) >= WIDE else self.ranks

    def grid_ranks_of(self, task: str) -> tuple[int, ...]:
        wanted = self.wide_grid_ranks if width_of(task) >= WIDE else self.grid_ranks
        return tuple(r for r in wanted if r in self.ranks_of(task))

    @property
    def multipliers(self) -> np.ndarray:
        """The m of Eq. 2: both paths are sampled alike."""
        return np.array(self.alphas) / self.alpha_0


def points(config: Config) -> list[dict]:
    return [
        {"task": task, "rank": rank, "seed": seed}
        for task in config.tasks
        for seed in range(config.seeds)
        for rank in config.ranks_of(task)
    ]


def measure(config: Config, task: str, rank: int, seed: int) -> xr.Dataset:
    """The log-loss after training: over α at η_FFT and, for some ranks, over m·η_FFT at α₀ and over the (α, η) grid."""
    adapted = config.task(task)
    eta = fft_rate(adapted)
    by_alpha = [(alpha, eta) for alpha in config.alphas]
    by_rate = [(config.alpha_0, m * eta) for m in config.multipliers]
    by_both = [(alpha, m * eta) for alpha in config.grid_alphas for m in config.grid_rates]
    everything = by_alpha + by_rate + by_both
    runs = everything if rank in config.grid_ranks_of(task) else by_alpha
    losses = np.full(len(everything), np.nan)
    losses[: len(runs)] = lora_losses(adapted, seed, rank, max(config.ranks_of(task)), runs, len(everything))
    split = np.split(losses, [len(by_alpha), len(by_alpha) + len(by_rate)])
    return xr.Dataset(
        {
            "by_alpha": ("alpha", split[0]),
            "by_rate": ("alpha", split[1]),
            "by_both": (("grid_alpha", "grid_rate"), split[2].reshape(len(config.grid_alphas), -1)),
            "fft": ("fft_rate", fft_losses(adapted)[seed]),
            "eta_fft": eta,
        },
        coords={
            "alpha": list(config.alphas),
            "grid_alpha": list(config.grid_alphas),
            "grid_rate": list(config.grid_rates),
            "fft_rate": list(config.fft_rates),
        },
        attrs={"training_dtype": config.dtype},
    )


def report(config: Config, data: xr.Dataset) -> Report:
    rows, sentences = [], []
    for task in config.tasks:
        here = data.sel(task=task, rank=list(config.ranks_of(task)))
        rows += _rate_rows(config, task, here) + _law_rows(config, task, here)
        sentences += _law_sentences(config, task, here)
        for rank in config.grid_ranks_of(task):
            rows += _path_rows(config, task, here.sel(rank=rank)) + _coupling_rows(config, task, here.sel(rank=rank))
    return Report(rows, sentences, rank_law_figures.draw(config, data))


def _rate_rows(config: Config, task: str, data: xr.Dataset) -> list[Row]:
    losses = data.fft.isel(rank=0).transpose("seed", "fft_rate").values
    best = best_point(config.fft_rates, losses.mean(0))
    interval = bootstrap(lambda x: best_point(config.fft_rates, x.mean(0)).x, losses).interval()
    return [Row(f"F1   η_FFT, {task}", "–", _shown(best), "–" if best.flag else interval)]


def _law_rows(config: Config, task: str, data: xr.Dataset) -> list[Row]:
    losses, ranks = by_seed(data.by_alpha), config.ranks_of(task)
    slope = free_exponent(config, task, data)
    C = bootstrap(partial(prefactor, config, task), losses)
    used = int(np.isfinite(best_alphas(config, losses)).sum())
    name = f"{task}, {used} of {len(ranks)} ranks"
    return [
        Row(f"F1c  free exponent of α* in r, {name}", "0.5", *_cells(slope)),
        Row(f"F1c  C of α* = C√r, {name}", STATED_C, *_cells(C)),
        Row(f"F1c  the same over 1/σ_A, {task}", "1 (V2)", *_cells(_scaled(C, width_of(task) ** -0.5))),
    ]


def _law_sentences(config: Config, task: str, data: xr.Dataset) -> list[str]:
    best = best_points(config.alphas, by_seed(data.by_alpha))
    found = ", ".join(f"{r}: {_shown(b)}" for r, b in zip(config.ranks_of(task), best, strict=True))
    note = " (flagged ones are not fitted)" if any(b.flag for b in best) else ""
    slope = free_exponent(config, task, data)
    contains = "contains" if slope.low <= 0.5 <= slope.high else "does not contain"
    law = f"the free exponent {slope} {slope.interval()} {contains} the stated ½"
    return [f"F1c, {task}: best α at η_FFT by rank: {found}{note}.", f"F1c, {task}: {law}."]


def _path_rows(config: Config, task: str, data: xr.Dataset) -> list[Row]:
    losses, where = paths(data), f"{task}, r = {int(data['rank'])}"
    along_alpha, along_rate = best_points(config.multipliers, losses)
    shown = f"{_shown(along_alpha)} : {_shown(along_rate)}"
    ratio, depth = path_ratio(config.multipliers, data), path_depth(config.multipliers, data)
    return [
        Row(f"F1b  best multiplier of α : of η from α₀ = {config.alpha_0:g}, {where}", "–", shown, "–"),
        Row(f"F1b  their ratio, {where}", "> 1", *_cells(ratio)),
        Row(f"F1b  ln of the lowest loss along η over that along α, {where}", "> 0", *_cells(depth)),
    ]


def _coupling_rows(config: Config, task: str, data: xr.Dataset) -> list[Row]:
    losses, where = data.by_both.transpose("seed", "grid_alpha", "grid_rate").values, f"{task}, r = {int(data['rank'])}"
    best = valley(config.grid_rates, losses)[1]
    steps = np.diff(best)[np.isfinite(np.diff(best))]
    exponent = bootstrap(partial(rate_exponent, config), losses)
    found = np.array(config.grid_alphas)[np.isfinite(best)]
    span = f"α = {found[0]:g} over α = {found[-1]:g}" if len(found) else "no α"
    rows = [
        Row(f"F1a  exponent of η* in α, {where}", "< 0", *_cells(exponent)),
        Row(f"F1a  steps of α that lower the best loss, {where}", "all", f"{np.sum(steps < 0)} of {len(steps)}", "–"),
        Row(f"F1a  ln best loss at {span}, {where}", "> 0", *_cells(bootstrap(partial(gain, config), losses))),
    ]
    for alpha in sorted({config.grid_alphas[0], config.alpha_0} & set(config.grid_alphas)):
        ratio = bootstrap(partial(wanted, config, alpha), losses)
        rows.append(Row(f"F1a  η*/η_FFT at α = {alpha:g}, {where}", "≈ 10 at small α", *_cells(ratio)))
    return rows


def _scaled(estimate: Interval, factor: float) -> Interval:
    return Interval(*(x * factor for x in estimate))


def _cells(estimate: Interval) -> tuple[str, str]:
    """Measured and interval; a best point on the edge of its grid gives neither."""
    return (str(estimate), estimate.interval()) if np.isfinite(estimate.mean) else ("on the edge", "–")


def _shown(best: Best) -> str:
    return best.flag or f"{best.x:.3g}"


EXPERIMENT = Experiment(
    name="rank_law",
    title="F1a, F1b, F1c: the best α and η together, along each path from (η_FFT, α₀), and over ranks.",
    paper=Config(),
    quick=replace(
        Config(),
        tasks=("digits", "mlp8"),
        depth=3,
        samples=20,
        digits_samples=30,
        steps=20,
        seeds=2,
        fft_rates=tuple(10.0 ** (k / 2) for k in range(-10, 1)),
        ranks=(1, 4, 8),
        grid_ranks=(4,),
        alphas=tuple(4.0**k for k in range(-1, 7)),
        grid_alphas=(0.25, 16.0, 1024.0),
    ),
    points=points,
    measure=measure,
    report=report,
)

if __name__ == "__main__":
    main(EXPERIMENT)
