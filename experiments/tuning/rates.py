"""Find η_FFT: full fine-tuning of the adapted layers over learning rates, by the loss after the last step (Sec. 2)."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import xarray as xr

from experiments.analysis.intervals import geometric_mean_of, mean_of
from experiments.analysis.sweeps import best_point
from experiments.lab.experiment import Experiment, Point, Report, Row, tuned_only
from experiments.lab.problem import Problem
from experiments.tuning.runs import (
    HOMES,
    SMALL,
    Tuned,
    fft_optimum,
    fft_rate,
    full_runs,
    score_names,
    scored,
    training_attributes,
    tuning_of,
)
from signal_drift import plotting


@dataclass(frozen=True)
class Config(Tuned):
    """Run Adam at a constant rate, every seed at every rate."""


def configure(problem: Problem) -> Config:
    sizes = tuning_of(problem)
    return Config(problem, sizes.seeds, sizes.steps, sizes.fft_rates, sizes.seeds)


def of(config: Tuned) -> tuple[Experiment[Config], Config]:
    """Return the sweep in the setting of another experiment, which builds on it."""
    seeds = config.rate_seeds
    return EXPERIMENT, Config(config.problem, seeds, config.steps, config.fft_rates, seeds, config.dtype)


def points(config: Config) -> list[Point]:
    return [{"seed": seed} for seed in range(config.seeds)]


def measure(config: Config, seed: int) -> xr.Dataset:
    """Train at every rate: the log-loss after the last step, and each score of the problem."""
    runs = full_runs(config, seed, config.fft_rates)
    data = xr.Dataset(
        {"log_loss": ("rate", runs.log_loss)}, {"rate": list(config.fft_rates)}, training_attributes(config)
    )
    return data.assign(scored(runs.scores, "rate"))


def report(config: Config, data: xr.Dataset) -> Report:
    rows = [_optimum(config, data.log_loss)]
    for rate in config.fft_rates:
        at = f"of FFT at η = {rate:.3g}"
        loss = mean_of(data.log_loss.sel(rate=rate).values)
        rows.append(Row(f"     ln loss {at}", "–", *loss.cells("diverged")))
        for name in score_names(data):
            score = mean_of(data.score.sel(rate=rate, judge=name).values)
            rows.append(Row(f"     {name} {at}", "–", *score.cells("diverged")))
    edge = fft_optimum(data.log_loss).flag
    where = "lies on the edge of the sweep: the best may be beyond" if edge else "lies within the sweep"
    sentence = f"η_FFT = {fft_rate(data.log_loss):.3g} on {config.problem.label} {where}."
    return Report(rows, [sentence], {"rates": partial(_figure, config, data)})


def _optimum(config: Config, losses: xr.DataArray) -> Row:
    """The optimum of the mean over seeds, with the interval of those of single seeds."""
    best = fft_optimum(losses)
    single = [best_point(config.fft_rates, x).x for x in losses.transpose("seed", "rate").values]
    _, interval = geometric_mean_of(np.array(single)).cells("–")
    return Row("F1   η_FFT", "–", best.flag or f"{best.x:.3g}", interval)


WIDEST = 4
"""Panels beside one another."""


def _figure(config: Config, data: xr.Dataset) -> plotting.Figure:
    title = f"F1  {config.problem.label}\nfull fine-tuning: {config.steps} steps of Adam, {config.over_seeds}"
    judges = score_names(data)
    columns = min(1 + len(judges), WIDEST)
    figure, axes = plotting.panels(columns, title, height=4.6, width=5.2, rows=-(-(1 + len(judges)) // columns))
    for panel in axes[1 + len(judges) :]:
        panel.set_axis_off()
    axes = axes[: 1 + len(judges)]
    losses = np.where(np.isfinite(data.log_loss), data.log_loss, np.nan)
    seeds = data.log_loss.copy(data=losses).transpose("rate", "seed")
    axes[0].plot(config.fft_rates, seeds, "o", color=plotting.COLOR["other"], alpha=0.7)
    axes[0].plot(config.fft_rates, seeds.mean("seed"), color=plotting.COLOR["signal"], label="mean over seeds")
    axes[0].set_ylabel("ln loss after the last step")
    for panel, name in zip(axes[1:], judges, strict=True):
        score = data.score.sel(judge=name).transpose("rate", "seed")
        panel.plot(config.fft_rates, score, "o", color=plotting.COLOR["other"], alpha=0.7)
        panel.plot(config.fft_rates, score.mean("seed"), color=plotting.COLOR["signal"], label="mean over seeds")
        panel.set_ylabel(f"{name}, higher is better")
    for panel in axes:
        panel.axvline(fft_rate(data.log_loss), color=plotting.COLOR["prediction"], ls="--", label=r"$\eta_{FFT}$")
        panel.set(xscale="log", xlabel=r"learning rate $\eta$")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


EXPERIMENT = Experiment(
    name="rates",
    title="η_FFT: full fine-tuning over learning rates.",
    configure=configure,
    points=points,
    measure=measure,
    report=report,
    tiny=SMALL,
    homes=HOMES,
    refuses=tuned_only,
    captions={
        "rates": "Full fine-tuning over learning rates (lower loss is better); dashed: η_FFT, the best of the mean."
    },
)
