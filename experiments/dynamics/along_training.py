"""Measure spectra along the trajectories of F2: sharpness against the edge of stability, and what the drift adds.

Plain gradient descent is stable up to λmax[H] = 2/η (L1). The step of Adam sees the preconditioned Hessian
P^{-1/2} H P^{-1/2}, P = √v̂ + ε; descent with momentum β₁ on its quadratic is stable up to 2(1 + β₁)/((1 − β₁)η) = 38/η
(Cohen et al. 2022).
"""

from dataclasses import dataclass
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
from experiments.analysis.ends import certificate_rows, certified, extremes, lowest_over_highest
from experiments.analysis.intervals import mean_interval
from experiments.lab.experiment import Experiment, Point, Report, Row
from experiments.lab.problem import Drawn, Setting
from signal_drift import plotting
from signal_drift.lora.adapters import Adapters

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8
"""β₁, β₂ and ε of Adam, optax's defaults."""
EDGE = 2 * (1 + BETA_1) / (1 - BETA_1)
"""Where momentum on the preconditioned quadratic becomes unstable, in units of 1/η."""


@dataclass(frozen=True)
class Config(Setting):
    """Follow η-scaled and α-scaled trajectories of F2."""

    seeds: int = 2
    """Independent draws of all that is random."""
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
        """Return (η, α) of every trajectory."""
        eta = {f"{m:g}·η₀": (m * self.learning_rate, 1.0) for m in self.eta_multipliers}
        return eta | {f"{m:g}·α₀": (self.learning_rate, m) for m in self.alpha_multipliers}


def points(config: Config) -> list[Point]:
    return [{"seed": seed, "run": run} for seed in range(config.seeds) for run in config.runs()]


def measure(config: Config, seed: int, run: str) -> xr.Dataset:
    """Measure extremes, sharpness as Adam sees it and loss of one trajectory at every step asked for."""
    drawn, (eta, alpha) = config.problem.draw(seed), config.runs()[run]
    s = config.problem.scaling(alpha)
    found: list[xr.Dataset] = []
    for steps in config.steps:
        theta, second = _trained(config, seed, s, eta, steps)
        found.append(
            extremes(drawn, theta, s, config.tolerance).assign(
                loss=float(drawn.loss(sd.effective_weights(drawn.base, theta, s))),
                preconditioned=_preconditioned(config, drawn, theta, s, second, steps),
            )
        )
    return xr.concat(found, xr.IndexVariable("step", list(config.steps))).assign(eta=eta)


def _trained(config: Config, seed: int, s: float, eta: float, steps: int) -> tuple[Adapters, Any]:
    """Return θ after `steps` of Adam, and its running second moment v, of the shape of θ."""
    problem, start = config.problem, config.problem.adapters(seed)
    if steps == 0:
        return start, None
    base, training = problem.draw(seed).base, problem.training(seed, steps)
    return _adam(training.loss, base, start, s, eta, training.batches, steps=steps)


@partial(jax.jit, static_argnames="steps")
def _adam(
    loss: Partial, base: dict[str, Array], start: Adapters, s: float, eta: float, batches: Any, *, steps: int
) -> tuple[Adapters, Any]:
    optimizer = optax.adam(eta, b1=BETA_1, b2=BETA_2, eps=EPSILON)
    run = sd.train(loss, base, start, s, optimizer, steps, batches, record=lambda step: None)
    return run.trained, optax.tree.get(run.state, "nu")


def _preconditioned(config: Config, drawn: Drawn, theta: Adapters, s: float, second: Any, steps: int) -> float:
    """Return λmax of P^{-1/2} H_LoRA P^{-1/2}, the Hessian of φ ↦ ℓ(w(θ + P^{-1/2}φ)) at 0; NaN at step 0."""
    if steps == 0:
        return np.nan
    shrink = jax.tree.map(lambda v: 1 / jnp.sqrt(jnp.sqrt(v / (1 - BETA_2**steps)) + EPSILON), second)
    rescaled = Partial(_rescaled, drawn.loss, drawn.base, theta, jnp.asarray(s), shrink)
    zero = {f"{layer}.{side}": jnp.zeros_like(x) for layer, pair in theta.items() for side, x in pair._asdict().items()}
    task = sd.decompose(rescaled, zero, sd.init_adapters(jax.random.key(0), zero, 1), 1.0).task
    return float(certified(task, tolerance=config.tolerance).values[0])


def _rescaled(
    loss: Partial, base: dict[str, Array], theta: Adapters, s: Array, shrink: Any, phi: dict[str, Array]
) -> Array:
    moved = {
        layer: sd.Adapter(
            A + shrink[layer].A * phi[f"{layer}.A"],
            B + shrink[layer].B * phi[f"{layer}.B"],
        )
        for layer, (A, B) in theta.items()
    }
    return loss(sd.effective_weights(base, moved, s))


def edge(data: xr.Dataset, which: str) -> xr.DataArray:
    """Return η·λmax/2 of H_LoRA ("raw"), or η·λmax/38 of the preconditioned one: 1 at the edge of stability."""
    if which == "raw":
        return data.eta * data.ends.sel(operator="lora", end="max") / 2
    return data.eta * data.preconditioned / EDGE


def lowest_over_highest_of_lora(data: xr.Dataset) -> xr.DataArray:
    """Return λmin/λmax of H_LoRA."""
    return lowest_over_highest(data.ends.sel(operator="lora"))


def drift_share(data: xr.Dataset) -> xr.DataArray:
    """Return ‖H_Drift‖₂/λmax[H_Signal]: how far an eigenvalue of H_LoRA may be from one of H_Signal (Weyl)."""
    return data.ends.sel(operator="drift", end="max") / data.ends.sel(operator="signal", end="max")


QUANTITIES = {
    "η·λmax[H_LoRA]/2": partial(edge, which="raw"),
    "η·λmax[preconditioned H_LoRA]/38": partial(edge, which="preconditioned"),
    "λmin/λmax of H_LoRA": lowest_over_highest_of_lora,
    "‖H_Drift‖₂/λmax[H_Signal]": drift_share,
}
"""What is reported and drawn of every trajectory."""
SYMBOLS = {"H_LoRA": "$H_{LoRA}$", "H_Signal": "$H_{Signal}$", "H_Drift": "$H_{Drift}$", "λmax": r"$\lambda_{max}$"}
TITLES = {"a": "gradient descent's edge", "b": "Adam's edge", "c": "negative curvature", "d": "what the drift adds"}


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
    drawn = {"spectra_along_training": partial(_figure, config, data)}
    return Report([*rows, *certificate_rows(data)], sentences, drawn)


def _figure(config: Config, data: xr.Dataset) -> plotting.Figure:
    """Draw sharpness against the edge of stability, raw and as Adam sees it, negative curvature, and the drift."""
    sizes = f"{config.problem.label}, r = {config.problem.rank}, {config.seeds} seeds"
    figure, axes = plotting.panels(4, f"Along training: Adam, {sizes}", height=4.8, width=4.6)
    for panel, letter, (name, quantity) in zip(axes, "abcd", QUANTITIES.items(), strict=True):
        for run, color in zip(config.runs(), ("drift", "band", "signal", "other"), strict=False):
            y = quantity(data).sel(run=run).transpose("step", "seed")
            panel.plot(config.steps, y, "o", color=plotting.COLOR[color], alpha=0.5)
            panel.plot(config.steps, y.mean("seed"), color=plotting.COLOR[color], label=run)
        if letter in "ab":
            panel.axhline(1, ls="--", color=plotting.COLOR["prediction"], label="edge of stability")
        elif letter == "c":
            panel.axhline(0, ls="--", color=plotting.COLOR["prediction"], label="positive semi-definite")
        panel.set(xlabel="step", ylabel=_symbols(name), title=f"({letter}) {TITLES[letter]}")
        panel.set_yscale("linear" if letter == "c" else "log")
        panel.legend()
    return figure


def _symbols(name: str) -> str:
    """Write a quantity of the table as figures do."""
    for plain, symbol in SYMBOLS.items():
        name = name.replace(plain, symbol)
    return name


EXPERIMENT = Experiment(
    name="spectra_along_training",
    title="Spectra along the trajectories of F2: sharpness, negative curvature and drift.",
    configure=lambda problem: Config(problem.resized(256)),
    points=points,
    measure=measure,
    report=report,
    tiny={"eta_multipliers": (64.0,), "alpha_multipliers": (256.0,), "steps": (0, 5)},
)
