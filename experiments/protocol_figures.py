"""The figure of the V-protocol: every method's training loss against LoRA's, and the held-out accuracy on digits."""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from experiments import figures
from experiments.recipes import FULL
from experiments.statistics import mean_interval

if TYPE_CHECKING:
    from experiments.protocol_comparison import Config


def draw(config: "Config", data: xr.Dataset, reductions: xr.DataArray) -> figures.Figure:
    tested = [task for task in config.tasks if task == "digits"]
    title = f"V  Every method at η_FFT: {config.steps} steps of Adam, {config.seeds} seeds, mean and 95% interval"
    figure, axes = figures.panels(len(config.tasks) + len(tested), title)
    for letter, panel, task in zip("abcdefgh", axes, config.tasks, strict=False):
        _draw_reductions(panel, config, reductions.sel(task=task))
        panel.set_title(f"({letter}) {task}: training loss")
    for panel in axes[len(config.tasks) :]:
        _draw_estimates(panel, config, data.accuracy.sel(task="digits"))
        panel.set(xlabel="held-out accuracy", title="digits: held-out accuracy", yticklabels=[])
    axes[0].set_yticks(range(data.sizes["recipe"]), [str(m) for m in data.recipe.values])
    axes[0].legend(loc="lower left")
    return figure


def _draw_reductions(panel: figures.Axes, config: "Config", change: xr.DataArray) -> None:
    _draw_estimates(panel, config, change)
    typical = change.mean("seed").values
    top = float(np.max(typical[np.isfinite(typical)], initial=0.1))
    panel.set_xlim(-1.5 * top, 1.25 * top)
    panel.axvline(0, color=figures.COLOR["task"], lw=1, ls=":")
    panel.set(xlabel="ln (loss of LoRA, α = r) − ln loss", yticks=range(change.sizes["recipe"]), yticklabels=[])


def _draw_estimates(panel: figures.Axes, config: "Config", values: xr.DataArray) -> None:
    """One dot with its interval for every method and rank; the dashed line is full fine-tuning."""
    for k, (rank, color) in enumerate(zip(config.ranks, ("other", "signal", "lora", "band"), strict=False)):
        here = values.sel(rank=rank)
        for height, method in enumerate(values.recipe.values):
            estimate = mean_interval(here.sel(recipe=method).values)
            y = height + 0.16 * (2 * k + 1 - len(config.ranks))
            if np.isfinite(estimate.mean):
                panel.plot([estimate.low, estimate.high], [y, y], color=figures.COLOR[color])
                label = f"r = {rank}" if height == 0 else None
                panel.plot(estimate.mean, y, "os^D"[k % 4], color=figures.COLOR[color], label=label)
        full = float(here.sel(recipe=FULL).mean())
        panel.axvline(full, ls="--", lw=1.2, color=figures.COLOR["prediction"], label="FFT" if k == 0 else None)
