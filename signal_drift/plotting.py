"""Draws spectra and panels in the one style of the project; open it for a figure in the same colours.

It is the library's one module that plots, with `signal_drift.peft.figure`. Nothing here computes a result.
To draw a spectrum::

    figure, (axes,) = panels(1, "Spectra")
    draw_sorted(axes, eigenvalues(parts.signal), color=COLOR["signal"], label="H_Signal")
    symlog(axes, "y", zero_threshold(eigenvalues(parts.signal)))
    figure.savefig("spectra.png")
"""

from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe–Ito, told apart by colour-blind readers; one colour for each object throughout the project.
COLOR = {
    "task": "#000000",
    "signal": "#0072B2",
    "drift": "#D55E00",
    "lora": "#009E73",
    "prediction": "#CC79A7",
    "band": "#E69F00",
    "other": "#56B4E9",
}
STYLE: dict[Any, Any] = {
    "font.size": 12,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "legend.fontsize": 10.5,
    "lines.linewidth": 1.8,
    "savefig.dpi": 110,
    "svg.hashsalt": "signal_drift",
}


def panels(
    columns: int, title: str, height: float = 4.2, width: float = 5.2, rows: int = 1
) -> tuple[Figure, list[Axes]]:
    """Make rows of panels under one title, each `width` by `height` inches."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        figure.suptitle(title, x=0.01, ha="left", weight="bold", wrap=True)
    return figure, list(axes)


def shades(count: int) -> list:
    """Return colours from light to dark for an ordered parameter such as α, told apart without hue."""
    return list(mpl.colormaps["inferno_r"](np.linspace(0.18, 0.9, count)))


def zero_threshold(spectrum: Float[np.ndarray, "n"]) -> float:
    """Return n·ε·‖H‖, the rounding level below which an eigenvalue cannot be told from zero."""
    return len(spectrum) * np.finfo(float).eps * float(np.max(np.abs(spectrum)))


def draw_sorted(axes: Axes, spectrum: Float[np.ndarray, "n"], **style) -> None:
    """Draw eigenvalues from the largest to the smallest, against their position as a share of n."""
    position = (np.arange(len(spectrum)) + 0.5) / len(spectrum)
    axes.plot(position, np.sort(spectrum)[::-1], **style)


def draw_density(axes: Axes, spectrum: Float[np.ndarray, "n"], threshold: float, **style) -> None:
    """Draw the density of eigenvalues (share per unit of λ) for a symlog axis: counts over the bin width in λ.

    The middle bin is [−threshold, threshold]; what lies there is zero to rounding.
    """
    top = 1.5 * float(np.max(np.abs(spectrum)))
    positive = np.geomspace(threshold, max(top, 10 * threshold), 60)
    edges = np.concatenate([-positive[::-1], positive])
    counts, _ = np.histogram(spectrum, edges)
    density = counts / np.diff(edges) / len(spectrum)
    axes.stairs(np.where(counts > 0, density, np.nan), edges, **style)


def symlog(axes: Axes, which: str, threshold: float, decades: int = 2) -> None:
    """Make an axis symlog, linear below `threshold`, with a tick every `decades` decades."""
    getattr(axes, f"set_{which}scale")("symlog", linthresh=threshold, linscale=0.4)
    axis = getattr(axes, f"{which}axis")
    low, high = axis.get_view_interval()
    first = int(np.ceil(np.log10(threshold))) + decades - 1  # none so close to zero that labels would touch
    last = int(np.ceil(np.log10(max(abs(low), abs(high), 10 * threshold))))
    powers = 10.0 ** np.arange(last, first, -decades)
    ticks = [*(-powers[powers <= -low]), 0.0, *powers[powers <= high][::-1]]
    axis.set_ticks(ticks)


def log_axis(axes: Axes, x: str, y: str, *, log_x: int = 2, log_y: int = 10) -> None:
    """Make both axes logarithmic, and label them."""
    axes.set_xscale("log", base=log_x)
    axes.set_yscale("log", base=log_y)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
