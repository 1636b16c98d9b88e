"""F1b on the pretrained encoder: from (η_FFT, α₀), more α against more η (Eq. 2)."""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import xarray as xr

from experiments.analysis.intervals import Interval, mean_interval
from experiments.analysis.sweeps import best_points
from experiments.lab.errors import OptionError, check_ascending, check_positive
from experiments.lab.experiment import Experiment, Report, Row, main
from experiments.tuning import rates as minilm_rates
from experiments.tuning.methods import Recipe
from experiments.tuning.rank_sweeps import path_depth, path_ratio, paths
from experiments.tuning.rates import SMALL, fft_rate, log_losses
from experiments.tuning.runs import Training, outcome
from signal_drift import plotting

PATHS = ("α", "η")


@dataclass(frozen=True)
class Config(Training):
    """Both paths at one rank, over the same multipliers."""

    rank: int = 8
    """r of every adapter."""
    alpha_0: float = 16.0
    """α₀, where the two paths start; the paper's value."""
    alphas: tuple[float, ...] = (4.0, 16.0, 64.0, 256.0, 1024.0)
    """Values of α at η_FFT; m·α₀ along one path, with m·η_FFT at α₀ for the same m along the other."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "rank")
        if min(self.alphas, default=0) <= 0 or self.alpha_0 <= 0:
            raise OptionError(f"alphas: must be positive and not empty, got {self.alphas} with α₀ = {self.alpha_0}")
        check_ascending(self, "alphas")

    @property
    def multipliers(self) -> np.ndarray:
        """The m of Eq. 2."""
        return np.array(self.alphas) / self.alpha_0


def points(config: Config) -> list[dict]:
    return [{"seed": seed, "alpha": alpha} for seed in range(config.seeds) for alpha in config.alphas]


def measure(config: Config, first: xr.Dataset, seed: int, alpha: float) -> xr.Dataset:
    """One step of both paths; where they start they are one run."""
    eta, m = fft_rate(first), alpha / config.alpha_0
    layers = config.encoder("float32").base

    def run(alpha: float, rate: float) -> xr.Dataset:
        return outcome(config, seed, rate, Recipe(dict.fromkeys(layers, alpha / config.rank)), config.rank)

    along = [run(alpha, eta)]
    along.append(run(config.alpha_0, m * eta) if m != 1 else along[0])
    return xr.concat(along, xr.IndexVariable("path", list(PATHS))).assign(learning_rate=eta)


def as_sweep(data: xr.Dataset) -> xr.Dataset:
    """The log-losses as `rank_law` stores them."""
    losses = log_losses(data)
    return xr.Dataset({"by_alpha": losses.sel(path="α", drop=True), "by_rate": losses.sel(path="η", drop=True)})


def purer(config: Config, data: xr.Dataset) -> dict[float, Interval]:
    """For every m > 1: signal to drift along α over that along η, geometric means over the steps after the first."""
    ratio = np.log(data.signal / data.drift).isel(step=slice(1, None)).mean("step")
    above = np.exp(ratio.sel(path="α") - ratio.sel(path="η"))
    return {
        float(m): mean_interval(above.sel(alpha=alpha).values)
        for m, alpha in zip(config.multipliers, config.alphas, strict=True)
        if m > 1
    }


def report(config: Config, data: xr.Dataset) -> Report:
    sweep, where = as_sweep(data), f"{config.name}, r = {config.rank}"
    best = best_points(config.multipliers, paths(sweep))
    shown = " : ".join(f"{b.x:.3g}" if not b.flag else b.flag for b in best)
    rows = [Row(f"F1b  best multiplier of α : of η from α₀ = {config.alpha_0:g}, {where}", "–", shown, "–")]
    for name, stated, estimate in (
        ("their ratio", "> 1", path_ratio(config.multipliers, sweep)),
        ("ln of the lowest loss along η over that along α", "> 0", path_depth(config.multipliers, sweep)),
    ):
        rows.append(Row(f"F1b  {name}, {where}", stated, str(estimate), estimate.interval()))
    for m, ratio in purer(config, data).items():
        name = f"F2c  signal to drift, {m:g}·α₀ over {m:g}·η_FFT, {where}"
        rows.append(Row(name, "> 1", str(ratio), ratio.interval()))
    grid = sweep.mean("seed")
    on_grid = [config.multipliers[int(np.argmin(x.values))] for x in (grid.by_alpha, grid.by_rate)]
    tied = f"of the values run, α's is lowest at m = {on_grid[0]:g} and η's at {on_grid[1]:g}"
    lowest = ", ".join(
        f"{path} {b.log_loss:.3f} at m = {b.flag or f'{b.x:.3g}'}" for path, b in zip(PATHS, best, strict=True)
    )
    where = f"On {config.name} at r = {config.rank}"
    sentence = f"{where} the lowest ln loss along each path from α₀ = {config.alpha_0:g} is {lowest}; {tied}."
    return Report(rows, [sentence], {"minilm_paths": partial(_figure, config, data)})


def _figure(config: Config, data: xr.Dataset) -> plotting.Figure:
    title = f"F1b, F2c  {config.name}, r = {config.rank}: {config.steps} steps of Adam, {config.seeds} seeds"
    figure, (left, right) = plotting.panels(2, title)
    ratio = np.exp(np.log(data.signal / data.drift).isel(step=slice(1, None)).mean("step"))
    for path, color, mark in zip(PATHS, ("signal", "drift"), "os", strict=True):
        symbol = {"α": r"$(\eta_{FFT},\ m\,\alpha_0)$", "η": r"$(m\,\eta_{FFT},\ \alpha_0)$"}[path]
        for panel, values in ((left, log_losses(data)), (right, ratio)):
            here = values.sel(path=path).transpose("alpha", "seed")
            panel.plot(config.multipliers, here, mark, color=plotting.COLOR[color], alpha=0.4, ms=5)
            panel.plot(config.multipliers, here.mean("seed"), color=plotting.COLOR[color], marker=mark, label=symbol)
    left.set(xlabel="multiplier m", ylabel="ln loss on its own texts", title="(a) after the last step")
    left.set_xscale("log", base=4)
    name = r"$\|\Delta w_{Signal}\|\,/\,\|\Delta w_{Drift}\|$"
    right.set(xlabel="multiplier m", ylabel=name, yscale="log", title="(b) geometric mean over steps")
    right.set_xscale("log", base=4)
    left.legend()
    return figure


EXPERIMENT = Experiment(
    name="minilm_paths",
    title="F1b on a pretrained encoder: more α against more learning rate.",
    paper=Config(),
    quick=replace(Config(), **SMALL, rank=2),
    points=points,
    measure=measure,
    report=report,
    extra=True,
    first=minilm_rates.of,
)

if __name__ == "__main__":
    main(EXPERIMENT)
