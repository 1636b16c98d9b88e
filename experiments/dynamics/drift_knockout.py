"""Knock the drift out of training, turn it round, multiply it, replace it by noise, and see whether it was the culprit.

The paper explains the trouble of a large η by the drift and never removes it. Here W₀ takes up (c − 1)·s ΔBΔA at every
step of Adam, so that w moves by ΔW_Signal + c·ΔW_Drift, from the same A, W₀ and data in every arm. With one factor at a
time, and with A frozen, there is no drift to begin with. C1 to C4 are the paper's mechanism, asked of these runs.
"""

from functools import partial
from typing import Any

import xarray as xr

from experiments.analysis.divergence import classify, counted, final, per_run
from experiments.analysis.intervals import Estimate, geometric_mean_of, mean_of
from experiments.dynamics.drift_arms import (
    FROZEN,
    LARGE,
    LIMITS,
    MIRRORED,
    NOISE,
    ORDINARY,
    PATHS,
    PROBES,
    REMOVED,
    WORDS,
    Config,
    asymmetry,
    better_step,
    calmer,
    descending,
    left_of_asymmetry,
    measure,
    raised,
    share_of_descent,
)
from experiments.dynamics.drift_figures import limits_figure, losses_figure
from experiments.dynamics.eta_against_alpha import run_label
from experiments.dynamics.known import known, mean_cells
from experiments.lab.experiment import Experiment, Point, Report, Row
from experiments.lab.problem import Problem


def configure(problem: Problem) -> Config:
    """Start where the problem's trajectories start; on a costly one fewer seeds, rates and arms, and no fine limits."""
    eta, alpha = problem.start_of_trajectories
    steps = problem.tuning.steps if problem.tuning else Config.steps
    here: dict[str, Any] = {"learning_rate": eta, "alpha": alpha, "steps": steps}
    if problem.costly:
        few = (ORDINARY, REMOVED, "fourfold", FROZEN, MIRRORED)
        return Config(problem, seeds=3, multipliers=(32.0, 128.0, 512.0), arms=few, halvings=1, **here)
    return Config(problem.resized(256), **here)


def points(config: Config) -> list[Point]:
    return [{"seed": seed} for seed in range(config.seeds)]


def report(config: Config, data: xr.Dataset) -> Report:
    rows = [
        *(_limit_row(data, arm, meaning) for meaning in LIMITS for arm in config.arms),
        *(
            Row(
                f"C2   jitter of the loss over that of the ordinary run, η ≥ {LARGE:g}·η₀, {WORDS.get(arm, arm)}",
                *_cells(stated, x),
            )
            for arm in config.arms
            if arm != ORDINARY
            for stated, x in [("< 1 (C2)" if arm == REMOVED else "–", calmer(data, arm))]
        ),
        *(row for m in config.multipliers for row in _descent_rows(data.sel(multiplier=m), m)),
        *(_asymmetry_row(data, path) for path in PATHS),
        *(_behaviour_row(data, arm, m) for m in config.multipliers for arm in config.arms),
    ]
    figures = {
        "drift_knockout": partial(losses_figure, config, data),
        "drift_knockout_limits": partial(limits_figure, config, data),
    }
    return Report(rows, _sentences(config, data), figures)


def _cells(stated: str, estimate: Estimate) -> tuple[str, str, str]:
    return stated, *estimate.cells("not finite")


def _limit_row(data: xr.Dataset, arm: str, meaning: str) -> Row:
    words = {"stable": "largest η/η₀ at which a run is stable", "diverges": "smallest η/η₀ from which it diverges"}
    value, interval = geometric_mean_of(data.limit.sel(arm=arm, meaning=meaning).values).cells("out of reach")
    return Row(f"C1   {words[meaning]}, {WORDS.get(arm, arm)}", "–", value, interval)


def _descent_rows(data: xr.Dataset, m: float) -> list[Row]:
    """Say how often the drift descends, and what its descent is beside the signal's, in the ordinary run."""
    share, sums = descending(data, ORDINARY), share_of_descent(data, ORDINARY)
    label = run_label("η", m)
    rows = [
        Row(f"C3   share of steps at which the drift descends, {label}", "0.5 (C3)", *mean_cells(share)),
        Row(f"     its descent over the signal's, summed over steps, {label}", "–", *mean_cells(sums)),
    ]
    if NOISE in data.arm.values:
        noise = mean_cells(descending(data, NOISE))
        rows.append(Row(f"     the same of noise of its norm in its place, {label}", "0.5", *noise))
    for probe in PROBES[1:]:
        lower = better_step(data, probe)
        words = f"     share of states from which the step '{probe}' ends lower than the drift as it is, {label}"
        rows.append(Row(words, "–", *mean_cells(lower)))
    return rows


def _asymmetry_row(data: xr.Dataset, path: str) -> Row:
    depth = mean_of(asymmetry(data, path))
    name = f"C4   ln of the deepest final loss over α, over that over η, {WORDS.get(path, path)}"
    return Row(name, "0 (X9)" if path == FROZEN else "–", *depth.cells("not finite"))


def _behaviour_row(data: xr.Dataset, arm: str, m: float) -> Row:
    here = data.loss.sel(arm=arm, multiplier=m)
    level = geometric_mean_of(final(here).values)
    name = f"     {WORDS.get(arm, arm)}, {run_label('η', m)}: behaviour; final / initial loss"
    value, interval = level.cells("not finite")
    return Row(name, "–", f"{counted(per_run(classify, here))}; {value}", interval)


def _sentences(config: Config, data: xr.Dataset) -> list[str]:
    share, sums = known(descending(data, ORDINARY)), known(share_of_descent(data, ORDINARY))
    found = {arm: raised(data, arm) for arm in (REMOVED, FROZEN) if arm in config.arms}
    return [
        f"Without the drift the largest stable η is {found[REMOVED]} times that with it {found[REMOVED].interval()}; "
        f"with A frozen it is {found[FROZEN]} times as large {found[FROZEN].interval()}.",
        f"The drift descends at {share.mean():.0%} of the steps ({share.min():.0%} to {share.max():.0%} of a run); its "
        f"descent in sum is {sums.mean():.1%} of the signal's.",
        f"Of the asymmetry between α and η, {left_of_asymmetry(data, REMOVED)} is left without drift "
        f"{left_of_asymmetry(data, REMOVED).interval()}, and {left_of_asymmetry(data, FROZEN)} with A frozen.",
    ]


CAPTIONS = {
    "drift_knockout": (
        "Loss along training over η, with the drift as it is and with it removed, turned round, multiplied or replaced "
        "by noise of its norm, and in two ways of training that have none; one seed, and the range of all. Did the "
        "drift make a large η oscillate, the second panel would be calm."
    ),
    "drift_knockout_limits": (
        "Up to which η a run is stable and from which it diverges, by what becomes of the drift (a); at how many steps "
        "the drift points downhill, beside noise in its place (b); and how much deeper multiplying α goes than "
        "multiplying η (c): 0 where the two are exchangeable, as they are with A frozen (X9)."
    ),
}
"""What to see in each figure, what is expected, and which side is better."""

EXPERIMENT = Experiment(
    name="drift_knockout",
    title="C1–C4: training with the drift as it is, removed, turned round, multiplied, and replaced by noise.",
    configure=configure,
    points=points,
    measure=measure,
    report=report,
    stages=(1, 2, 4),
    tiny={"seeds": 2, "steps": 30, "multipliers": (32.0, 128.0, 512.0), "halvings": 1},
    captions=CAPTIONS,
)
