"""Spectra along the trajectories of F2 at d = 256: sharpness against the edge of stability, and what the drift adds.

Plain gradient descent is stable up to λmax[H] = 2/η (L1). The step of Adam sees the preconditioned Hessian
P^{-1/2} H P^{-1/2}, P = √v̂ + ε; descent with momentum β₁ on its quadratic is stable up to 2(1 + β₁)/((1 − β₁)η) = 38/η
(Cohen et al. 2022).
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jax import Array
from jax.tree_util import Partial

import signal_drift as sd
from experiments.analysis.intervals import mean_interval
from experiments.curvature import spectra_figures
from experiments.curvature.asymmetric_scaling import certified
from experiments.curvature.at_scale import certificate_rows, extremes, lowest_over_highest
from experiments.lab.experiment import Experiment, Report, Row, main
from experiments.problems.mlp import Setting, adapters, problem

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8
"""β₁, β₂ and ε of Adam, optax's defaults."""
EDGE = 2 * (1 + BETA_1) / (1 - BETA_1)
"""Where momentum on the preconditioned quadratic becomes unstable, in units of 1/η."""


@dataclass(frozen=True)
class Config(Setting):
    """η-scaled and α-scaled trajectories of F2."""

    width: int = 256
    """d, inputs, outputs and hidden units of every layer."""
    seeds: int = 2
    """Independent draws of W₀, A, teacher and data."""
    learning_rate: float = 1e-4
    """η₀ of Adam."""
    eta_multipliers: tuple[float, ...] = (128.0,)
    """η/η₀ of the trajectories at α = 1; by default the largest of F2."""
    alpha_multipliers: tuple[float, ...] = (256.0,)
    """α of the trajectories at η₀; by default the largest of F2."""
    steps: tuple[int, ...] = (0, 10, 30, 100)
    """Steps at which a trajectory is looked at."""
    tolerance: float = 1e-6
    """Residual of an eigenvalue over ‖H‖ at which the search stops."""

    def runs(self) -> dict[str, tuple[float, float]]:
        """(η, α) of every trajectory."""
        eta = {f"{m:g}·η₀": (m * self.learning_rate, 1.0) for m in self.eta_multipliers}
        return eta | {f"{m:g}·α₀": (self.learning_rate, m) for m in self.alpha_multipliers}


def points(config: Config) -> list[dict]:
    return [{"seed": seed, "run": run} for seed in range(config.seeds) for run in config.runs()]


def measure(config: Config, seed: int, run: str) -> xr.Dataset:
    """Extremes, sharpness as Adam sees it and loss of one trajectory at every step asked for."""
    loss, base = problem(config, seed)
    start, (eta, alpha) = adapters(config, base, seed), config.runs()[run]
    s = config.scaling(alpha)
    found: list[xr.Dataset] = []
    for steps in config.steps:
        theta, second = _trained(loss, base, start, s, eta, steps=steps)
        found.append(
            extremes(config.tolerance, loss, base, theta, s).assign(
                loss=float(loss(sd.effective_weights(base, theta, s))),
                preconditioned=_preconditioned(config, loss, base, theta, s, second, steps),
            )
        )
    return xr.concat(found, xr.IndexVariable("step", list(config.steps))).assign(eta=eta)


@partial(jax.jit, static_argnames="steps")
def _trained(loss, base, start, s, eta, *, steps: int) -> tuple[Any, Any]:
    """θ after `steps` of Adam, and its running second moment v."""
    optimizer = optax.adam(eta, b1=BETA_1, b2=BETA_2, eps=EPSILON)
    run = sd.train(loss, base, start, s, optimizer, steps, record=lambda step: None)
    return run.trained, optax.tree.get(run.state, "nu")


def _preconditioned(config: Config, loss, base, theta, s, second, steps: int) -> float:
    """λmax of P^{-1/2} H_LoRA P^{-1/2}: the Hessian of φ ↦ ℓ(w(θ + P^{-1/2}φ)) at 0; NaN before the first step."""
    if steps == 0:
        return np.nan
    shrink = jax.tree.map(lambda v: 1 / jnp.sqrt(jnp.sqrt(v / (1 - BETA_2**steps)) + EPSILON), second)
    rescaled = Partial(_rescaled, loss, base, theta, jnp.asarray(s), shrink)
    zero = {f"{layer}.{side}": jnp.zeros_like(x) for layer, pair in theta.items() for side, x in pair._asdict().items()}
    task = sd.decompose(rescaled, zero, sd.init_adapters(jax.random.key(0), zero, 1), 1.0).task
    return float(certified(task, tolerance=config.tolerance).values[0])


def _rescaled(loss, base, theta, s, shrink, phi) -> Array:
    moved = {
        layer: sd.Adapter(
            A + shrink[layer].A * phi[f"{layer}.A"],
            B + shrink[layer].B * phi[f"{layer}.B"],
        )
        for layer, (A, B) in theta.items()
    }
    return loss(sd.effective_weights(base, moved, s))


def edge(data: xr.Dataset, which: str) -> xr.DataArray:
    """η·λmax/2 of H_LoRA ("raw"), or η·λmax/38 of the preconditioned one: 1 at the edge of stability."""
    if which == "raw":
        return data.eta * data.ends.sel(operator="lora", end="max") / 2
    return data.eta * data.preconditioned / EDGE


def drift_share(data: xr.Dataset) -> xr.DataArray:
    """‖H_Drift‖₂/λmax[H_Signal]: how far the drift may move an eigenvalue of H_LoRA from one of H_Signal (Weyl)."""
    return data.ends.sel(operator="drift", end="max") / data.ends.sel(operator="signal", end="max")


QUANTITIES = {
    "η·λmax[H_LoRA]/2": partial(edge, which="raw"),
    "η·λmax[preconditioned H_LoRA]/38": partial(edge, which="preconditioned"),
    "λmin/λmax of H_LoRA": partial(lowest_over_highest, operator="lora"),
    "‖H_Drift‖₂/λmax[H_Signal]": drift_share,
}
"""What is reported and drawn of every trajectory."""


def report(config: Config, data: xr.Dataset) -> Report:
    rows = [
        Row(f"L1   {name}, {run}, step {step}", "1 at the edge" if "η·" in name else "–", str(mean), mean.interval())
        for name, quantity in QUANTITIES.items()
        for run in config.runs()
        for step in config.steps
        for mean in [mean_interval(quantity(data).sel(run=run, step=step).values)]
        if np.isfinite(mean.mean)
    ]
    sentences = [
        f"{run}: {name} goes from {float(values[0]):.2g} at step {int(values.step[0])} to {float(values[-1]):.2g}."
        for run in config.runs()
        for name, quantity in QUANTITIES.items()
        for values in [quantity(data).sel(run=run).mean("seed").dropna("step")]
    ]
    drawn = {"spectra_along_training": partial(spectra_figures.along_training, config, data, QUANTITIES)}
    return Report([*rows, *certificate_rows(data)], sentences, drawn)


EXPERIMENT = Experiment(
    name="spectra_along_training",
    title="Spectra along the trajectories of F2 at d = 256: sharpness, negative curvature and drift.",
    paper=Config(),
    quick=replace(
        Config(),
        width=8,
        depth=3,
        samples=20,
        rank=2,
        eta_multipliers=(64.0,),
        alpha_multipliers=(256.0,),
        steps=(0, 5),
    ),
    points=points,
    measure=measure,
    report=report,
)

if __name__ == "__main__":
    main(EXPERIMENT)
