"""Draws an audit: α as stored and as the rules would have it, and the spectrum of each update."""

import numpy as np
from matplotlib.figure import Figure

from signal_drift.errors.words import printable
from signal_drift.peft.audit import Audit
from signal_drift.plotting import COLOR, panels

NAMED = 12
"""Layers that have room for their names."""


def draw_audit(found: Audit) -> Figure:
    """Draw α = s·r of each layer beside V1 and V2 (left), and the singular values of s·BA over the largest (right)."""
    figure, (left, right) = panels(2, "A stored adapter, layer by layer", width=6.5)
    index = np.arange(len(found))
    left.semilogy(index, [x.v1 for x in found], "_", ms=9, color=COLOR["band"], label="V1: 256√r")
    left.semilogy(index, [x.v2 for x in found], "_", ms=9, color=COLOR["prediction"], label="V2: √r/σ_A")
    left.semilogy(index, [x.alpha for x in found], "o", ms=4, color=COLOR["signal"], label="as stored")
    left.set(xlabel="layer", ylabel="α in W = W₀ + (α/r)·BA")
    if len(found) <= NAMED:
        left.set_xticks(
            index, [printable(x.layer) for x in found], rotation=30, ha="right", fontsize=8, parse_math=False
        )
    left.legend()
    updated = [x.singular_values for x in found if x.norm > 0]
    for values in updated:
        right.semilogy(np.arange(1, len(values) + 1), values / values[0], color=COLOR["signal"], alpha=0.3, lw=1)
    right.set(xlabel="index", ylabel="singular value of s·BA over the largest", ylim=(1e-7, 2))
    if not updated:
        right.text(0.5, 0.5, "B = 0: no update yet", transform=right.transAxes, ha="center")
    return figure
