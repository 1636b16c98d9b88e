"""F2: ℓ, ‖Δw_Drift‖ and ‖Δw_Signal‖/‖Δw_Drift‖ at every step of Adam, along (m·η₀, α₀) and (η₀, m·α₀) (App. E).

Two base runs stand beside the eight: LoRA at (η₀, α₀) and full fine-tuning at η₀.
"""

from dataclasses import dataclass, replace
from functools import partial

import xarray as xr

from experiments.analysis.divergence import LAST, RISE, behaviour, final, jitter, largest_rise, per_run, words
from experiments.analysis.intervals import Interval, mean_interval
from experiments.dynamics.eta_against_alpha import (
    FAMILIES,
    MATCHED,
    Families,
    deepest_ratio,
    draw_families,
    purity,
    purity_rows,
    slope,
    trajectories,
)
from experiments.lab import figure_files
from experiments.lab.experiment import Experiment, Report, Row, main
from experiments.problems.mlp import Setting, adapters, problem

EARLY = 10
"""Steps that count as the beginning, the first tenth."""
STATED = {"64·η₀": "oscillates", "128·η₀": "diverges", "128·α₀": "stable", "256·α₀": "stable"}
"""What App. E reports."""


@dataclass(frozen=True)
class Config(Families, Setting):
    """The ten trajectories of Fig. 2."""

    width: int = 256
    """d, inputs, outputs and hidden units of every layer."""


def points(config: Config) -> list[dict]:
    return [{"seed": seed} for seed in range(config.seeds)]


def measure(config: Config, seed: int) -> xr.Dataset:
    """The ten runs of one seed, all from the same W₀, A and data."""
    loss, base = problem(config, seed)
    return trajectories(config, loss, base, adapters(config, base, seed), config.scaling(config.alpha))


def report(config: Config, data: xr.Dataset) -> Report:
    lora = data.drop_sel(run="FFT")
    rows = [*_descent_rows(config, data), *_noise_rows(config, lora), *purity_rows(config, lora)]
    return Report(rows, _sentences(config, data), _figures(config, data))


def _descent_rows(config: Config, data: xr.Dataset) -> list[Row]:
    rows, names, level = [], per_run(behaviour, data.loss), final(data.loss)
    for run in data.run.values:
        ratio = mean_interval(level.sel(run=run).values)
        quantity = f"F2a  {run}: behaviour; final / initial loss"
        rows.append(Row(quantity, STATED.get(run, "–"), f"{words(names.sel(run=run))}; {ratio}", ratio.interval()))
    if set(MATCHED) <= set(data.run.values):
        quotient = early_ratio(data)
        name = f"F2a  loss of {MATCHED[0]} over loss of {MATCHED[1]}, mean of the first {EARLY} steps"
        rows.append(Row(name, "about 1", str(quotient), quotient.interval()))
    deeper = deepest_ratio(config, data)
    return [*rows, Row("F2a  deepest final loss, α-scaling over η-scaling", "< 1", str(deeper), deeper.interval())]


def early_ratio(data: xr.Dataset) -> Interval:
    """The losses of the pair that is said to start alike, one over the other, over the first steps."""
    early = (data.loss.sel(run=MATCHED[0]) / data.loss.sel(run=MATCHED[1])).isel(time=slice(1, EARLY + 1))
    return mean_interval(early.mean("time").values)


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


def _figures(config: Config, data: xr.Dataset) -> dict[str, figure_files.Drawing]:
    ratio = (data.signal / data.drift).isel(step=slice(1, None)).drop_sel(run="FFT")
    drift = data.drift.isel(step=slice(1, None)).drop_sel(run="FFT")
    relative = data.loss / data.loss.isel(time=0)
    return {
        "trajectories": partial(draw_families, config, "F2a  Loss", relative, "loss / initial loss", final(data.loss)),
        "drift_noise": partial(
            draw_families, config, "F2b  Drift", drift, r"$\|\Delta w_{Drift}\|$", per_run(jitter, drift)
        ),
        "purity": partial(
            draw_families,
            config,
            "F2c  Signal to drift",
            ratio,
            r"$\|\Delta w_{Signal}\|\,/\,\|\Delta w_{Drift}\|$",
            purity(data),
        ),
    }


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
