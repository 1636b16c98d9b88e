"""The figures of the spectra at d = 256; they draw what `spectra_at_scale` stored."""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from experiments import figures

if TYPE_CHECKING:
    from experiments.spectra_at_scale import Config

NAMES = {"task": r"$H_\ell$", "signal": "$H_{Signal}$", "drift": "$H_{Drift}$", "lora": "$H_{LoRA}$"}
POWERS = {"signal": 2, "drift": 1}


def at_start(config: "Config", data: xr.Dataset) -> figures.Figure:
    """Both ends of every spectrum over α, and the whole of each at one α."""
    sizes = f"d = {config.width}, r = {config.rank}, {config.seeds} seeds"
    figure, (left, middle, right) = figures.panels(3, f"Spectra at scale: {sizes}, B = 0", height=4.6)
    alpha = np.array(config.alphas)
    for panel, end, sign in ((left, "max", 1), (middle, "min", -1)):
        for operator, name in NAMES.items():
            values = sign * data.ends.sel(operator=operator, end=end).isel(step=0).transpose("alpha", "seed").values
            color = figures.COLOR[operator]
            panel.plot(alpha, values, "o", color=color, alpha=0.4)
            panel.plot(alpha, values.mean(1), color=color, label=name)
            if operator in POWERS:
                law = values[0].mean() * (alpha / alpha[0]) ** POWERS[operator]
                panel.plot(alpha, law, "--", color=figures.COLOR["prediction"])
        figures.log_axis(panel, "α", "λmax" if sign == 1 else "−λmin", log_x=4)
        panel.legend()
    left.set_title("(a) largest eigenvalue; dashed: stated power")
    middle.set_title("(b) most negative eigenvalue")
    seed = data.isel(seed=0).max(["alpha", "step"])
    top = 0.0
    for operator, name in NAMES.items():
        here = seed.sel(operator=operator)
        order = np.argsort(here.nodes.values.ravel())[::-1]
        share = np.cumsum(here.weights.values.ravel()[order]) / config.probes
        right.plot(share, here.nodes.values.ravel()[order], color=figures.COLOR[operator], label=name)
        top = max(top, float(abs(here.nodes).max()))
    figures.symlog(right, "y", 1e-9 * top)
    right.set(xlabel="position, share of all eigenvalues", ylabel="eigenvalue λ")
    right.set_title(f"(c) α = {config.density_alpha:g}, seed 0, by quadrature")
    right.legend()
    return figure


def along_training(config: "Config", data: xr.Dataset) -> figures.Figure:
    """Sharpness against the edge of stability, raw and as Adam sees it, and what the drift adds to it."""
    from experiments.spectra_at_scale import drift_share, edge, lowest_over_highest

    title = f"Along training: Adam, d = {config.width}, r = {config.rank}, {config.seeds} seeds"
    figure, axes = figures.panels(4, title, height=4.8, width=4.6)
    colors = ("drift", "band", "signal", "other")
    for run, color in zip(config.runs(), colors, strict=False):
        here = data.sel(run=run)
        series = (
            edge(config, data, run, "raw"),
            edge(config, data, run, "preconditioned"),
            lowest_over_highest(here, "lora").transpose("seed", "step"),
            drift_share(here).transpose("seed", "step"),
        )
        for panel, y in zip(axes, series, strict=True):
            panel.plot(config.steps, y.T, "o", color=figures.COLOR[color], alpha=0.5)
            panel.plot(config.steps, y.mean("seed"), color=figures.COLOR[color], label=run)
    for panel in axes[:2]:
        panel.axhline(1, ls="--", color=figures.COLOR["prediction"], label="edge of stability")
        panel.set_yscale("log")
    axes[2].axhline(0, ls="--", color=figures.COLOR["prediction"], label="positive semi-definite")
    axes[3].set_yscale("log")
    names = (
        "η λmax[H_LoRA] / 2",
        "η λmax[preconditioned] / 38",
        "λmin/λmax of H_LoRA",
        "‖H_Drift‖₂ / λmax[H_Signal]",
    )
    titles = ("(a) gradient descent's edge", "(b) Adam's edge", "(c) negative curvature", "(d) what drift adds")
    for panel, name, title in zip(axes, names, titles, strict=True):
        panel.set(xlabel="step", ylabel=name, title=title)
        panel.legend()
    return figure
