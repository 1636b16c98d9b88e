"""Measure how much of the gap from LoRA (α = r) to full fine-tuning each method closes at η_FFT (V-protocol, Eq. 5).

Beside the training loss every method is judged by the scores of the problem, and by its signal to drift.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import signal_drift as sd
from experiments.analysis.intervals import geometric_mean_of, mean_of
from experiments.lab.errors import OptionError, check_ascending, check_positive
from experiments.lab.experiment import Experiment, Point, Report, Row, tuned_only
from experiments.lab.problem import Problem, Tuning
from experiments.tuning import protocol_figures, rates
from experiments.tuning.gap import Setup, at, outcome_rows, placed, rate_name, untestable
from experiments.tuning.methods import COMMON, FULL, OVER_V2, V1, V2, methods, swept
from experiments.tuning.runs import (
    HOMES,
    SMALL,
    STAGES,
    Outcome,
    Tuned,
    fft_rate,
    full_runs,
    method_runs,
    purity,
    score_names,
    scored,
    start_scores,
    training_attributes,
    tuning_of,
)


@dataclass(frozen=True)
class Config(Tuned):
    """Run every method at some ranks, all at η_FFT and, as a second reading, all well below it."""

    ranks: tuple[int, ...] = Tuning.protocol_ranks
    """Ranks r."""
    coefficient: float = 256.0
    """C of V1."""
    rate_shares: tuple[float, ...] = Tuning.rate_shares
    """The learning rate of every method, full fine-tuning included, over η_FFT: the protocol's 1, and a rate far
    from where training becomes unstable, which the best rate of a short run is not."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "ranks")
        check_ascending(self, "ranks")
        if not self.ranks:
            raise OptionError("ranks: must not be empty, got ()")
        if not min(self.rate_shares, default=0) > 0:
            raise OptionError(f"rate_shares: must be positive and not empty, got {self.rate_shares}")
        for rank in self.ranks:
            sd.empirical_alpha_base(rank, self.coefficient)


def configure(problem: Problem) -> Config:
    sizes = tuning_of(problem)
    return Config(
        problem,
        sizes.seeds,
        sizes.steps,
        sizes.fft_rates,
        sizes.seeds,
        ranks=sizes.protocol_ranks,
        rate_shares=sizes.rate_shares,
    )


def points(config: Config) -> list[Point]:
    return [
        {"share": share, "rank": rank, "seed": seed}
        for share in config.rate_shares
        for seed in range(config.seeds)
        for rank in config.ranks
    ]


def measure(config: Config, first: xr.Dataset, share: float, rank: int, seed: int) -> xr.Dataset:
    """Train by every method: its log-loss and its scores after the last step, and signal and drift of every step.

    `by_alpha` is the log-loss of LoRA over α/V2, `fft` the mean over seeds of full fine-tuning's at every rate.
    """
    eta, sigma_a = share * fft_rate(first.log_loss), config.problem.sigma_a()
    chosen = methods(rank, sigma_a, config.coefficient)
    train = partial(method_runs, config, seed, rank, max(config.ranks), eta)
    runs = _joined(train(chosen), full_runs(config, seed, [eta]))
    data = xr.Dataset(
        {
            "log_loss": ("method", runs.log_loss),
            "by_alpha": ("over_v2", train(swept(rank, sigma_a)).log_loss),
            "signal": (("method", "step"), np.asarray(runs.signal, np.float32)),
            "drift": (("method", "step"), np.asarray(runs.drift, np.float32)),
            "fft": ("fft_rate", first.log_loss.mean("seed").values),
            "learning_rate": eta,
        },
        coords={
            "method": [*chosen, FULL],
            "over_v2": list(OVER_V2),
            "step": np.arange(1, config.steps + 1),
            "fft_rate": list(config.fft_rates),
        },
        attrs=training_attributes(config),
    )
    return data.assign(scored(runs.scores, "method")).assign(scored(start_scores(config, seed), name="start_score"))


def _joined(adapters: Outcome, full: Outcome) -> Outcome:
    """The runs of all methods, full fine-tuning the last of them."""
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), adapters, full)


def report(config: Config, data: xr.Dataset) -> Report:
    data = data.sel(rank=list(config.ranks))
    rows, sentences, drawn = [], [], {}
    for share in config.rate_shares:
        there, when = data.sel(share=share), rate_name(share)
        for part in (outcome_rows, _score_rows, _purity_rows):
            rows += [row for rank in config.ranks for row in part(there.sel(rank=rank))]
        sentences += [f"At {when}: {placed(there, method)}" for method in (V1, V2)]
        sentences.append(f"At {when}: {_best(there)}.")
        sentences += [f"Not testable: {why}." for rank in config.ranks for why in [why_not(config, there, rank)] if why]
        drawn |= protocol_figures.draw(config, there, when)
    return Report(rows, sentences + _start(config, data), drawn)


def why_not(config: Config, data: xr.Dataset, rank: int) -> str:
    """Say why no rule could be told good from bad at a rank, at the rate that `data` is at."""
    return untestable(data.sel(rank=rank), Setup(rank, config.problem.sigma_a(), config.fft_rates))


def _score_rows(here: xr.Dataset) -> list[Row]:
    """Every score of every method, and how far it lies above that of LoRA with α = r at the same seed."""
    rows = []
    for name in score_names(here):
        scores = here.score.sel(judge=name)
        for method in here.method.values:
            gain = mean_of((scores.sel({"method": method}) - scores.sel({"method": COMMON})).values)
            note = f" ({gain.value:+.3g} on {COMMON})" if np.isfinite(gain.value) and method != COMMON else ""
            measured, interval = mean_of(scores.sel({"method": method}).values).cells("diverged")
            rows.append(Row(f"V    {name} of {method}, {at(here)}", "–", measured + note, interval))
    return rows


def _purity_rows(here: xr.Dataset) -> list[Row]:
    ratio = purities(here)
    return [
        Row(
            f"F2c  signal to drift, {method}, {at(here)}",
            "–",
            *geometric_mean_of(ratio.sel({"method": method}).values).cells("diverged"),
        )
        for method in ratio.method.values
    ]


def purities(data: xr.Dataset) -> xr.DataArray:
    """Return the purity of the runs of every adapter method."""
    parts = (data[name].drop_sel(method=FULL) for name in ("signal", "drift"))
    return xr.apply_ufunc(lambda *x: np.asarray(purity(*map(jnp.asarray, x))), *parts, input_core_dims=[["step"]] * 2)


def _best(data: xr.Dataset) -> str:
    """Which method has the lowest training loss and the best scores, means over seeds."""
    found = []
    for rank in data["rank"].values:
        here = data.sel(rank=rank).mean("seed")
        names = {"training loss": here.log_loss.idxmin("method").item()}
        names |= {k: here.score.sel(judge=k).fillna(-np.inf).idxmax("method").item() for k in score_names(data)}
        found.append(f"r = {rank}: " + ", ".join(f"{name} ({method})" for name, method in names.items()))
    return f"best by {'; '.join(found)}"


def _start(config: Config, data: xr.Dataset) -> list[str]:
    if not score_names(data):
        return []
    before = data.start_score.isel(rank=0, share=0)
    shown = (mean_of(before.sel(judge=name).values) for name in score_names(data))
    listed = ", ".join(f"{k} {v} {v.interval()}" for k, v in zip(score_names(data), shown, strict=True))
    return [f"Before adaptation on {config.problem.label}: {listed}."]


CAPTIONS = {
    "protocol_comparison": "Training loss of every method (lower is better), mean over seeds with its interval. Bands: "
    "LoRA with α = r and full fine-tuning; a method recovers most of the gap left of the middle between them.",
    "protocol_purity": "Signal to drift of every method along training (higher is purer).",
    "protocol_scores": "Held-out scores of every method (higher is better), with full fine-tuning's as a band.",
}

EXPERIMENT = Experiment(
    name="protocol_comparison",
    title="V-protocol: what fraction of the gap from LoRA to full fine-tuning each method closes at η_FFT.",
    configure=configure,
    points=points,
    measure=measure,
    report=report,
    tiny={**SMALL, "ranks": (2, 8)},
    homes=HOMES,
    refuses=tuned_only,
    first=rates.of,
    stages=STAGES,
    captions={f"{name}{suffix}": text for name, text in CAPTIONS.items() for suffix in ("", "_at_0_1")},
)
