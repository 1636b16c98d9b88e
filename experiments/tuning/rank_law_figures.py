"""Draw F1a, F1b and F1c on one problem, from what `rank_law` stored and fitted."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import xarray as xr

from experiments.analysis.sweeps import free_fit, root_fit, valley
from experiments.lab.figure_files import Drawing
from experiments.tuning.rank_sweeps import Config, best_alphas, grid_losses, rate_exponents
from signal_drift import plotting

Panel = Callable[[plotting.Axes, Config, xr.Dataset], None]
MARKS = "os^Dv"
"""A mark for every rank, beside its shade."""


def draw(config: Config, data: xr.Dataset) -> dict[str, Drawing]:
    """Return a figure for each of: α*(r), the two paths, their purity and, with a grid, η*(α) and ℓ*(α)."""
    drawings: dict[str, tuple[str, Panel]] = {
        "rank_law": ("F1c  Best α at η_FFT over ranks", _draw_law),
        "scaling_paths": ("F1b  Loss along both paths", _draw_paths),
        "path_purity": ("F2c  Signal to drift along both paths", _draw_purity),
    }
    if config.grid_alphas:
        drawings["best_rate"] = ("F1a  Best learning rate over α", _draw_rates)
        drawings["best_loss"] = ("F1a  Loss at the best learning rate, over α", _draw_losses)
    return {name: partial(_figure, config, data, *drawing) for name, drawing in drawings.items()}


def _figure(config: Config, data: xr.Dataset, title: str, draw_panel: Panel) -> plotting.Figure:
    runs = f"{config.problem.label}: {config.steps} steps of Adam, {config.over_seeds}"
    figure, (panel,) = plotting.panels(1, f"{title}\n{runs}", height=4.8, width=7.0)
    draw_panel(panel, config, data)
    panel.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def _draw_law(panel: plotting.Axes, config: Config, data: xr.Dataset) -> None:
    """Best α of every seed and their median, both fits, and V2."""
    ranks, single = np.array(config.ranks, float), best_alphas(config, data)
    x = np.array([np.nanmedian(at) if np.isfinite(at).any() else np.nan for at in single.T])
    free, root = free_fit(ranks, x), root_fit(ranks, x)
    for k, at in enumerate(single):
        panel.plot(ranks * 1.03 ** (k - len(single) / 2), at, "o", ms=4, color=plotting.COLOR["signal"], alpha=0.35)
    panel.plot(ranks, x, "o", ms=9, color=plotting.COLOR["signal"], label="best α, median\n(small: each seed)")
    panel.plot(
        ranks, free.prefactor * ranks**free.slope, color=plotting.COLOR["signal"], label=f"slope {free.slope:.2f}"
    )
    law = f"stated: slope ½,\nC = {root.prefactor:.3g} fitted"
    panel.plot(ranks, root.prefactor * np.sqrt(ranks), "--", color=plotting.COLOR["prediction"], label=law)
    v2 = np.sqrt(ranks) / config.problem.typical_sigma()
    panel.plot(ranks, v2, ":", color=plotting.COLOR["task"], label="√r/σ_A (V2)")
    plotting.log_axis(panel, "rank r", "best α at η_FFT", log_y=2)


def _draw_paths(panel: plotting.Axes, config: Config, data: xr.Dataset) -> None:
    start = config.starts[-1]
    m = config.multipliers(start)
    for rank, color, mark in _styles(config.path_ranks):
        here = data.sel(rank=rank)
        for losses, style, fill, name in (
            (here.by_alpha, "-", color, f"r = {rank}, m·α₀"),
            (here.by_rate.sel(start=start), "--", "w", f"r = {rank}, m·η_FFT"),
        ):
            typical = _typical(losses)
            lowest = int(np.nanargmin(typical))
            panel.plot(m, typical, style, color=color)
            panel.plot(m[lowest], typical[lowest], mark, ms=9, color=color, mfc=fill, zorder=3)
            panel.plot([], [], style, marker=mark, color=color, mfc=fill, label=name)
    level = _full(data)
    panel.axhline(level, ls=":", color=plotting.COLOR["task"], label="full fine-tuning")
    plotting.log_axis(panel, f"multiplier m from (η_FFT, α₀ = {start:.3g})", "final training loss, lower is better")
    _clip(panel, data, level)


def _draw_purity(panel: plotting.Axes, config: Config, data: xr.Dataset) -> None:
    start = config.starts[-1]
    for rank, color, mark in _styles(config.path_ranks):
        here = data.sel(rank=rank)
        for path, style, name in (
            (here.purity_by_alpha, "-", "m·α₀"),
            (here.purity_by_rate.sel(start=start), "--", "m·η_FFT"),
        ):
            ratio = path.transpose("seed", "alpha").values
            some = np.isfinite(ratio).all(axis=0)
            typical = np.exp(np.log(ratio[:, some]).mean(0))
            panel.plot(
                config.multipliers(start)[some],
                typical,
                style,
                color=color,
                marker=mark,
                ms=4,
                label=f"r = {rank}, {name}",
            )
    name = r"$\|\Delta w_{Signal}\|\,/\,\|\Delta w_{Drift}\|$"
    plotting.log_axis(panel, f"multiplier m from (η_FFT, α₀ = {start:.3g})", f"{name}\ngeometric mean over steps")


def _draw_rates(panel: plotting.Axes, config: Config, data: xr.Dataset) -> None:
    alphas = np.array(config.grid_alphas)
    first = None
    for rank, color, mark in _styles(config.path_ranks):
        losses = grid_losses(data.sel(rank=rank))
        best = np.array([valley(config.grid_rates, x)[0] for x in losses])
        typical = np.array([np.nanmedian(at) if np.isfinite(at).any() else np.nan for at in best.T])
        slope = np.nanmean(rate_exponents(config, losses))
        panel.plot(alphas, best.T, mark, ms=4, color=color, alpha=0.35)
        panel.plot(alphas, typical, "-", marker=mark, ms=8, color=color, label=f"r = {rank}, slope {slope:.2f}")
        if first is None and np.isfinite(typical).any():
            place = int(np.flatnonzero(np.isfinite(typical))[0])
            first = alphas[place], typical[place]
    if first is not None:
        x = alphas[alphas >= first[0]] / first[0]
        wedge = [first[1] * x**power for power in (-1.0, -0.5)]
        panel.fill_between(
            x * first[0], *wedge, color=plotting.COLOR["prediction"], alpha=0.15, label="X15: slope −1 to −½"
        )
    panel.axhline(10, ls="--", color=plotting.COLOR["prediction"], label="10× at small α (Sec. 2)")
    panel.axhline(1, ls=":", color=plotting.COLOR["task"], label=r"$\eta_{FFT}$")
    plotting.log_axis(panel, "α", r"best $\eta\,/\,\eta_{FFT}$")


def _draw_losses(panel: plotting.Axes, config: Config, data: xr.Dataset) -> None:
    for rank, color, mark in _styles(config.path_ranks):
        losses = grid_losses(data.sel(rank=rank))
        best = np.array([valley(config.grid_rates, x)[1] for x in losses])
        panel.plot(config.grid_alphas, np.exp(best).T, mark, ms=4, color=color, alpha=0.35)
        panel.plot(config.grid_alphas, np.exp(best.mean(0)), "-", marker=mark, ms=8, color=color, label=f"r = {rank}")
    panel.axhline(_full(data), ls=":", color=plotting.COLOR["task"], label="full fine-tuning")
    plotting.log_axis(panel, "α", "training loss at the best η, lower is better")


def _styles(ranks: Sequence[int]) -> list[tuple[int, str, str]]:
    """A shade, without the lightest, and a mark for every rank."""
    return list(zip(ranks, plotting.shades(len(ranks) + 1)[1:], MARKS * len(ranks), strict=False))


def _typical(losses: xr.DataArray) -> np.ndarray:
    """The geometric mean over seeds; inf, where a seed diverged, is not drawn."""
    mean = losses.mean("seed").values
    return np.exp(np.where(mean < np.log(np.finfo(float).max), mean, np.nan))


def _full(data: xr.Dataset) -> float:
    """The loss of full fine-tuning at its best rate."""
    return float(np.exp(data.fft.min()))


def _clip(panel: plotting.Axes, data: xr.Dataset, level: float) -> None:
    """Leave out the losses far above the start: how far a diverging run climbs says nothing."""
    drawn = [_typical(data.by_alpha), _typical(data.by_rate.isel(start=-1))]
    start = np.nanmax(_typical(data.by_alpha.isel(alpha=0)))
    panel.set_ylim(min(level, *(float(np.nanmin(x)) for x in drawn)) / 2, start * 10)
