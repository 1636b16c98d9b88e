"""Run Adam along (m·η₀, α₀) and along (η₀, m·α₀), measure these runs and draw them (F2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr

import signal_drift as sd
from experiments.analysis.divergence import final
from experiments.analysis.intervals import Interval, exponents, mean_interval
from experiments.lab.experiment import Row
from experiments.lab.problem import Setting
from experiments.problems.adam_run import adam_run
from signal_drift import plotting

FAMILIES = ("η", "α")
"""Which of the two is multiplied while the other is held."""
MATCHED = ("64·η₀", "128·α₀")
"""The pair that App. E says to start alike."""
STATED = {"64·η₀": "oscillates", "128·η₀": "diverges", "128·α₀": "stable", "256·α₀": "stable"}
"""How App. E says that its runs end."""


@dataclass(frozen=True)
class Families(Setting):
    """Run ten trajectories: α₀ and η₀, each multiplied with the other held, LoRA at both and full fine-tuning at η₀."""

    learning_rate: float = 1e-4
    """η₀ of Adam."""
    alpha: float = 1.0
    """α₀."""
    eta_multipliers: tuple[float, ...] = (16.0, 32.0, 64.0, 128.0)
    """η/η₀ at α₀."""
    alpha_multipliers: tuple[float, ...] = (32.0, 64.0, 128.0, 256.0)
    """α/α₀ at η₀."""
    steps: int = 100
    """Training steps."""

    def multipliers(self, family: str) -> np.ndarray:
        return np.array(self.eta_multipliers if family == "η" else self.alpha_multipliers)


def run_label(family: str, multiplier: float) -> str:
    return f"{multiplier:g}·{family}₀"


def run_labels(config: Families, family: str) -> list[str]:
    return [run_label(family, m) for m in config.multipliers(family)]


def run_styles(etas: Sequence[str], alphas: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Choose how runs are drawn: η warm, whole lines and circles, α cool, dashed and squares, darker the larger."""
    families = (etas, "YlOrRd", "-", "o"), (alphas, "YlGnBu", "--", "s")
    return {
        run: {"color": color, "ls": line, "marker": marker, "ms": 5}
        for runs, name, line, marker in families
        for run, color in zip(runs, mpl.colormaps[name](np.linspace(0.45, 0.95, len(runs))), strict=True)
    }


def trajectories(config: Families, seed: int) -> xr.Dataset:
    """Record loss, ‖Δw_Signal‖ and ‖Δw_Drift‖ of every run of one seed, all from the same W₀, A and data.

    On a problem with minibatches the loss of a step is that of its own batch.
    """
    problem, start = config.problem, config.problem.adapters(seed)
    s, eta = problem.scaling(config.alpha), config.learning_rate

    def run(m_eta: float = 1.0, m_alpha: float = 1.0) -> sd.Run:
        return adam_run(problem, seed, start, m_alpha * s, m_eta * eta, config.steps)

    runs = {"LoRA": run(), "FFT": adam_run(problem, seed, None, 1.0, eta, config.steps)}
    runs |= {run_label("η", m): run(m_eta=m) for m in config.eta_multipliers}
    runs |= {run_label("α", m): run(m_alpha=m) for m in config.alpha_multipliers}
    return xr.Dataset(
        {
            "loss": (("run", "time"), np.array([run.loss for run in runs.values()])),
            "signal": (("run", "step"), np.array([run.signal_norm for run in runs.values()])),
            "drift": (("run", "step"), np.array([run.drift_norm for run in runs.values()])),
        },
        coords={"run": list(runs), "time": np.arange(config.steps + 1), "step": np.arange(1, config.steps + 1)},
    )


def purity(data: xr.Dataset) -> xr.DataArray:
    """Return the geometric mean of ‖Δw_Signal‖/‖Δw_Drift‖ from the second step on: at the first the drift is 0 (X3)."""
    later = data.isel(step=slice(1, None))
    return np.exp(np.log(later.signal / later.drift).mean("step"))


def slope(config: Families, values: xr.DataArray, family: str) -> Interval:
    """Fit the exponent of the multiplier along one family, per seed, then over seeds."""
    y = values.sel(run=run_labels(config, family)).transpose("seed", "run").values
    return mean_interval(exponents(config.multipliers(family), y))


def pairs(config: Families, data: xr.Dataset) -> list[tuple[str, str]]:
    """Pair the runs (α-scaled, η-scaled) that are compared: the same multiplier, and the pair that starts alike."""
    same = [(run_label("α", m), run_label("η", m)) for m in config.eta_multipliers if m in config.alpha_multipliers]
    eta, alpha = MATCHED
    return same + [(alpha, eta)] * bool({alpha, eta} <= set(data.run.values))


def deepest_ratio(config: Families, data: xr.Dataset) -> Interval:
    """Divide the deepest final loss of α-scaling by that of η-scaling."""
    level = final(data.loss)
    eta, alpha = (level.sel(run=run_labels(config, family)).min("run") for family in FAMILIES)
    return mean_interval((alpha / eta).values)


def purity_rows(config: Families, data: xr.Dataset) -> list[Row]:
    ratio, second = purity(data), (data.signal / data.drift).isel(step=1)
    rows = [
        Row(f"F2c  exponent of the signal-to-drift ratio in {family}, {when}", stated, str(fit), fit.interval())
        for when, values in (("second step", second), ("all steps", ratio))
        for family, stated in zip(FAMILIES, ("-1 (P4)", "0 (P4)"), strict=True)
        for fit in [slope(config, values, family)]
    ]
    for alpha, eta in pairs(config, data):
        quotient = mean_interval((ratio.sel(run=alpha) / ratio.sel(run=eta)).values)
        share = f"{float(share_above(data, alpha, eta).mean()):.0%} of steps above"
        name = f"F2c  signal-to-drift ratio, {alpha} over {eta} ({share})"
        rows.append(Row(name, "> 1", str(quotient), quotient.interval()))
    return rows


def share_above(data: xr.Dataset, upper: str, lower: str) -> xr.DataArray:
    """Return, by seed, the share of steps from the second on at which one run has the higher signal-to-drift ratio."""
    ratio = (data.signal / data.drift).isel(step=slice(1, None))
    return (ratio.sel(run=upper) > ratio.sel(run=lower)).mean("step")


SUMMARY = {"F2a": "final / initial loss", "F2b": "jitter of log drift norm", "F2c": "geometric mean of the ratio"}
POWERS = {"F2b": {"α": 0}, "F2c": {"η": -1, "α": 0}}
"""Stated exponents of the multiplier, drawn through the smallest one."""


def draw_families(
    config: Families, title: str, values: xr.DataArray, name: str, summary: xr.DataArray
) -> plotting.Figure:
    """Draw the η family, the α family on the same axis, and one number for each run against its multiplier."""
    size = f": Adam, {config.problem.label}, r = {config.problem.rank}, {config.seeds} seeds"
    figure, axes = plotting.panels(3, title + size, height=4.6)
    for panel, family, letter in zip(axes, FAMILIES, "ab", strict=False):
        other = "α = α₀" if family == "η" else "η = η₀"
        _draw_runs(panel, values, ["LoRA", "FFT"], ["#999999", plotting.COLOR["task"]], "--")
        _draw_runs(panel, values, run_labels(config, family), plotting.shades(len(config.multipliers(family))), "-")
        panel.set(title=f"({letter}) {family}-scaling, {other}", xlabel="step", ylabel=name, yscale="log")
        panel.legend(ncols=2)
    axes[1].sharey(axes[0])
    axes[0].autoscale(axis="y")  # to both families
    for family, color in zip(FAMILIES, ("drift", "signal"), strict=True):
        m, y = config.multipliers(family), summary.sel(run=run_labels(config, family)).transpose("run", "seed").values
        axes[2].plot(m, y, "o", color=plotting.COLOR[color], alpha=0.5)
        axes[2].plot(m, y.mean(1), color=plotting.COLOR[color], label=f"{family}-scaling")
        power = POWERS.get(title[:3], {}).get(family)
        if power is not None:
            axes[2].plot(m, y[0].mean() * (m / m[0]) ** power, "--", color=plotting.COLOR["prediction"])
    if title[:3] == "F2a":
        axes[2].axhline(1, ls="--", color=plotting.COLOR["prediction"], label="above: diverges")
    plotting.log_axis(axes[2], "multiplier m of η₀ or of α₀", SUMMARY[title[:3]])
    axes[2].set_title("(c) each seed" + (", stated power dashed" if title[:3] in POWERS else ""))
    axes[2].legend()
    return figure


def _draw_runs(panel: plotting.Axes, values: xr.DataArray, runs: list[str], colors: list[str], style: str) -> None:
    """Draw the median over seeds, and the band from the lowest to the highest seed."""
    time = next(name for name in values.dims if name in ("time", "step"))
    for run, color in zip(runs, colors, strict=True):
        if run in values.run.values:
            y = values.sel(run=run).transpose("seed", time)
            panel.fill_between(values[time], y.min("seed"), y.max("seed"), color=color, alpha=0.2, lw=0)
            panel.plot(values[time], y.median("seed"), style, color=color, label=run)
