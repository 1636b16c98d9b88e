"""Ask where V2 pays: how far below α = r it ends at one rate, what of the gap to full fine-tuning it closes, and why.

What might predict it stands beside: V2 over α = r, the crossover α_c of X16 over V2, the rank, η_FFT, and
the rate of the comparison over it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.stats
import xarray as xr

from experiments.analysis.ends import sides
from experiments.analysis.intervals import difference_of, quotient_of
from experiments.analysis.sweeps import best_of_others
from experiments.lab.experiment import Experiment, Point, Report, Row, tuned_only
from experiments.lab.problem import Problem, Setting
from experiments.lab.side_by_side import Cell, SideBySide
from experiments.tuning import protocol_comparison
from experiments.tuning.gap import Setup, at, beyond_half, fraction, gap, over_common, rate_name, reductions, untestable
from experiments.tuning.methods import COMMON, FULL, V2
from experiments.tuning.runs import HOMES, tuning_of

TITLE = "Where V2 pays"
COLUMNS = (
    "ln loss, α = r less FFT",
    "V2/r",
    "V2 below α = r, ln loss",
    "of the gap V2 closes",
    "of the gap the best α closes",
    "α_c/V2",
    "η_FFT",
)
PREDICTORS = ("V2/r", "α_c/V2", "rank", "η_FFT", "η/η_FFT")
"""What the gain of V2 is held against, over all problems, ranks and rates."""


@dataclass(frozen=True)
class Config(Setting):
    """Read the comparison of methods at each of its rates, and measure at the first draw what might predict it."""

    tolerance: float = 0.01
    """Residual of an eigenvalue over ‖H‖ at which a search stops."""


def configure(problem: Problem) -> Config:
    return Config(problem, tuning_of(problem).seeds)


def compared(config: Config) -> tuple[Experiment[Any], Any]:
    """Return the comparison that is read, at the size that is reproduced or at that of tests."""
    quick = config.problem == config.problem.tiny()
    return protocol_comparison.EXPERIMENT, protocol_comparison.EXPERIMENT.at(config.problem, quick)


def points(config: Config) -> list[Point]:
    return [{"rank": rank} for rank in compared(config)[1].ranks]


def measure(config: Config, first: xr.Dataset, rank: int) -> xr.Dataset:
    """Take ln loss of every method and of every α from the comparison; measure σ₁(G) and λmax[H_Signal]."""
    here = first.sel(rank=rank)
    drift, signal = sides(config.problem, 0, rank, config.tolerance)
    kept = here[["log_loss", "by_alpha", "fft", "learning_rate"]].reset_coords(drop=True)
    return kept.assign(drift=drift, signal=signal)


def numbers(config: Config, here: xr.Dataset) -> dict[str, float]:
    """Return what is predicted, the gain of V2 over α = r in ln loss, and the predictors, at one rank and rate."""
    rank, (setup, crossover) = int(here["rank"]), _beside(config, here)
    over = over_common(V2, setup)
    return {
        "gain": float(reductions(here).sel({"method": V2}).mean()),
        "V2/r": over,
        "α_c/V2": crossover / (over * rank),
        "rank": rank,
        "η_FFT": float(here.learning_rate.values.flat[0]) / float(here.share),
        "η/η_FFT": float(here.share),
    }


def _beside(config: Config, here: xr.Dataset) -> tuple[Setup, float]:
    """What the conditions depend on, and α_c."""
    rank, (_, read) = int(here["rank"]), compared(config)
    return Setup(rank, config.problem.sigma_a(), read.fft_rates), rank * float(here.drift) / float(here.signal)


def lines(config: Config, data: xr.Dataset, share: float) -> dict[str, list[Cell]]:
    """Write a row for every rank at one rate."""
    return {
        f"{config.problem.name}, r = {here['rank'].item()}": _line(config, here)
        for here in places(data)
        if here.share == share
    }


def places(data: xr.Dataset) -> list[xr.Dataset]:
    """Return what is known at every rank and rate."""
    return [data.sel(rank=rank, share=share) for share in data.share.values for rank in data["rank"].values]


def _line(config: Config, here: xr.Dataset) -> list[Cell]:
    found, there = numbers(config, here), gap(here)
    open_gap = there.at().low > 0
    closed = quotient_of(_below(here), reductions(here).sel({"method": FULL}).values) if open_gap else None
    texts = (
        f"{there} {there.interval()}",
        f"{found['V2/r']:.3g}",
        _written(difference_of(reductions(here).sel({"method": V2}).values)),
        _written(fraction(here, V2)) if open_gap else "no gap",
        f"{closed} at {_best_over_v2(here)}" if closed else "no gap",
        f"{found['α_c/V2']:.3g}",
        f"{found['η_FFT']:.3g}",
    )
    return [Cell(text) for text in texts]


def _written(found: Any) -> str:
    return f"{found} {found.interval()}"


def _below(here: xr.Dataset) -> np.ndarray:
    """How far below α = r the best α of the sweep ends, each seed read where the others are best."""
    losses = here.by_alpha.transpose("seed", "over_v2").values
    return here.log_loss.sel({"method": COMMON}).values - best_of_others(losses)


def _best_over_v2(here: xr.Dataset) -> str:
    """Say where in the sweep the mean over seeds is lowest; at an end of it the best lies there or beyond."""
    i, x = int(here.by_alpha.mean("seed").argmin("over_v2")), here.over_v2.values
    beyond = {0: "≤ ", len(x) - 1: "≥ "}.get(i, "")
    return f"{beyond}{x[i]:g} V2"


def side_by_side(asked: Sequence[tuple[Config, xr.Dataset]]) -> SideBySide:
    """Lay all problems out in one table, and say with what the gain of V2 goes over all of its rows."""
    shares = sorted({float(x) for _, data in asked for x in data.share.values}, reverse=True)
    groups = {
        f"at {rate_name(share)}": {k: row for config, data in asked for k, row in lines(config, data, share).items()}
        for share in shares
    }
    told = [numbers(config, here) for config, data in asked for here in places(data)]
    notes = ["α_c = r·σ₁(G)/λmax[H_Signal] at s = 1, all layers together, at the first draw (X16)."]
    notes += [sentence for config, data in asked for sentence in _sentences(config, data)]
    return SideBySide(TITLE, COLUMNS, groups, [*notes, *association(told)])


def _sentences(config: Config, data: xr.Dataset) -> list[str]:
    return [f"{config.problem.label}, {at(here)}: V2 {verdict(config, here)}." for here in places(data)]


def verdict(config: Config, here: xr.Dataset) -> str:
    """Say whether V2 closes most of the gap, or why that cannot be asked."""
    why = untestable(here, _beside(config, here)[0])
    if why:
        return f"cannot be judged: {why.replace(f', {at(here)}', '')}"
    _, low, high = beyond_half(here, V2).at()
    return "closes most of the gap" if low > 0 else "closes less than half of the gap" if high < 0 else "is undecided"


def association(told: Sequence[Mapping[str, float]]) -> list[str]:
    """Say how the gain of V2 over α = r goes with each predictor over the rows: Spearman's rank correlation.

    Ranks and rates of one problem are no independent rows, so that no interval is given.
    """
    if len(told) < FEWEST:
        return []
    gains = [x["gain"] for x in told]
    found: dict[str, Any] = {name: scipy.stats.spearmanr(gains, [x[name] for x in told]) for name in PREDICTORS}
    words = ", ".join(f"{name} {x.statistic:+.2f}" for name, x in found.items())
    return [f"Rank correlation of V2's gain over α = r with what might predict it, over {len(told)} rows: {words}."]


FEWEST = 4
"""Rows below which a correlation says nothing."""


def report(config: Config, data: xr.Dataset) -> Report:
    rows = [
        Row(f"V    {column}, {at(here)}", "–", cell.text, "–")
        for here in places(data)
        for column, cell in zip(COLUMNS, _line(config, here), strict=True)
    ]
    return Report(rows, _sentences(config, data), {})


EXPERIMENT = Experiment(
    name="where_alpha_pays",
    title="Where V2 pays, on every problem alike, and what might predict it.",
    configure=configure,
    points=points,
    measure=measure,
    report=report,
    tiny={"seeds": 2},
    homes=HOMES,
    refuses=tuned_only,
    first=compared,
)
