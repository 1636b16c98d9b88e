"""Count under momentum (P2-descent) how often ⟨Δw_Signal, −g⟩ < 0 along training with Adam (Eq. 22–28).

⟨Δw_Signal, −g⟩ = ⟨Δθ, −∇_θ ℓ⟩. Without momentum Adam divides each entry of ∇_θ ℓ by a positive number, and the product
is a sum of squares; with momentum Δθ remembers older gradients, and the sign is an empirical question.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
import optax
import xarray as xr
from jax import Array
from jax.tree_util import Partial

import signal_drift as sd
from experiments.analysis.intervals import mean_of
from experiments.dynamics.eta_against_alpha import FAMILIES
from experiments.dynamics.one_step import Grid
from experiments.lab.experiment import Experiment, Point, Report, Row
from experiments.lab.problem import Problem, Setting
from signal_drift import plotting
from signal_drift.lora.adapters import Adapters


@dataclass(frozen=True)
class Config(Grid, Setting):
    """Follow trajectories of Adam over η and over α, with momentum and without."""

    multipliers: tuple[float, ...] = (16.0, 64.0, 256.0, 1024.0)
    """η/η₀ at α₀ and α/α₀ at η₀."""
    steps: int = 300
    """Training steps."""
    momenta: tuple[float, ...] = (0.9, 0.0)
    """β₁ of Adam; the last is the control."""


def configure(problem: Problem) -> Config:
    """Take the MLP smaller than on the trajectories of App. E, so that more steps are affordable."""
    steps = problem.tuning.steps if problem.tuning else Config.steps
    return Config(problem.resized(64), steps=steps)


def points(config: Config) -> list[Point]:
    return [{"seed": seed, "momentum": b1} for seed in range(config.seeds) for b1 in config.momenta]


def measure(config: Config, seed: int, momentum: float) -> xr.Dataset:
    """Measure ⟨Δw_Signal, −g⟩ at every step, over η and over α."""
    problem = config.problem
    base, training, start = problem.draw(seed).base, problem.training(seed, config.steps), problem.adapters(seed)

    def aligned(eta: float, alpha: float) -> Array:
        s = problem.scaling(alpha)
        return _alignment(training.loss, base, start, s, eta, momentum, training.batches, steps=config.steps)

    values = [[aligned(eta, alpha) for eta, alpha in config.along(family)] for family in FAMILIES]
    return xr.Dataset(
        {"alignment": (("family", "multiplier", "step"), np.array(values))},
        coords={"family": list(FAMILIES), "multiplier": list(config.multipliers)},
    )


@partial(jax.jit, static_argnames="steps")
def _alignment(
    loss: Partial,
    base: dict[str, Array],
    start: Adapters,
    s: float,
    learning_rate: float,
    momentum: float,
    batches: Any,
    *,
    steps: int,
) -> Array:
    return sd.train(loss, base, start, s, optax.adam(learning_rate, b1=momentum), steps, batches).signal_alignment


def ascending(data: xr.Dataset) -> xr.DataArray:
    """Return the share of steps whose signal points uphill, ⟨Δw_Signal, −g⟩ < 0; those lost to NaN do not count."""
    return (data.alignment < 0).where(data.alignment.notnull()).mean("step")


def report(config: Config, data: xr.Dataset) -> Report:
    share = ascending(data)
    rows = [
        Row(f"P2   Adam, β₁ = {b1:g}, {m:g}·{family}₀: share of ascending steps", "0", str(fit), fit.interval())
        for b1 in config.momenta
        for family in FAMILIES
        for m in config.multipliers
        for fit in [mean_of(share.sel(momentum=b1, family=family, multiplier=m).values)]
    ]
    return Report(rows, _sentences(config, share), {"signal_descent": partial(_figure, config, data)})


def _sentences(config: Config, share: xr.DataArray) -> list[str]:
    return [
        f"With β₁ = {b1:g} the signal is {'' if bool((here == 0).all()) else 'not '}always a descent direction: "
        f"{float(here.mean()):.2%} of all steps ascend, at most {float(here.max()):.0%} of one trajectory."
        for b1 in config.momenta
        for here in [share.sel(momentum=b1)]
    ]


def _figure(config: Config, data: xr.Dataset) -> plotting.Figure:
    sizes = f"{config.problem.label}, {config.steps} steps, {config.over_seeds}"
    title = f"P2  Is the signal a descent direction? Adam, {sizes}"
    figure, (left, right) = plotting.panels(2, title)
    share, (b1, control) = ascending(data), (config.momenta[0], config.momenta[-1])
    for family, color in zip(FAMILIES, ("drift", "signal"), strict=True):
        here = share.sel(momentum=b1, family=family).transpose("multiplier", "seed")
        left.plot(data.multiplier, here, "o", color=plotting.COLOR[color], alpha=0.5)
        left.plot(
            data.multiplier, here.mean("seed"), color=plotting.COLOR[color], label=f"{family}-scaling, β₁ = {b1:g}"
        )
        last = (data.alignment < 0).sel(momentum=b1, family=family).isel(multiplier=-1).mean("seed")
        label = f"{data.multiplier.values[-1]:g}·{family}₀"
        right.plot(np.arange(1, config.steps + 1), last.cumsum("step"), color=plotting.COLOR[color], label=label)
    left.plot(
        data.multiplier,
        share.sel(momentum=control).max(["family", "seed"]),
        "--",
        color=plotting.COLOR["prediction"],
        label=f"β₁ = {control:g}: never (P2-descent)",
    )
    left.set_xscale("log", base=4)
    left.set(xlabel="multiplier m of η₀ or of α₀", ylabel="share with ⟨Δw_Signal, −g⟩ < 0")
    left.set_title("(a) share of steps that ascend, each seed")
    right.set(xlabel="step", ylabel="ascending steps so far, mean", title="(b) when, at the largest multiplier")
    left.legend()
    right.legend()
    return figure


CAPTIONS = {
    "signal_descent": (
        "The share of steps of Adam at which the signal ascends (left), and when it does at the largest "
        "multiplier (right): P2-descent expects none without momentum, the dashed line, and is silent on "
        "momentum; lower is better."
    ),
}
"""What to see in the figure, what is expected, and which side is better."""

EXPERIMENT = Experiment(
    name="signal_descent",
    title="P2-descent: how often the signal of Adam with momentum is not a descent direction.",
    configure=configure,
    points=points,
    measure=measure,
    report=report,
    tiny={"seeds": 2, "multipliers": (16.0, 1024.0), "steps": 30},
    captions=CAPTIONS,
)
