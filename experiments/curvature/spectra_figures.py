"""The figure of the spectra along training."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import xarray as xr

from signal_drift import plotting

if TYPE_CHECKING:
    from experiments.dynamics import along_training as spectra_along_training

SYMBOLS = {"H_LoRA": "$H_{LoRA}$", "H_Signal": "$H_{Signal}$", "H_Drift": "$H_{Drift}$", "λmax": r"$\lambda_{max}$"}
TITLES = {"a": "gradient descent's edge", "b": "Adam's edge", "c": "negative curvature", "d": "what the drift adds"}


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
