"""F8d on a transformer: λmax[H_Signal] and λmin[H_Drift] over α, before and after training (Eq. 6, 7)."""

from dataclasses import dataclass, replace
from functools import partial

import xarray as xr

import signal_drift as sd
from experiments.analysis.intervals import Interval
from experiments.curvature.asymmetric_scaling import (
    QUANTITIES,
    STATES,
    draw_states,
    exponent_rows,
    fitted,
    sentences,
    trained_run,
)
from experiments.lab.experiment import Experiment, Report, main
from experiments.problems.transformer import TINY, Setting, adapters, problem


@dataclass(frozen=True)
class Config(Setting):
    """Extreme eigenvalues over α, before and after training with Adam at each α."""

    alphas: tuple[float, ...] = (1.0, 4.0, 16.0, 64.0, 256.0)
    """Values of α."""
    learning_rate: float = 1e-4
    """η of Adam."""
    steps: int = 100
    """Training steps."""


def points(config: Config) -> list[dict]:
    return [{"seed": seed, "alpha": alpha} for seed in range(config.seeds) for alpha in config.alphas]


def measure(config: Config, seed: int, alpha: float) -> xr.Dataset:
    """The extremes of the three operators at the initial and at the trained adapters of one α."""
    loss, base = problem(config, seed)
    start, s = adapters(config, base, seed), config.scaling(alpha)
    run = trained_run(loss, base, start, s, config.learning_rate, config.steps)
    states = [_extremes(loss, base, theta, s) for theta in (start, run.trained)]
    return xr.concat(states, xr.IndexVariable("state", list(STATES))).assign(
        final_loss=float(run.loss[-1] / run.loss[0])
    )


def _extremes(loss, base, theta, s) -> xr.Dataset:
    """From the dense matrices; H_LoRA as the sum of the two (P1-hessian)."""
    parts = sd.decompose(loss, base, theta, s)
    signal, drift = parts.signal.dense(), parts.drift.dense()
    ends = {"signal": sd.eigenvalues(signal), "drift": sd.eigenvalues(drift), "lora": sd.eigenvalues(signal + drift)}
    return xr.Dataset(
        {
            "signal_max": ends["signal"][-1],
            "signal_min": ends["signal"][0],
            "drift_min": -ends["drift"][0],
            "lora_max": ends["lora"][-1],
        }
    )


def estimates(data: xr.Dataset) -> dict[tuple[str, str], Interval]:
    """The measured exponent of α in each quantity, in each state; F8d states those in `QUANTITIES`."""
    return {(name, state): fitted(data, name, state) for name in QUANTITIES for state in STATES}


def report(config: Config, data: xr.Dataset) -> Report:
    drawing = partial(draw_states, config, data, "F8d  Transformer")
    words = [f"On the transformer: {sentence}" for sentence in sentences(data)]
    return Report(exponent_rows(config.alphas, data), words, {"transformer_scaling": drawing})


EXPERIMENT = Experiment(
    name="transformer_scaling",
    title="F8d on a transformer: extreme eigenvalues of signal, drift and LoRA Hessian over α.",
    paper=Config(),
    quick=replace(Config(), **TINY, alphas=(1.0, 16.0, 256.0), steps=10),
    points=points,
    measure=measure,
    report=report,
)

if __name__ == "__main__":
    main(EXPERIMENT)
