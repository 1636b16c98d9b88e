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
from experiments.tuning.gap import Setup, at, fraction, gap, over_common, rate_name, reductions
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
PREDICTORS = ("V2/r", "α_c/V2", "rank", "η_FFT")
"""What the gain of V2 is held against, over all problems and ranks at one rate."""


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
    rank, (_, read) = int(here["rank"]), compared(config)
    over = over_common(V2, Setup(rank, config.problem.sigma_a(), read.fft_rates))
    crossover = rank * float(here.drift) / float(here.signal)
    return {
        "gain": float(reductions(here).sel({"method": V2}).mean()),
        "V2/r": over,
        "α_c/V2": crossover / (over * rank),
        "rank": rank,
        "η_FFT": float(here.learning_rate.values.flat[0]) / float(here.share),
    }


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
    """Lay all problems out in one table, and say with what the gain of V2 goes over its rows."""
    shares = sorted({float(x) for _, data in asked for x in data.share.values}, reverse=True)
    groups = {
        f"at {rate_name(share)}": {k: row for config, data in asked for k, row in lines(config, data, share).items()}
        for share in shares
    }
    told = {
        share: [numbers(config, here) for config, data in asked for here in places(data) if here.share == share]
        for share in shares
    }
    notes = [CROSSOVER, ESTIMATED, _seeds([config for config, _ in asked]), *_lower_rates(asked)]
    notes += [line for share in shares for line in association(rate_name(share), told[share])]
    return SideBySide(TITLE, COLUMNS, groups, notes, row="problem")


CROSSOVER = "α_c = r·σ₁(G)/λmax[H_Signal] at s = 1, all layers together, at the first draw (X16)."
ESTIMATED = (
    "What the best α closes is read of each seed at the α that is best at the others; the α named is that of the mean "
    "over all seeds, with ≤ or ≥ at an end of the sweep."
)


def _seeds(configs: Sequence[Config]) -> str:
    """Say of how many seeds every problem's comparison is read."""
    read = {n: ", ".join(x.problem.name for x in configs if x.seeds == n) for n in sorted({x.seeds for x in configs})}
    told = "; ".join(f"on {names} the first {f'{n} seeds' if n > 1 else 'seed'}" for n, names in read.items())
    return f"Read are {told}; a comparison's own table and the ledger may have more."


def _lower_rates(asked: Sequence[tuple[Config, xr.Dataset]]) -> list[str]:
    """Count the rows whose problem was run at two rates, and at how many of them V2 gains more at the lower one."""
    gains = [
        [numbers(config, data.sel(rank=rank, share=share))["gain"] for share in sorted(data.share.values)]
        for config, data in asked
        for rank in data["rank"].values
        if data.sizes["share"] > 1
    ]
    more = sum(lower > higher for lower, *_, higher in gains)
    return [f"Of {len(gains)} rows run at more than one rate V2 gains more at the lowest in {more}."] if gains else []


def association(rate: str, told: Sequence[Mapping[str, float]]) -> list[str]:
    """Say how the gain of V2 over α = r goes with each predictor over the rows of one rate: Spearman's correlation.

    Ranks of one problem are no independent rows, and gains are on the scale of each problem: no interval is given.
    """
    if len(told) < FEWEST:
        return []
    gains = [x["gain"] for x in told]
    found: dict[str, Any] = {name: scipy.stats.spearmanr(gains, [x[name] for x in told]) for name in PREDICTORS}
    words = ", ".join(f"{name} {x.statistic:+.2f}" for name, x in found.items())
    return [f"Rank correlation of V2's gain with what might predict it, at {rate} over {len(told)} rows: {words}."]


FEWEST = 4
"""Rows below which a correlation says nothing."""


def report(config: Config, data: xr.Dataset) -> Report:
    rows = [
        Row(f"V    {column}, {at(here)}", "–", cell.text, "–")
        for here in places(data)
        for column, cell in zip(COLUMNS, _line(config, here), strict=True)
    ]
    return Report(rows, [], {})


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
