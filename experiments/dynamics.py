"""F2: ℓ, ‖Δw_Drift‖ and ‖Δw_Signal‖/‖Δw_Drift‖ at every step of Adam, along (m·η₀, α₀) and (η₀, m·α₀) (App. E).

Two base runs stand beside the eight: LoRA at (η₀, α₀) and full fine-tuning at η₀.
"""

from dataclasses import dataclass, replace
from functools import partial

import jax
import numpy as np
import optax
import xarray as xr

import signal_drift as sd
from experiments import figures
from experiments.behaviour import LAST, RISE, behaviour, final, jitter, largest_rise, per_run, words
from experiments.experiment import Experiment, Report, Row, main
from experiments.setting import Setting, adapters, problem
from experiments.statistics import Estimate, exponents, mean_interval

EARLY = 10
"""Steps that count as the beginning, the first tenth."""
FAMILIES = ("η", "α")
STATED = {"64·η₀": "oscillates", "128·η₀": "diverges", "128·α₀": "stable", "256·α₀": "stable"}
"""What App. E reports."""
MATCHED = ("64·η₀", "128·α₀")
"""The pair that App. E says to start alike."""


@dataclass(frozen=True)
class Config(Setting):
    """The ten trajectories of Fig. 2."""

    width: int = 256
    """d, inputs, outputs and hidden units of every layer."""
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


def label(family: str, multiplier: float) -> str:
    return f"{multiplier:g}·{family}₀"


def labels(config: Config, family: str) -> list[str]:
    return [label(family, m) for m in config.multipliers(family)]


def points(config: Config) -> list[dict]:
    return [{"seed": seed} for seed in range(config.seeds)]


def measure(config: Config, seed: int) -> xr.Dataset:
    """The ten runs of one seed, all from the same W₀, A and data."""
    loss, base = problem(config, seed)
    start, s, eta = adapters(config, base, seed), config.scaling(config.alpha), config.learning_rate
    runs = {
        "LoRA": _run(loss, base, start, s, eta, config.steps),
        "FFT": _run(loss, base, None, 1.0, eta, config.steps),
    }
    for m in config.eta_multipliers:
        runs[label("η", m)] = _run(loss, base, start, s, m * eta, config.steps)
    for m in config.alpha_multipliers:
        runs[label("α", m)] = _run(loss, base, start, m * s, eta, config.steps)
    return xr.Dataset(
        {
            "loss": (("run", "time"), np.array([run.loss for run in runs.values()])),
            "signal": (("run", "step"), np.array([run.signal_norm for run in runs.values()])),
            "drift": (("run", "step"), np.array([run.drift_norm for run in runs.values()])),
        },
        coords={"run": list(runs), "time": np.arange(config.steps + 1), "step": np.arange(1, config.steps + 1)},
    )


@partial(jax.jit, static_argnames="steps")
def _run(loss, base, start, s, learning_rate, steps: int) -> sd.Run:
    return sd.train(loss, base, start, s, optax.adam(learning_rate), steps)


def purity(data: xr.Dataset) -> xr.DataArray:
    """Geometric mean of ‖Δw_Signal‖/‖Δw_Drift‖ from the second step on (at the first the drift is zero: X3)."""
    later = data.isel(step=slice(1, None))
    return np.exp(np.log(later.signal / later.drift).mean("step"))


def slope(config: Config, values: xr.DataArray, family: str) -> Estimate:
    """The exponent of the multiplier along one family, per seed, then over seeds."""
    y = values.sel(run=labels(config, family)).transpose("seed", "run").values
    return mean_interval(exponents(config.multipliers(family), y))


def report(config: Config, data: xr.Dataset) -> Report:
    lora = data.drop_sel(run="FFT")
    rows = [*_descent_rows(config, data), *_noise_rows(config, lora), *_purity_rows(config, lora)]
    return Report(rows, _sentences(config, data), _figures(config, data))


def _descent_rows(config: Config, data: xr.Dataset) -> list[Row]:
    rows, names, level = [], per_run(behaviour, data.loss), final(data.loss)
    for run in data.run.values:
        ratio = mean_interval(level.sel(run=run).values)
        quantity = f"F2a  {run}: behaviour; final / initial loss"
        rows.append(Row(quantity, STATED.get(run, "–"), f"{words(names.sel(run=run))}; {ratio}", ratio.interval()))
    if set(MATCHED) <= set(data.run.values):
        early = data.loss.sel(run=MATCHED[0]) / data.loss.sel(run=MATCHED[1])
        quotient = mean_interval(early.isel(time=slice(1, EARLY + 1)).mean("time").values)
        name = f"F2a  loss of {MATCHED[0]} over loss of {MATCHED[1]}, mean of the first {EARLY} steps"
        rows.append(Row(name, "about 1", str(quotient), quotient.interval()))
    best = {f: level.sel(run=labels(config, f)).min("run") for f in FAMILIES}
    deeper = mean_interval((best["α"] / best["η"]).values)
    return [*rows, Row("F2a  deepest final loss, α-scaling over η-scaling", "< 1", str(deeper), deeper.interval())]


def _noise_rows(config: Config, data: xr.Dataset) -> list[Row]:
    quantities = {
        "jitter of ‖Δw_Drift‖": (per_run(jitter, data.drift), {"η": "> 0", "α": "≤ 0"}),
        "mean ‖Δw_Drift‖": (data.drift.mean("step"), {"η": "2 (P4)", "α": "1 (P4)"}),
    }
    return [
        Row(f"F2b  exponent of the {name} in {family}", stated[family], str(fit), fit.interval())
        for name, (values, stated) in quantities.items()
        for family in FAMILIES
        for fit in [slope(config, values, family)]
    ]


def _purity_rows(config: Config, data: xr.Dataset) -> list[Row]:
    ratio, second = purity(data), (data.signal / data.drift).isel(step=1)
    rows = [
        Row(f"F2c  exponent of the signal-to-drift ratio in {family}, {when}", stated, str(fit), fit.interval())
        for when, values in (("second step", second), ("all steps", ratio))
        for family, stated in zip(FAMILIES, ("-1 (P4)", "0 (P4)"), strict=True)
        for fit in [slope(config, values, family)]
    ]
    same = [(label("η", m), label("α", m)) for m in config.eta_multipliers if m in config.alpha_multipliers]
    for eta, alpha in [*same, *([MATCHED] if set(MATCHED) <= set(data.run.values) else [])]:
        quotient = mean_interval((ratio.sel(run=alpha) / ratio.sel(run=eta)).values)
        share = f"{share_above(data, alpha, eta):.0%} of steps above"
        name = f"F2c  signal-to-drift ratio, {alpha} over {eta} ({share})"
        rows.append(Row(name, "> 1", str(quotient), quotient.interval()))
    return rows


def share_above(data: xr.Dataset, upper: str, lower: str) -> float:
    """The share of steps, from the second on, at which one run has the higher signal-to-drift ratio."""
    ratio = (data.signal / data.drift).isel(step=slice(1, None))
    return float((ratio.sel(run=upper) > ratio.sel(run=lower)).mean())


def _sentences(config: Config, data: xr.Dataset) -> list[str]:
    names, rise = per_run(behaviour, data.loss), per_run(largest_rise, data.loss)
    judged = [run for run in STATED if run in data.run.values]
    parts = [
        f"{run} is reported to be: {STATED[run]}; measured: {words(names.sel(run=run))} "
        f"(largest climb ×{float(rise.sel(run=run).max()):.3g})"
        for run in judged
    ]
    return [
        f"Diverges: the median of the last {LAST} losses exceeds the initial loss. Oscillates: the loss climbs by more "
        f"than {RISE - 1:.0%} above its lowest value so far.",
        *(f"{part}." for part in parts),
    ]


def _figures(config: Config, data: xr.Dataset) -> dict[str, figures.Drawing]:
    ratio = (data.signal / data.drift).isel(step=slice(1, None)).drop_sel(run="FFT")
    drift = data.drift.isel(step=slice(1, None)).drop_sel(run="FFT")
    relative = data.loss / data.loss.isel(time=0)
    return {
        "trajectories": partial(_figure, config, "F2a  Loss", relative, "loss / initial loss", final(data.loss)),
        "drift_noise": partial(_figure, config, "F2b  Drift", drift, r"$\|\Delta w_{Drift}\|$", per_run(jitter, drift)),
        "purity": partial(
            _figure,
            config,
            "F2c  Signal to drift",
            ratio,
            r"$\|\Delta w_{Signal}\|\,/\,\|\Delta w_{Drift}\|$",
            purity(data),
        ),
    }


SUMMARY = {"F2a": "final / initial loss", "F2b": "jitter of log drift norm", "F2c": "geometric mean of the ratio"}
POWERS = {"F2b": {"α": 0}, "F2c": {"η": -1, "α": 0}}
"""Stated exponents of the multiplier, drawn through the smallest one."""


def _figure(config: Config, title: str, values: xr.DataArray, name: str, summary: xr.DataArray) -> figures.Figure:
    """The η family, the α family on the same axis, and one number for each run against its multiplier."""
    size = f": Adam, d = {config.width}, r = {config.rank}, {config.seeds} seeds"
    figure, axes = figures.panels(3, title + size, height=4.6)
    for panel, family, letter in zip(axes, FAMILIES, "ab", strict=False):
        other = "α = α₀" if family == "η" else "η = η₀"
        _draw_runs(panel, values, ["LoRA", "FFT"], ["#999999", figures.COLOR["task"]], "--")
        _draw_runs(panel, values, labels(config, family), figures.shades(len(config.multipliers(family))), "-")
        panel.set(title=f"({letter}) {family}-scaling, {other}", xlabel="step", ylabel=name, yscale="log")
        panel.legend(ncols=2)
    axes[1].sharey(axes[0])
    for family, color in zip(FAMILIES, ("drift", "signal"), strict=True):
        m, y = config.multipliers(family), summary.sel(run=labels(config, family)).transpose("run", "seed").values
        axes[2].plot(m, y, "o", color=figures.COLOR[color], alpha=0.5)
        axes[2].plot(m, y.mean(1), color=figures.COLOR[color], label=f"{family}-scaling")
        power = POWERS.get(title[:3], {}).get(family)
        if power is not None:
            axes[2].plot(m, y[0].mean() * (m / m[0]) ** power, "--", color=figures.COLOR["prediction"])
    if title[:3] == "F2a":
        axes[2].axhline(1, ls="--", color=figures.COLOR["prediction"], label="above: diverges")
    figures.log_axis(axes[2], "multiplier m of η₀ or of α₀", SUMMARY[title[:3]])
    axes[2].set_title("(c) each seed" + (", stated power dashed" if title[:3] in POWERS else ""))
    axes[2].legend()
    return figure


def _draw_runs(panel: figures.Axes, values: xr.DataArray, runs: list[str], colors: list, style: str) -> None:
    """The median over seeds, and the band from the lowest to the highest seed."""
    time = next(name for name in values.dims if name in ("time", "step"))
    for run, color in zip(runs, colors, strict=True):
        if run in values.run.values:
            y = values.sel(run=run).transpose("seed", time)
            panel.fill_between(values[time], y.min("seed"), y.max("seed"), color=color, alpha=0.2, lw=0)
            panel.plot(values[time], y.median("seed"), style, color=color, label=run)


EXPERIMENT = Experiment(
    name="dynamics",
    title="F2: loss, drift norm and signal-to-drift ratio along training, learning rate against scaling factor.",
    paper=Config(),
    quick=replace(Config(), width=8, depth=3, samples=20, rank=3, seeds=2, steps=30),
    points=points,
    measure=measure,
    report=report,
)

if __name__ == "__main__":
    main(EXPERIMENT)
