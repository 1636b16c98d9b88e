"""Draw the V-protocol on one problem: training loss against LoRA's, signal to drift, and the scores."""

from collections.abc import Sequence
from functools import partial
from typing import Protocol

import numpy as np
import xarray as xr

from experiments.analysis.intervals import mean_interval
from experiments.lab.figure_files import Drawing
from experiments.lab.problem import Problem
from experiments.tuning.methods import FULL
from experiments.tuning.runs import score_names
from signal_drift import plotting


class Comparison(Protocol):
    """Name what the figures read of a configuration."""

    @property
    def problem(self) -> Problem: ...
    @property
    def steps(self) -> int: ...
    @property
    def seeds(self) -> int: ...
    @property
    def ranks(self) -> tuple[int, ...]: ...


def draw(config: Comparison, data: xr.Dataset, reductions: xr.DataArray, rate: str) -> dict[str, Drawing]:
    """Draw losses and, where there are any, scores at one learning rate, which is named in titles and file names."""
    suffix = "" if rate == "η_FFT" else "_at_" + rate.split(maxsplit=1)[0].replace(".", "_")
    drawn: dict[str, Drawing] = {f"protocol_comparison{suffix}": partial(_compare, config, data, reductions, rate)}
    if score_names(data):
        drawn[f"protocol_scores{suffix}"] = partial(_scores, config, data, rate)
    return drawn


def _compare(config: Comparison, data: xr.Dataset, reductions: xr.DataArray, rate: str) -> plotting.Figure:
    runs = f"{config.steps} steps of Adam, {config.seeds} seeds, mean and 95% interval"
    title = f"V  {config.problem.label} at {rate}: {runs}"
    figure, axes = plotting.panels(1 + len(config.ranks), title, height=4.8)
    typical = reductions.mean("seed").values
    finite = typical[np.isfinite(typical)]
    top = float(np.max(finite, initial=0.1))
    left = max(-1.5 * top, 1.3 * float(np.min(finite, initial=-0.1 * top)))
    draw_estimates(axes[0], config.ranks, reductions, left)
    axes[0].set_xlim(left - 0.05 * top, 1.3 * top)
    axes[0].axvline(0, color=plotting.COLOR["task"], lw=1, ls=":")
    axes[0].set(xlabel="ln (loss of LoRA, α = r) − ln loss", title="(a) training loss")
    axes[0].legend(loc="lower left")
    ratio = (data.signal / data.drift).drop_sel(method=FULL).isel(step=slice(1, None))
    for letter, panel, rank in zip("bcdefgh", axes[1:], config.ranks, strict=False):
        names = list(ratio.method.values)
        for name, color in zip(names, plotting.shades(len(names)), strict=True):
            line = np.exp(np.log(ratio.sel({"rank": rank, "method": name})).mean("seed"))
            panel.plot(ratio.step, line.where(np.isfinite(line)), color=color, label=name)
        panel.set(yscale="log", xlabel="step", title=f"({letter}) r = {rank}")
    axes[1].set_ylabel(r"$\|\Delta w_{Signal}\|\,/\,\|\Delta w_{Drift}\|$")
    axes[1].legend(fontsize=9)
    return figure


def _scores(config: Comparison, data: xr.Dataset, rate: str) -> plotting.Figure:
    names = score_names(data)
    figure, axes = plotting.panels(len(names), f"V  {config.problem.label} at {rate}", height=4.8)
    for panel, name in zip(axes, names, strict=True):
        draw_estimates(panel, config.ranks, data.score.sel(judge=name))
        panel.set_xlabel(name)
    for panel in axes[1:]:
        panel.set_yticklabels([])
    axes[0].legend(loc="upper center", bbox_to_anchor=(0.45, 1.14), ncols=1 + len(config.ranks))
    return figure


def draw_estimates(panel: plotting.Axes, ranks: Sequence[int], values: xr.DataArray, left: float = -np.inf) -> None:
    """Draw a mark with its interval for every method and rank, an arrow where the mean lies beyond `left`.

    The dashed line is full fine-tuning.
    """
    for k, (rank, name) in enumerate(zip(ranks, ("other", "signal", "lora", "band"), strict=False)):
        here, color = values.sel(rank=rank), plotting.COLOR[name]
        for height, method in enumerate(values.method.values):
            estimate = mean_interval(here.sel({"method": method}).values)
            y = height + 0.16 * (2 * k + 1 - len(ranks))
            if estimate.mean < left:
                panel.plot(left, y, "<", color=color)
            elif np.isfinite(estimate.mean):
                panel.plot([max(estimate.low, left), estimate.high], [y, y], color=color)
                panel.plot(estimate.mean, y, "os^D"[k % 4], color=color, label=f"r = {rank}" if height == 0 else None)
    for k, rank in enumerate(ranks):
        full, name = float(values.sel({"rank": rank, "method": FULL}).mean()), "FFT" if k == 0 else None
        panel.axvline(full, ls="--", lw=1.2, color=plotting.COLOR["prediction"], label=name)
    panel.set_yticks(range(values.sizes["method"]), [str(method) for method in values.method.values])
