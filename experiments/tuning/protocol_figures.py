"""The figure of the V-protocol: every method's training loss against LoRA's, and the held-out accuracy on digits."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from experiments.analysis.intervals import mean_interval
from experiments.lab import figure_files
from experiments.tuning.methods import FULL
from signal_drift import plotting

if TYPE_CHECKING:
    from experiments.tuning.protocol_comparison import Config


def draw(config: "Config", data: xr.Dataset, reductions: xr.DataArray, rate: str) -> dict[str, figure_files.Drawing]:
    """Losses and, with the digits, accuracies at one learning rate, which is named in titles and file names."""
    drawn = {f"protocol_comparison{_suffix(rate)}": partial(_compare, config, reductions, rate)}
    if "digits" in config.tasks:
        drawn[f"protocol_accuracy{_suffix(rate)}"] = partial(_accuracies, config, data, rate)
    return drawn


def _suffix(rate: str) -> str:
    return "" if rate == "η_FFT" else "_at_" + rate.split(maxsplit=1)[0].replace(".", "_")


def _compare(config: "Config", reductions: xr.DataArray, rate: str) -> plotting.Figure:
    title = f"V  Every method at {rate}: {config.steps} steps of Adam, {config.seeds} seeds, mean and 95% interval"
    figure, axes = plotting.panels(len(config.tasks), title, height=4.8)
    for letter, panel, task in zip("abcdefgh", axes, config.tasks, strict=False):
        here = reductions.sel(task=task)
        typical = here.mean("seed").values
        finite = typical[np.isfinite(typical)]
        top = float(np.max(finite, initial=0.1))
        left = max(-1.5 * top, 1.3 * float(np.min(finite, initial=-0.1 * top)))
        draw_estimates(panel, config.ranks, here, left)
        panel.set_xlim(left - 0.05 * top, 1.3 * top)
        panel.axvline(0, color=plotting.COLOR["task"], lw=1, ls=":")
        panel.set(xlabel="ln (loss of LoRA, α = r) − ln loss", title=f"({letter}) {task}, training loss")
    for panel in axes[1:]:
        panel.set_yticklabels([])
    axes[0].legend(loc="lower left")
    return figure


def _accuracies(config: "Config", data: xr.Dataset, rate: str) -> plotting.Figure:
    figure, (panel,) = plotting.panels(1, f"V  Rotated digits, {rate}", height=4.8)
    draw_estimates(panel, config.ranks, data.accuracy.sel(task="digits"))
    panel.set(xlabel="held-out accuracy", xlim=(0, 1))
    panel.legend(loc="upper center", bbox_to_anchor=(0.45, 1.14), ncols=3)
    return figure


def draw_estimates(panel: plotting.Axes, ranks: Sequence[int], values: xr.DataArray, left: float = -np.inf) -> None:
    """A mark with its interval for every method and rank, an arrow where the mean lies beyond `left`.

    The dashed line is full fine-tuning.
    """
    for k, (rank, name) in enumerate(zip(ranks, ("other", "signal", "lora", "band"), strict=False)):
        here, color = values.sel(rank=rank), plotting.COLOR[name]
        for height, method in enumerate(values.recipe.values):
            estimate = mean_interval(here.sel(recipe=method).values)
            y = height + 0.16 * (2 * k + 1 - len(ranks))
            if estimate.mean < left:
                panel.plot(left, y, "<", color=color)
            elif np.isfinite(estimate.mean):
                panel.plot([max(estimate.low, left), estimate.high], [y, y], color=color)
                panel.plot(estimate.mean, y, "os^D"[k % 4], color=color, label=f"r = {rank}" if height == 0 else None)
    for k, rank in enumerate(ranks):
        full, name = float(values.sel(rank=rank, recipe=FULL).mean()), "FFT" if k == 0 else None
        panel.axvline(full, ls="--", lw=1.2, color=plotting.COLOR["prediction"], label=name)
    panel.set_yticks(range(values.sizes["recipe"]), [str(method) for method in values.recipe.values])
