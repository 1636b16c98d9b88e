"""Draw the runs of F2, η warm and α cool: the loss as in Fig. 2a, the drift's jitter, purity and its exponents."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr

from experiments.analysis.divergence import jitter, per_run
from experiments.dynamics.eta_against_alpha import (
    FAMILIES,
    STATED,
    Families,
    exponent_by_step,
    ratio,
    run_labels,
)
from signal_drift import plotting

PREDICTION = plotting.COLOR["prediction"]


def run_styles(etas: Sequence[str], alphas: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Choose how runs are drawn: η warm, whole lines and circles, α cool, dashed and squares, darker the larger."""
    families = (etas, "YlOrRd", "-", "o"), (alphas, "YlGnBu", "--", "s")
    return {
        run: {"color": color, "ls": line, "marker": marker, "ms": 5}
        for runs, name, line, marker in families
        for run, color in zip(runs, mpl.colormaps[name](np.linspace(0.4, 0.9, len(runs))), strict=True)
    }


def draw_trajectories(panel: plotting.Axes, config: Families, data: xr.Dataset) -> None:
    """Draw the loss over its initial value along training, as Fig. 2a does, with what the paper says of 128·η₀.

    Median over seeds; the band from the lowest to the highest seed for the runs of which App. E speaks, which are
    drawn thicker. The legend lies to the right of the panel.
    """
    relative = data.loss / data.loss.isel(time=0)
    if "LoRA" in data.run.values:
        panel.plot(data.time, relative.sel(run="LoRA").median("seed"), ":", color="#777777", label="η₀, α₀")
    draw_runs(panel, config, relative)
    panel.axhline(1, lw=1, color="#777777")
    if "128·η₀" in data.run.values:
        y = relative.sel(run="128·η₀").median("seed")
        when = y.sizes["time"] // 6
        panel.annotate(
            "paper: 128·η₀ diverges",
            (float(data.time[when]), float(y[when])),
            (0.03, 0.06),
            textcoords="axes fraction",
            color=PREDICTION,
            arrowprops={"arrowstyle": "->", "color": PREDICTION},
        )
    panel.set(xlabel="step", ylabel="loss / initial loss (lower is better)", yscale="log")
    panel.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))


def draw_runs(panel: plotting.Axes, config: Families, values: xr.DataArray) -> None:
    """Draw the median over seeds of every run, and the range over seeds of those of which App. E speaks."""
    time = next(name for name in values.dims if name in ("time", "step"))
    for run, style in styles_of(config).items():
        y, named = values.sel(run=run).transpose("seed", time), run in STATED
        if named:
            panel.fill_between(values[time], y.min("seed"), y.max("seed"), color=style["color"], alpha=0.15, lw=0)
        panel.plot(values[time], y.median("seed"), lw=2.6 if named else 1.2, markevery=12, label=run, **style)


def styles_of(config: Families) -> dict[str, dict[str, Any]]:
    etas, alphas = (run_labels(config, family) for family in FAMILIES)
    return run_styles(etas, alphas)


def trajectories_figure(config: Families, data: xr.Dataset) -> plotting.Figure:
    figure, (panel,) = plotting.panels(1, f"F2a  η against α: {sizes(config)}", height=5.0, width=9.0)
    draw_trajectories(panel, config, data)
    return figure


def drift_noise_figure(config: Families, data: xr.Dataset) -> plotting.Figure:
    """Draw the norm of the drift along training, and how far each run is from smooth."""
    figure, (left, right) = plotting.panels(2, f"F2b  Noise of the drift: {sizes(config)}", height=4.8, width=6.0)
    draw_runs(left, config, data.drift.isel(step=slice(1, None)))
    left.set(xlabel="step", ylabel=r"$\|\Delta w_{Drift}\|$", yscale="log", title="(a) along training")
    rough = per_run(jitter, data.drift.drop_sel(run="FFT", errors="ignore"))
    for family, color, style, mark in zip(FAMILIES, ("drift", "signal"), ("-", "--"), ("o", "s"), strict=True):
        m, y = config.multipliers(family), rough.sel(run=run_labels(config, family)).transpose("run", "seed")
        right.plot(m, y, mark, color=plotting.COLOR[color], alpha=0.4)
        expected = "rises" if family == "η" else "stays"
        label = f"{family}-scaling; paper: {expected}"
        right.plot(m, y.median("seed"), style, marker=mark, color=plotting.COLOR[color], label=label)
    flat = float(rough.sel(run=run_labels(config, "α")[0]).median())
    right.axhline(flat, ls=":", color=PREDICTION, label="paper: α leaves it here")
    plotting.log_axis(right, "multiplier m of η₀ or of α₀", "jitter of the drift (lower: calmer)")
    right.set_title("(b) jitter of each run")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=8)
    right.legend()
    return figure


def purity_figure(config: Families, data: xr.Dataset) -> plotting.Figure:
    """Draw signal over drift along training, with 2(t − 1), to which X14 says it tends whatever η and α."""
    figure, (panel,) = plotting.panels(1, f"F2c  Signal to drift: {sizes(config)}", height=5.0, width=9.0)
    values = ratio(data)
    draw_runs(panel, config, values)
    panel.plot(values.step, 2 * (values.step - 1), "-.", lw=3, color=PREDICTION, label="2(t − 1), X14")
    name = r"$\|\Delta w_{Signal}\|\,/\,\|\Delta w_{Drift}\|$ (higher: purer)"
    panel.set(xlabel="step t", ylabel=name, yscale="log", title="paper: every α above its η, by Θ(1/η), throughout")
    panel.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))
    return figure


def exponents_figure(config: Families, data: xr.Dataset) -> plotting.Figure:
    """Draw the exponent of η and of α in signal over drift at every step, with what P4-update states of each."""
    figure, (panel,) = plotting.panels(1, f"P4  Signal to drift by step: {sizes(config)}", height=4.6, width=9.0)
    found = exponent_by_step(config, data)
    for family, color, style, stated in zip(FAMILIES, ("drift", "signal"), ("-", "--"), (-1, 0), strict=True):
        y = found.sel(family=family).transpose("step", "seed")
        panel.fill_between(y.step, y.min("seed"), y.max("seed"), color=plotting.COLOR[color], alpha=0.2, lw=0)
        panel.plot(y.step, y.median("seed"), style, color=plotting.COLOR[color], label=f"exponent of {family}")
        panel.axhline(stated, ls=":", color=plotting.COLOR[color], label=f"P4 states {stated} for {family}")
    panel.set(xlabel="step t", ylabel="exponent in signal / drift", xscale="log")
    panel.set_title("paper: −1 for η and 0 for α throughout; X14: both go to 0")
    panel.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))
    return figure


def sizes(config: Families) -> str:
    return f"Adam, {config.problem.label}, r = {config.problem.rank}, {config.over_seeds}"
