"""Measure how much of the gap from LoRA (α = r) to full fine-tuning each method closes at η_FFT (V-protocol, Eq. 5).

Beside the training loss every method is judged by the scores of the problem, and by its signal to drift; and each once
more at the best of a sweep over η of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

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
from experiments.tuning.methods import COMMON, FULL, V1, V2, methods, swept, tuned
from experiments.tuning.methods.table import table
from experiments.tuning.methods.training import method_runs
from experiments.tuning.runs import (
    HOMES,
    SMALL,
    STAGES,
    Outcome,
    Tuned,
    fft_rate,
    full_runs,
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
    own_rates: tuple[float, ...] = Tuning.own_rates
    """Learning rates over η_FFT among which every method has its own best one, full fine-tuning included."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "ranks")
        check_ascending(self, "ranks", "own_rates")
        if not self.ranks:
            raise OptionError("ranks: must not be empty, got ()")
        for name in ("rate_shares", "own_rates"):
            if not min(getattr(self, name), default=0) > 0:
                raise OptionError(f"{name}: must be positive and not empty, got {getattr(self, name)}")
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
        own_rates=sizes.own_rates,
    )


def points(config: Config) -> list[Point]:
    return [{"rank": rank, "seed": seed} for seed in range(config.seeds) for rank in config.ranks]


def measure(config: Config, first: xr.Dataset, rank: int, seed: int) -> xr.Dataset:
    """Train by every method: its log-loss and its scores after the last step, and signal and drift of every step.

    `by_alpha` is the log-loss of LoRA over α/V2, `by_rate` that of every method over its own η, `fft` the mean over
    seeds of full fine-tuning's at every rate. A run that several of them ask for is done once.
    """
    eta, sigma_a = fft_rate(first.log_loss), config.problem.sigma_a()
    shares, multiples = ([m * eta for m in found] for found in (config.rate_shares, config.own_rates))
    over_v2 = tuning_of(config.problem).over_v2
    chosen, alphas = methods(rank, sigma_a, config.coefficient), swept(rank, sigma_a, over_v2)
    own = tuned(chosen)
    requests = (shares, chosen), (shares, alphas), (multiples, own)
    adapted = method_runs(config, seed, rank, max(config.ranks), requests)
    compared, by_alpha, by_rate = (adapted.at(request) for request in requests)
    full = _full(config, seed, shares, multiples)
    compared, by_rate = (_joined(*pair) for pair in zip((compared, by_rate), full, strict=True))
    data = xr.Dataset(
        {
            "log_loss": (("share", "method"), compared.log_loss),
            "by_alpha": (("share", "over_v2"), by_alpha.log_loss),
            "by_rate": (("multiple", "tuned"), by_rate.log_loss),
            "signal": (("share", "method", "step"), np.asarray(compared.signal, np.float32)),
            "drift": (("share", "method", "step"), np.asarray(compared.drift, np.float32)),
            "fft": ("fft_rate", first.log_loss.mean("seed").values),
            "learning_rate": ("share", shares),
        },
        coords={
            "share": list(config.rate_shares),
            "method": [*chosen, FULL],
            "over_v2": list(over_v2),
            "multiple": list(config.own_rates),
            "tuned": [*own, FULL],
            "step": np.arange(1, config.steps + 1),
            "fft_rate": list(config.fft_rates),
        },
        attrs=training_attributes(config),
    )
    return (
        data.assign(scored(compared.scores, "share", "method"))
        .assign(scored(by_alpha.scores, "share", "over_v2", name="score_by_alpha"))
        .assign(scored(by_rate.scores, "multiple", "tuned", name="score_by_rate"))
        .assign(scored(start_scores(config, seed), name="start_score"))
    )


def _full(config: Config, seed: int, *asked: Sequence[float]) -> list[Outcome]:
    """Full fine-tuning at each of the rates asked for, none of them run twice."""
    rates = sorted({rate for found in asked for rate in found})
    runs = full_runs(config, seed, rates)
    places = (np.array([[rates.index(rate)] for rate in found]) for found in asked)
    return [jax.tree.map(lambda x, i=place: x[i], runs) for place in places]


def _joined(adapters: Outcome, full: Outcome) -> Outcome:
    """The runs of all methods at every rate, full fine-tuning the last of them."""
    return jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=1), adapters, full)


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
    return Report(rows, sentences + _start(config, data), drawn, tables=[table(config, data)])


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
    ratio, known = purities(here), here.signal.notnull().any(["step", "seed"])
    return [
        Row(
            f"F2c  signal to drift, {method}, {at(here)}",
            "–",
            *geometric_mean_of(ratio.sel({"method": method}).values).cells(
                "diverged" if known.sel({"method": method}) else "–"
            ),
        )
        for method in ratio.method.values
    ]


def purities(data: xr.Dataset) -> xr.DataArray:
    """Return the purity of the runs of every adapter method, NaN also where signal and drift are not recorded."""
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
    before = data.start_score.isel(rank=0)
    shown = (mean_of(before.sel(judge=name).values) for name in score_names(data))
    listed = ", ".join(
        f"{k} {v}{f' {v.interval()}' * (config.seeds > 1)}" for k, v in zip(score_names(data), shown, strict=True)
    )
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
    tiny={**SMALL, "ranks": (2, 8), "own_rates": (0.1, 1.0, 10.0)},
    homes=HOMES,
    refuses=tuned_only,
    first=rates.of,
    stages=STAGES,
    captions={f"{name}{suffix}": text for name, text in CAPTIONS.items() for suffix in ("", "_at_0_1")},
)
