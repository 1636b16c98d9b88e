"""Record F2: ℓ, ‖Δw_Drift‖, ‖Δw_Signal‖/‖Δw_Drift‖ at every step of Adam, along (m·η₀, α₀), (η₀, m·α₀) (App. E).

Two base runs stand beside the eight: LoRA at (η₀, α₀) and full fine-tuning at η₀.
"""

from functools import partial

import xarray as xr

from experiments.analysis.divergence import LAST, RISE, classify, counted, final, jitter, largest_rise, per_run
from experiments.analysis.intervals import Estimate, geometric_mean_of
from experiments.dynamics.eta_against_alpha import (
    FAMILIES,
    MATCHED,
    STATED,
    Families,
    deepest_ratio,
    exponent_by_step,
    purity_rows,
    ratio_over_x14,
    slope,
    trajectories,
)
from experiments.dynamics.known import mean_cells
from experiments.dynamics.trajectory_figures import (
    drift_noise_figure,
    exponents_figure,
    purity_figure,
    trajectories_figure,
)
from experiments.lab.experiment import Experiment, Point, Report, Row
from experiments.lab.figure_files import Drawing
from experiments.lab.problem import Problem, Tuning

EARLY = 10
"""Steps that count as the beginning, the first tenth."""
BY_STEP = (2, 3, 5, 10, 30, 100)
"""Steps at which the exponents of the signal-to-drift ratio are told."""


def configure(problem: Problem) -> Families:
    """Start where the problem's trajectories start, for as many steps and seeds as it is tuned with."""
    eta, alpha = problem.start_of_trajectories
    sizes = problem.tuning or Tuning()
    return Families(problem.resized(256), sizes.seeds, learning_rate=eta, alpha=alpha, steps=sizes.steps)


def points(config: Families) -> list[Point]:
    return [{"seed": seed} for seed in range(config.seeds)]


def measure(config: Families, seed: int) -> xr.Dataset:
    return trajectories(config, seed)


def report(config: Families, data: xr.Dataset) -> Report:
    lora = data.drop_sel(run="FFT")
    rows = [
        *_descent_rows(config, data),
        *_noise_rows(config, lora),
        *purity_rows(config, lora),
        *_x14_rows(config, lora),
    ]
    return Report(rows, _sentences(data), _figures(config, lora))


def _descent_rows(config: Families, data: xr.Dataset) -> list[Row]:
    rows, names, level = [], per_run(classify, data.loss), final(data.loss)
    for run in data.run.values:
        ratio = geometric_mean_of(level.sel(run=run).values)
        quantity = f"F2a  {run}: behaviour; final / initial loss"
        rows.append(Row(quantity, STATED.get(run, "–"), f"{counted(names.sel(run=run))}; {ratio}", ratio.interval()))
    if set(MATCHED) <= set(data.run.values):
        quotient = early_ratio(data)
        name = f"F2a  loss of {MATCHED[0]} over loss of {MATCHED[1]}, mean of the first {EARLY} steps"
        rows.append(Row(name, "about 1", str(quotient), quotient.interval()))
    deeper = deepest_ratio(config, data)
    return [*rows, Row("F2a  deepest final loss, α-scaling over η-scaling", "< 1", str(deeper), deeper.interval())]


def early_ratio(data: xr.Dataset) -> Estimate:
    """Divide the losses of the pair that is said to start alike, one by the other, over the first steps."""
    early = (data.loss.sel(run=MATCHED[0]) / data.loss.sel(run=MATCHED[1])).isel(time=slice(1, EARLY + 1))
    return geometric_mean_of(early.mean("time").values)


def _noise_rows(config: Families, data: xr.Dataset) -> list[Row]:
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


def _sentences(data: xr.Dataset) -> list[str]:
    names, rise = per_run(classify, data.loss), per_run(largest_rise, data.loss)
    judged = [run for run in STATED if run in data.run.values]
    parts = [
        f"{run} is reported to be: {STATED[run]}; measured: {counted(names.sel(run=run))} "
        f"(largest climb ×{float(rise.sel(run=run).max()):.3g})"
        for run in judged
    ]
    return [
        f"Diverges: the median of the last {LAST} losses exceeds the initial loss. Oscillates: the loss climbs by more "
        f"than {RISE - 1:.0%} above its lowest value so far.",
        *(f"{part}." for part in parts),
    ]


def _x14_rows(config: Families, data: xr.Dataset) -> list[Row]:
    """Say how far along training X14 has taken over from P4: the limit, and the exponents by step."""
    rows = [
        Row(f"X14  signal/drift over 2(t − 1), {run}, t ≥ max(5, σ_A/(3η))", "1", str(mean), mean.interval())
        for run, values in ratio_over_x14(config, data).items()
        for mean in [geometric_mean_of(values)]
    ]
    by_step = exponent_by_step(config, data)
    return rows + [
        Row(
            f"P4   exponent of {family} in signal/drift at step {t}",
            stated,
            *mean_cells(by_step.sel(family=family, step=t)),
        )
        for family, stated in zip(FAMILIES, ("-1 (P4), 0 (X14)", "0"), strict=True)
        for t in BY_STEP
        if t in by_step.step
    ]


def _figures(config: Families, data: xr.Dataset) -> dict[str, Drawing]:
    drawings = {
        "trajectories": trajectories_figure,
        "drift_noise": drift_noise_figure,
        "purity": purity_figure,
        "purity_exponents": exponents_figure,
    }
    return {name: partial(draw, config, data) for name, draw in drawings.items()}


CAPTIONS = {
    "trajectories": (
        "Loss along training, η-scaled runs warm, α-scaled ones cool, median and range over seeds: the paper "
        "expects 64·η₀ and 128·α₀ to start alike, 128·η₀ to diverge, and α to fit deeper; lower is better."
    ),
    "drift_noise": (
        "The norm of the drift along training (left) and its jitter, how far log ‖Δw_Drift‖ of a step lies from "
        "the mean of its neighbours (right): the paper expects η to raise it and α not to; lower is calmer."
    ),
    "purity": (
        "Signal over drift along training: the paper expects α-scaled runs to stay above η-scaled ones "
        "throughout, X14 expects every run to tend to 2(t − 1); higher is purer."
    ),
    "purity_exponents": (
        "The exponents of η and α in signal over drift at every step: P4 states −1 and 0, "
        "and X14 expects both to go to 0."
    ),
}
"""What to see in each figure, what is expected, and which side is better."""

EXPERIMENT = Experiment(
    name="dynamics",
    title="F2: loss, drift norm and signal-to-drift ratio along training, learning rate against scaling factor.",
    configure=configure,
    points=points,
    measure=measure,
    report=report,
    tiny={"seeds": 2, "steps": 30},
    stages=(1, 4, 12),
    captions=CAPTIONS,
)
