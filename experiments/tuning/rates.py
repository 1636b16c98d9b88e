"""η_FFT on the pretrained encoder: full fine-tuning of its linear layers over learning rates."""

from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from experiments.analysis.intervals import mean_interval
from experiments.lab.experiment import Experiment, Report, Row, main
from experiments.problems.minilm import HELD_OUT, TINY, TRAINING
from experiments.tuning.runs import Training, outcome
from signal_drift import plotting


@dataclass(frozen=True)
class Config(Training):
    """Adam at a constant rate on batches of movie snippets, every seed at every rate."""


def points(config: Config) -> list[dict]:
    return [{"seed": seed, "rate": rate} for seed in range(config.seeds) for rate in config.fft_rates]


def measure(config: Config, seed: int, rate: float) -> xr.Dataset:
    return outcome(config, seed, rate)


def of(config: Any) -> tuple[Experiment, Config]:
    """The sweep in the setting of another experiment."""
    return EXPERIMENT, Config(**{field.name: getattr(config, field.name) for field in fields(Config)})


def log_losses(data: xr.Dataset) -> xr.DataArray:
    """The logarithm of the error on the texts of the run after its last step."""
    return np.log(data.error.sel(set=TRAINING))


def fft_rate(data: xr.Dataset) -> float:
    """η_FFT: of the rates that were run, the one with the lowest mean log-loss over seeds."""
    return float(log_losses(data).mean("seed").idxmin("rate"))


def report(config: Config, data: xr.Dataset) -> Report:
    best, losses = fft_rate(data), log_losses(data)
    rows = [Row("F1   η_FFT, {config.name}", "–", f"{best:.3g}", "–")]
    for rate in config.fft_rates:
        loss, held = (mean_interval(x.sel(rate=rate).values) for x in (losses, _held_out(data)))
        rows.append(Row(f"     ln loss of FFT at η = {rate:.3g}, {config.name}", "–", str(loss), loss.interval()))
        rows.append(
            Row(f"     held-out correlation of FFT at η = {rate:.3g}, {config.name}", "–", str(held), held.interval())
        )
    edge = best in (config.fft_rates[0], config.fft_rates[-1])
    where = "lies on the edge of the sweep: the best may be beyond" if edge else "lies within the sweep"
    return Report(
        rows, [f"η_FFT = {best:.3g} on {config.name} {where}."], {"minilm_rates": partial(_figure, config, data)}
    )


def _held_out(data: xr.Dataset) -> xr.DataArray:
    return data.correlation.sel(set=HELD_OUT)


def _figure(config: Config, data: xr.Dataset) -> plotting.Figure:
    title = f"F1  {config.name}, full fine-tuning: {config.steps} steps of Adam, {config.seeds} seeds"
    figure, (left, right) = plotting.panels(2, title)
    for panel, values, name in (
        (left, log_losses(data), "ln loss on its own texts"),
        (right, _held_out(data), "correlation with people, held out"),
    ):
        panel.plot(config.fft_rates, values.transpose("rate", "seed"), "o", color=plotting.COLOR["other"], alpha=0.7)
        panel.plot(config.fft_rates, values.mean("seed"), color=plotting.COLOR["signal"], label="mean over seeds")
        panel.axvline(fft_rate(data), color=plotting.COLOR["prediction"], ls="--", label=r"$\eta_{FFT}$")
        panel.set(xscale="log", xlabel=r"learning rate $\eta$", ylabel=name)
    left.legend()
    return figure


SMALL = {**TINY, "steps": 4, "batch": 8, "seeds": 2, "fft_rates": (1e-3, 1e-2, 1e-1)}
"""The size used in tests."""

EXPERIMENT = Experiment(
    name="minilm_rates",
    title="η_FFT on a pretrained encoder: full fine-tuning over learning rates.",
    paper=Config(),
    quick=replace(Config(), **SMALL),
    points=points,
    measure=measure,
    report=report,
    extra=True,
)

if __name__ == "__main__":
    main(EXPERIMENT)
