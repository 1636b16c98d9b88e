"""Draw the V-protocol on one problem: training loss, signal to drift, and the scores of every method."""

from collections.abc import Sequence
from functools import partial
from itertools import cycle
from typing import Protocol

import numpy as np
import xarray as xr

from experiments.analysis.intervals import mean_of
from experiments.lab.figure_files import Drawing
from experiments.lab.problem import Problem
from experiments.tuning.methods import COMMON, FULL
from experiments.tuning.runs import score_names
from signal_drift import plotting

MARKS = "os^Dv<>P"
"""A mark for every method or rank, beside its colour."""
HUES = ("signal", "lora", "drift", "band", "task", "other", "prediction")


class Comparison(Protocol):
    """Name what the figures read of a configuration."""

    @property
    def problem(self) -> Problem: ...
    @property
    def steps(self) -> int: ...
    @property
    def seeds(self) -> int: ...
    @property
    def over_seeds(self) -> str: ...
    @property
    def ranks(self) -> tuple[int, ...]: ...


def draw(config: Comparison, data: xr.Dataset, rate: str) -> dict[str, Drawing]:
    """Draw losses, purity and, where there are any, scores at one learning rate, named in titles and file names."""
    suffix = "" if rate == "η_FFT" else "_at_" + rate.split(maxsplit=1)[0].replace(".", "_")
    drawn: dict[str, Drawing] = {
        f"protocol_comparison{suffix}": partial(_losses, config, data, rate),
        f"protocol_purity{suffix}": partial(_purities, config, data, rate),
    }
    if score_names(data):
        drawn[f"protocol_scores{suffix}"] = partial(_scores, config, data, rate)
    return drawn


def _losses(config: Comparison, data: xr.Dataset, rate: str) -> plotting.Figure:
    """One panel for each rank: ln loss of every method, the two between which the gap lies as bands."""
    figure, axes = plotting.panels(len(config.ranks), _title(config, rate), height=4.8)
    for panel, rank in zip(axes, config.ranks, strict=True):
        draw_methods(panel, data.log_loss.sel(rank=rank))
        panel.set(xlabel="ln training loss, lower is better", title=f"r = {rank}")
    _labelled(axes)
    return figure


WIDEST = 3
"""Panels of a row where there is one rank."""


def _scores(config: Comparison, data: xr.Dataset, rate: str) -> plotting.Figure:
    """A row of panels for each judge, one for each rank; of one rank alone, judges stand beside one another."""
    panels = [(name, rank) for name in score_names(data) for rank in config.ranks]
    columns = len(config.ranks) if len(config.ranks) > 1 else min(len(panels), WIDEST)
    rows = -(-len(panels) // columns)
    figure, axes = plotting.panels(columns, _title(config, rate), height=4.8 if rows == 1 else 3.4, rows=rows)
    for panel in axes[len(panels) :]:
        panel.set_axis_off()
    axes = axes[: len(panels)]
    for panel, (name, rank) in zip(axes, panels, strict=True):
        draw_methods(panel, data.score.sel(rank=rank, judge=name))
        panel.set(xlabel=f"{name}, higher is better", title=f"r = {rank}")
    for first in range(0, len(panels), columns):
        _labelled(axes[first : first + columns], legend=first == 0)
    return figure


def _title(config: Comparison, rate: str) -> str:
    shown = ", mean and 95% interval" if config.seeds > 1 else ""
    runs = f"{config.steps} steps of Adam, {config.over_seeds}{shown}"
    return f"V  {config.problem.label} at {rate}: {runs}"


def _labelled(axes: Sequence[plotting.Axes], *, legend: bool = True) -> None:
    """Name the methods beside the first panel of a row, and what is drawn beside the last."""
    for panel in axes[1:]:
        panel.set_yticklabels([])
    if legend:
        axes[-1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5))


def draw_methods(panel: plotting.Axes, values: xr.DataArray) -> None:
    """Draw a mark with its interval for every method, and a band for LoRA with α = r and for full fine-tuning.

    A method that diverged at some seed is a cross at the edge; of one seed there is no interval.
    """
    names = [str(name) for name in values.method.values if name not in (COMMON, FULL)]
    for name, color, label in ((COMMON, "band", "LoRA, α = r"), (FULL, "task", "full fine-tuning")):
        value, low, high = mean_of(values.sel({"method": name}).values).at()
        if np.isfinite(value):
            if np.isfinite([low, high]).all():
                panel.axvspan(low, high, color=plotting.COLOR[color], alpha=0.2, lw=0)
            panel.axvline(value, color=plotting.COLOR[color], ls="--" if name == FULL else "-", label=label)
    for y, (name, mark) in enumerate(zip(names, MARKS, strict=False)):
        value, low, high = mean_of(values.sel({"method": name}).values).at()
        if np.isfinite(value):
            if np.isfinite([low, high]).all():
                panel.plot([low, high], [y, y], color=plotting.COLOR["signal"])
            panel.plot(value, y, mark, color=plotting.COLOR["signal"])
        else:
            panel.plot(0.98, y, "x", color=plotting.COLOR["drift"], transform=panel.get_yaxis_transform())
    panel.plot([], [], "x", color=plotting.COLOR["drift"], label="diverged at a seed")
    panel.set_yticks(range(len(names)), names)
    panel.locator_params(axis="x", nbins=5)
    panel.set_ylim(len(names) - 0.5, -0.5)


def _purities(config: Comparison, data: xr.Dataset, rate: str) -> plotting.Figure:
    figure, axes = plotting.panels(len(config.ranks), _title(config, rate), height=4.8)
    ratio = (data.signal / data.drift).drop_sel(method=FULL).isel(step=slice(1, None))
    ratio = ratio.dropna("method", how="all")
    for panel, rank in zip(axes, config.ranks, strict=True):
        for name, hue, mark in zip(ratio.method.values, cycle(HUES), MARKS, strict=False):
            line = np.exp(np.log(ratio.sel({"rank": rank, "method": name})).mean("seed"))
            shown = line.where(np.isfinite(line))
            panel.plot(ratio.step, shown, color=plotting.COLOR[hue], marker=mark, markevery=10, ms=5, label=str(name))
        panel.set(yscale="log", xlabel="step", title=f"r = {rank}")
    axes[0].set_ylabel(r"$\|\Delta w_{Signal}\|\,/\,\|\Delta w_{Drift}\|$, higher is purer")
    axes[-1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure
