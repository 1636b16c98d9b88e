"""Draw what removing the drift does: the loss along training by arm, and limits, descent and asymmetry."""

from typing import Any

import numpy as np
import xarray as xr

from experiments.dynamics.drift_arms import (
    LIMITS,
    MIRRORED,
    NOISE,
    ORDINARY,
    PATHS,
    WORDS,
    Config,
    asymmetry,
    descending,
)
from experiments.dynamics.eta_against_alpha import run_label
from signal_drift import plotting


def losses_figure(config: Config, data: xr.Dataset) -> plotting.Figure:
    """Draw the loss over steps, an arm to a panel, darker the larger η: one seed, and the range of all."""
    shown = [arm for arm in config.arms if arm != MIRRORED]
    title = f"Is drift the culprit? Adam, {config.problem.label}, r = {config.problem.rank}, {config.over_seeds}"
    rows = 2 if len(shown) > 4 else 1
    figure, axes = plotting.panels(-(-len(shown) // rows), title, height=3.6, width=3.9, rows=rows)
    relative = data.loss / data.loss.isel(time=0)
    for panel, arm in zip(axes, shown, strict=False):
        for m, color in zip(config.multipliers, plotting.shades(len(config.multipliers)), strict=True):
            y = relative.sel(arm=arm, multiplier=m).transpose("seed", "time")
            panel.fill_between(data.time, y.min("seed"), y.max("seed"), color=color, alpha=0.15, lw=0)
            panel.plot(data.time, y.isel(seed=0), color=color, lw=1.3, label=run_label("η", m))
        panel.axhline(1, lw=1, color="#777777")
        panel.set(yscale="log", xlabel="step", title=WORDS.get(arm, arm))
        panel.sharey(axes[0])
    for panel in axes[len(shown) :]:
        panel.set_visible(False)
    for row in range(rows):
        axes[row * (len(axes) // rows)].set_ylabel("loss / initial loss")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(config.multipliers))
    return figure


def limits_figure(config: Config, data: xr.Dataset) -> plotting.Figure:
    """Draw the limits of η by arm, how often the drift descends, and the asymmetry between α and η."""
    title = f"With and without drift: {config.problem.label}, r = {config.problem.rank}, {config.over_seeds}"
    figure, (left, middle, right) = plotting.panels(3, title, height=4.4)
    arms = [arm for arm in config.arms if arm != MIRRORED]
    for meaning, mark, color, shift in zip(LIMITS, "os", ("signal", "drift"), (-0.12, 0.12), strict=True):
        style: dict[str, Any] = {"color": plotting.COLOR[color], "marker": mark, "ls": ""}
        word = "stable up to" if meaning == "stable" else "diverges from"
        y = np.arange(len(arms)) + shift
        values = data.limit.sel(meaning=meaning, arm=arms).transpose("arm", "seed")
        left.plot(values, y, alpha=0.25, ms=4, **style)
        left.plot(np.exp(np.log(values).mean("seed")), y, ms=9, label=word, **style)
    left.set_yticks(range(len(arms)), [WORDS.get(arm, arm) for arm in arms])
    left.invert_yaxis()
    left.set(xscale="log", xlabel="η / η₀", title="(a) limits of η; further right: more stable")
    left.legend(fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
    for name, arm, mark, color in (("drift", ORDINARY, "o", "drift"), ("noise in its place", NOISE, "s", "other")):
        if arm in config.arms:
            share = descending(data, arm).transpose("multiplier", "seed")
            middle.plot(data.multiplier, share, mark, color=plotting.COLOR[color], alpha=0.25, ms=4)
            middle.plot(data.multiplier, share.mean("seed"), marker=mark, color=plotting.COLOR[color], label=name)
    middle.axhline(0.5, ls="--", color=plotting.COLOR["prediction"], label="C3: no alignment")
    middle.set_xscale("log", base=2)
    middle.set(xlabel="η / η₀", ylabel="share of steps that descend", ylim=(-0.03, 1.03), title="(b) descent of drift")
    middle.legend(fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3)
    for x, path in enumerate(PATHS):
        values = asymmetry(data, path)
        right.plot(np.full(len(values), x), values, "o", color=plotting.COLOR["lora"], alpha=0.25, ms=4)
        right.plot(x, values.mean(), "o", color=plotting.COLOR["lora"], ms=9)
    right.axhline(0, ls="--", color=plotting.COLOR["prediction"])
    right.set_xticks(range(len(PATHS)), [WORDS.get(path, path) for path in PATHS])
    right.set(ylabel="ln(deepest loss over α / over η)", title="(c) α against η; 0: exchangeable")
    right.set_xlim(-0.5, len(PATHS) - 0.5)
    return figure
