"""F8d: λmax[H_Signal] = Θ(α²), |λmin[H_Drift]| = Θ(α), λmax[H_LoRA] / λmax[H_Signal] → 1 (Eq. 6, 7).

At initialisation, where the weights do not depend on α, and after training, where g and H_ℓ have moved with it.
"""

from dataclasses import dataclass, replace
from functools import partial

import jax
import numpy as np
import optax
import xarray as xr

import signal_drift as sd
from experiments import figures
from experiments.experiment import Experiment, Report, Row, main
from experiments.setting import Setting, adapters, problem
from experiments.statistics import Estimate, exponents, mean_interval
from signal_drift import closed_forms

STATES = ("initial", "trained")
QUANTITIES = {"signal_max": 2, "drift_min": 1, "lora_max": None}
"""What is fitted, with the exponent of α that the paper states for it."""
LABEL = {
    "signal_max": r"$\lambda_{max}[H_{Signal}]$",
    "drift_min": r"$|\lambda_{min}[H_{Drift}]|$",
    "lora_max": r"$\lambda_{max}[H_{LoRA}]$",
}


@dataclass(frozen=True)
class Config(Setting):
    """Extreme eigenvalues over α, before and after training with Adam at each α."""

    alphas: tuple[float, ...] = tuple(2.0**k for k in range(9))
    """Values of α."""
    learning_rate: float = 1e-4
    """η of Adam; the paper's η₀."""
    steps: int = 100
    """Training steps; the paper's number."""


def points(config: Config) -> list[dict]:
    return [{"seed": seed, "alpha": alpha} for seed in range(config.seeds) for alpha in config.alphas]


def measure(config: Config, seed: int, alpha: float) -> xr.Dataset:
    """The extremes of the three operators at the initial and at the trained adapters of one α."""
    loss, base = problem(config, seed)
    start, s = adapters(config, base, seed), config.scaling(alpha)
    run = _trained(loss, base, start, s, config.learning_rate, config.steps)
    states = [_extremes(loss, base, theta, s) for theta in (start, run.trained)]
    return xr.concat(states, xr.IndexVariable("state", list(STATES))).assign(final_loss=float(run.loss[-1] / run.loss[0]))


@partial(jax.jit, static_argnames="steps")
def _trained(loss, base, start, s, learning_rate, steps: int) -> sd.Run:
    return sd.train(loss, base, start, s, optax.adam(learning_rate), steps)


def _extremes(loss, base, theta, s) -> xr.Dataset:
    parts = sd.decompose(loss, base, theta, s)
    signal, lora = sd.extreme_eigenvalues(parts.signal), sd.extreme_eigenvalues(parts.lora)
    drift = sd.extreme_eigenvalues(parts.drift, which="smallest")
    gradient = jax.grad(loss)(sd.effective_weights(base, theta, s))
    return xr.Dataset(
        {
            "signal_max": signal.values[0],
            "drift_min": -drift.values[0],
            "lora_max": lora.values[0],
            "residual": max(part.residuals[0] / part.values[0] for part in (signal, lora))
            "drift_closed": -closed_forms.drift_eigenvalues(gradient, theta, s)[0],
        }
    )


def fitted(data: xr.Dataset, name: str, state: str) -> Estimate:
    """The exponent of α: least squares in log–log per seed, then the mean over seeds."""
    return mean_interval(exponents(data.alpha.values, data[name].sel(state=state).transpose("seed", "alpha").values))
