"""The figures of the spectra at d = 256; they draw what `spectra_at_scale` stored."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from signal_drift import plotting

if TYPE_CHECKING:
    from experiments.curvature import at_scale as spectra_at_scale
    from experiments.dynamics import along_training as spectra_along_training

NAMES = {"task": r"$H_\ell$", "signal": "$H_{Signal}$", "drift": "$H_{Drift}$", "lora": "$H_{LoRA}$"}
POWERS = {"signal": 2, "drift": 1}
SYMBOLS = {"H_LoRA": "$H_{LoRA}$", "H_Signal": "$H_{Signal}$", "H_Drift": "$H_{Drift}$", "λmax": r"$\lambda_{max}$"}
TITLES = {"a": "gradient descent's edge", "b": "Adam's edge", "c": "negative curvature", "d": "what the drift adds"}


def at_start(config: "spectra_at_scale.Config", data: xr.Dataset) -> plotting.Figure:
    """Both ends of every spectrum over α, and the whole of each at one α."""
    sizes = f"d = {config.width}, r = {config.rank}, {config.seeds} seeds"
    figure, (left, middle, right) = plotting.panels(3, f"Spectra at scale: {sizes}, B = 0", height=4.6)
    alpha = np.array(config.alphas)
    for panel, end, sign in ((left, "max", 1), (middle, "min", -1)):
        for operator, name in NAMES.items():
            values = sign * data.ends.sel(operator=operator, end=end).transpose("alpha", "seed").values
            color = plotting.COLOR[operator]
            panel.plot(alpha, values, "o", color=color, alpha=0.4)
            panel.plot(alpha, values.mean(1), color=color, label=name)
            if operator in POWERS:
                law = values[0].mean() * (alpha / alpha[0]) ** POWERS[operator]
                panel.plot(alpha, law, "--", color=plotting.COLOR["prediction"])
        plotting.log_axis(panel, "α", "λmax" if sign == 1 else "−λmin", log_x=4)
        panel.legend()
    left.set_title("(a) largest eigenvalue; dashed: stated power")
    middle.set_title("(b) most negative eigenvalue")
    seed = data.isel(seed=0)
    top = 0.0
    for operator, name in NAMES.items():
        here = seed.sel(operator=operator)
        plotting.draw_quadrature(
            right, here.nodes.values, here.weights.values, color=plotting.COLOR[operator], label=name
        )
        top = max(top, float(abs(here.nodes).max()))
    plotting.symlog(right, "y", 1e-9 * top)
    right.set(xlabel="position, share of all eigenvalues", ylabel="eigenvalue λ")
    right.set_title(f"(c) α = {config.density_alpha:g}, seed 0, by quadrature")
    right.legend()
    return figure


def along_training(
    config: "spectra_along_training.Config", data: xr.Dataset, quantities: Mapping[str, Callable]
) -> plotting.Figure:
    """Sharpness against the edge of stability, raw and as Adam sees it; negative curvature; the share of the drift."""
    title = f"Along training: Adam, d = {config.width}, r = {config.rank}, {config.seeds} seeds"
    figure, axes = plotting.panels(4, title, height=4.8, width=4.6)
    for panel, letter, (name, quantity) in zip(axes, "abcd", quantities.items(), strict=True):
        for run, color in zip(config.runs(), ("drift", "band", "signal", "other"), strict=False):
            y = quantity(data).sel(run=run).transpose("step", "seed")
            panel.plot(config.steps, y, "o", color=plotting.COLOR[color], alpha=0.5)
            panel.plot(config.steps, y.mean("seed"), color=plotting.COLOR[color], label=run)
        if letter in "ab":
            panel.axhline(1, ls="--", color=plotting.COLOR["prediction"], label="edge of stability")
        elif letter == "c":
            panel.axhline(0, ls="--", color=plotting.COLOR["prediction"], label="positive semi-definite")
        for plain, symbol in SYMBOLS.items():
            name = name.replace(plain, symbol)  # noqa: PLW2901
        panel.set(xlabel="step", ylabel=name, title=f"({letter}) {TITLES[letter]}")
        panel.set_yscale("linear" if letter == "c" else "log")
        panel.legend()
    return figure
