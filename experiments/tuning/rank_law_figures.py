"""Draw F1a, F1b and F1c on one problem, from what `rank_law` stored and fitted."""

from collections.abc import Callable
from functools import partial

import numpy as np
import xarray as xr

from experiments.analysis.sweeps import best_points, free_fit, root_fit, valley
from experiments.lab.figure_files import Drawing
from experiments.tuning.rank_sweeps import PATHS, Config, grid_losses, typical_sigma
from signal_drift import plotting

Panel = Callable[[plotting.Axes, Config, xr.Dataset], None]


def draw(config: Config, data: xr.Dataset) -> dict[str, Drawing]:
    """Return a figure for each of: α*(r), the two paths and, with a grid, η*(α) and ℓ*(α)."""
    of = "F1b, F2c  From (η_FFT, α₀): m·α₀ solid, m·η_FFT dashed"
    drawings: dict[str, tuple[str, tuple[Panel, ...]]] = {
        "rank_law": ("F1c  Best α at η_FFT over ranks", (_draw_law,)),
        "scaling_paths": (of, (_draw_paths, _draw_purity)),
    }
    if config.grid_alphas:
        drawings["best_rate"] = ("F1a  Best learning rate over α", (_draw_rates,))
        drawings["best_loss"] = ("F1a  Loss at the best learning rate, over α", (_draw_losses,))
    return {name: partial(_figure, config, data, *drawing) for name, drawing in drawings.items()}


def _figure(config: Config, data: xr.Dataset, title: str, panels: tuple[Panel, ...]) -> plotting.Figure:
    runs = f"{config.problem.label}: {config.steps} steps of Adam, {config.seeds} seeds"
    figure, axes = plotting.panels(len(panels), f"{title}\n{runs}", height=4.6, width=6.0)
    for panel, draw_panel in zip(axes, panels, strict=True):
        draw_panel(panel, config, data)
    return figure


def _draw_law(panel: plotting.Axes, config: Config, data: xr.Dataset) -> None:
    """Best α with the half-octave or less that seeds disagree by, both fits, V2, and flagged ranks at the edge."""
    ranks, losses = np.array(config.ranks, float), data.by_alpha.transpose("seed", "rank", "alpha").values
    single = np.array([[b.x for b in best_points(config.alphas, losses[[k]])] for k in range(len(losses))])
    best = best_points(config.alphas, losses)
    x = np.array([b.x for b in best])
    free, root = free_fit(ranks, x), root_fit(ranks, x)
    panel.plot(ranks, single.T, "o", ms=4, color=plotting.COLOR["signal"], alpha=0.35)
    panel.plot(ranks, x, "o", ms=8, color=plotting.COLOR["signal"], label="best α (small: each seed)")
    fitted, law = f"slope {free.slope:.2f}", f"{root.prefactor:.3g}·√r (Eq. 3)"
    panel.plot(ranks, free.prefactor * ranks**free.slope, color=plotting.COLOR["signal"], label=fitted)
    panel.plot(ranks, root.prefactor * np.sqrt(ranks), "--", color=plotting.COLOR["prediction"], label=law)
    panel.plot(
        ranks, np.sqrt(ranks) / typical_sigma(config.problem), ":", color=plotting.COLOR["task"], label="√r/σ_A (V2)"
    )
    flagged = [i for i, b in enumerate(best) if b.flag == "edge"]
    if flagged:
        ends = [config.alphas[int(np.argmin(losses.mean(0)[i]))] for i in flagged]
        panel.plot(ranks[flagged], ends, "x", ms=9, color=plotting.COLOR["drift"], label="on the edge: not fitted")
    plotting.log_axis(panel, "rank r", "best α at η_FFT", log_y=2)
    low, high = np.log2(np.nanmin([*x, *single.ravel(), 2.0**6])), np.log2(np.nanmax([*x, *single.ravel(), 1.0]))
    panel.set_ylim(2.0 ** (low - 0.5), 2.0 ** (high + 0.7 * (high - low)))  # room for the legend
    panel.legend(loc="upper left")


def _draw_paths(panel: plotting.Axes, config: Config, data: xr.Dataset) -> None:
    ranks = config.path_ranks
    for rank, color in zip(ranks, _shades(ranks), strict=True):
        here = data.sel(rank=rank)
        for losses, style, fill, name in ((here.by_alpha, "-", color, f"r = {rank}"), (here.by_rate, "--", "w", None)):
            typical = _typical(losses)
            panel.plot(config.multipliers, typical, style, color=color, label=name)
            lowest = int(np.nanargmin(typical))
            panel.plot(config.multipliers[lowest], typical[lowest], "o", color=color, mfc=fill, zorder=3)
    level = _typical(data.fft.isel(rank=0)).min()
    panel.axhline(level, ls=":", color=plotting.COLOR["task"], label="full fine-tuning")
    plotting.log_axis(panel, "multiplier m", "final training loss")
    _clip(panel, data, level)
    panel.legend()


def _draw_purity(panel: plotting.Axes, config: Config, data: xr.Dataset) -> None:
    for rank, color in zip(config.path_ranks, _shades(config.path_ranks), strict=True):
        for path, style in zip(PATHS, ("-", "--"), strict=True):
            ratio = data.purity.sel(rank=rank, path=path).mean("seed")
            panel.plot(config.multipliers, ratio, style, color=color, label=f"r = {rank}" if style == "-" else None)
    name = r"$\|\Delta w_{Signal}\|\,/\,\|\Delta w_{Drift}\|$"
    plotting.log_axis(panel, "multiplier m", f"{name}\ngeometric mean over steps")
    panel.legend()


def _draw_rates(panel: plotting.Axes, config: Config, data: xr.Dataset) -> None:
    alphas, ranks = np.array(config.grid_alphas), config.path_ranks
    for rank, color in zip(ranks, _shades(ranks), strict=True):
        losses = grid_losses(data.sel(rank=rank))
        best = valley(config.grid_rates, losses)[0]
        fit = free_fit(alphas, best)
        panel.plot(alphas, best, "o", color=color, label=f"r = {rank}, slope {fit.slope:.2f}")
        panel.plot(alphas, fit.prefactor * alphas**fit.slope, color=color, lw=1)
        edge = np.isnan(best)
        ends = np.array(config.grid_rates)[np.argmin(np.where(np.isnan(losses), np.inf, losses).mean(0), axis=1)]
        panel.plot(alphas[edge], ends[edge], "x", ms=9, color=color)
    panel.axhline(10, ls="--", color=plotting.COLOR["prediction"], label="10× at small α (Sec. 2)")
    panel.axhline(1, ls=":", color=plotting.COLOR["task"], label=r"$\eta_{FFT}$")
    plotting.log_axis(panel, "α (crosses: on the edge, not fitted)", r"best $\eta\,/\,\eta_{FFT}$")
    panel.legend()


def _draw_losses(panel: plotting.Axes, config: Config, data: xr.Dataset) -> None:
    ranks = config.path_ranks
    for rank, color in zip(ranks, _shades(ranks), strict=True):
        losses = grid_losses(data.sel(rank=rank))
        panel.plot(
            config.grid_alphas, np.exp(valley(config.grid_rates, losses)[1]), "o-", color=color, label=f"r = {rank}"
        )
    level = _typical(data.fft.isel(rank=0)).min()
    panel.axhline(level, ls=":", color=plotting.COLOR["task"], label="full fine-tuning")
    plotting.log_axis(panel, "α", "training loss at the best η")
    low, high = panel.get_ylim()
    panel.set_ylim(low, high * (high / low) ** 0.5)  # room for the legend
    panel.legend(loc="upper right")


def _typical(losses: xr.DataArray) -> np.ndarray:
    """The geometric mean over seeds; inf, where a seed diverged, is not drawn."""
    mean = losses.mean("seed").values
    return np.exp(np.where(mean < np.log(np.finfo(float).max), mean, np.nan))


def _clip(panel: plotting.Axes, data: xr.Dataset, level: float) -> None:
    """Leave out the losses far above the start: how far a diverging run climbs says nothing."""
    drawn = np.array([_typical(x) for x in (data.by_alpha, data.by_rate)])
    start = np.nanmax(_typical(data.by_alpha.isel(alpha=0)))
    panel.set_ylim(min(level, float(np.nanmin(drawn))) / 2, start * 10)


def _shades(ranks: tuple[int, ...]) -> list:
    """Light to dark, leaving out the lightest."""
    return plotting.shades(len(ranks) + 1)[1:]
