"""Say how the methods stand: who is best by each judge, and whether LoRA-α is ahead of every other, paired by seed.

A column is one rank and one judge: ln of the training loss, of which less is better, or a score, of which more is.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

from experiments.analysis.intervals import CONFIDENCE, lead_of, mean_of
from experiments.analysis.sweeps import best_of_others
from experiments.lab.side_by_side import Cell, Place
from experiments.tuning.methods.recipes import FULL
from experiments.tuning.runs import score_names

LOSS = "ln loss"
OVER_ALPHA = "LoRA-α*, over α"
"""LoRA at η_FFT with the α that is best there."""
MARKS: tuple[Place, Place] = ("best", "second")


class Column(NamedTuple):
    """Hold what one judge at one rank says of every row: a cost for each seed, infinite where the run diverged.

    `where` says in which place of a sweep the best of a row lies.
    """

    rank: int
    judge: str
    costs: Mapping[str, np.ndarray]
    where: Mapping[str, str]

    @property
    def name(self) -> str:
        """Name it above the table."""
        return f"r = {self.rank}: {self.judge}"


def compared(here: xr.Dataset) -> list[Column]:
    """Return the columns of the methods at one learning rate."""
    return [
        Column(int(rank), judge, _rows(values.sel(rank=rank), "method"), {})
        for rank in here["rank"].values
        for judge, values in _costs(here, "log_loss", "score").items()
    ]


def own_best(data: xr.Dataset) -> list[Column]:
    """Return the columns of the methods at the best η of each, and of LoRA at η_FFT with the best α, by each judge.

    A seed is judged at the η that is best on average at the other seeds.
    """
    by_rate = _costs(data, "by_rate", "score_by_rate")
    by_alpha = _costs(data.sel(share=1.0), "by_alpha", "score_by_alpha") if 1.0 in data.share else {}
    found = []
    for rank in data["rank"].values:
        for judge, values in by_rate.items():
            sweeps = {f"{name}*": (x, "×") for name, x in _rows(values.sel(rank=rank), "tuned", "multiple").items()}
            multiples = dict.fromkeys(sweeps, data.multiple.values)
            if judge in by_alpha:
                sweeps[OVER_ALPHA] = (by_alpha[judge].sel(rank=rank).transpose("seed", "over_v2").values, " V2")
                multiples[OVER_ALPHA] = data.over_v2.values
            costs = {name: best_of_others(x) for name, (x, _) in sweeps.items()}
            where = {name: _place(multiples[name], x, unit) for name, (x, unit) in sweeps.items()}
            found.append(Column(int(rank), judge, costs, where))
    return found


def _costs(data: xr.Dataset, loss: str, score: str) -> dict[str, xr.DataArray]:
    """What each judge says, so that less is better, and infinite where it says nothing."""
    scores = {name: -data[score].sel(judge=name) for name in score_names(data)}
    return {name: x.fillna(np.inf) for name, x in {LOSS: data[loss], **scores}.items()}


def _rows(values: xr.DataArray, axis: str, *more: str) -> dict[str, np.ndarray]:
    return {str(name): values.sel({axis: name}).transpose("seed", *more).values for name in values[axis].values}


def _place(x: np.ndarray, costs: np.ndarray, unit: str) -> str:
    """Where the mean over all seeds is lowest; at an end of the sweep it lies there or beyond."""
    i = int(np.argmin(costs.mean(axis=0)))
    beyond = "≤ " if i == 0 else "≥ " if i == len(x) - 1 else ""
    return f" ({beyond}{x[i]:g}{unit})"


def cells(column: Column) -> dict[str, Cell]:
    """Write the mean and half of its 95% interval, the best two marked; rows that are one run share their mark."""
    means = {name: float(np.mean(x)) for name, x in column.costs.items()}
    order = sorted({mean for mean in means.values() if np.isfinite(mean)})
    marks = dict(zip(order, MARKS, strict=False))
    return {name: Cell(_text(column, name), marks.get(means[name], "")) for name in column.costs}


def _text(column: Column, name: str) -> str:
    costs, where = column.costs[name], column.where.get(name, "")
    lost = int(np.isinf(costs).sum())
    if lost:
        return f"diverged at {lost} of {len(costs)}"
    value, _, high = mean_of(costs if column.judge == LOSS else -costs).at()
    around = f" ± {high - value:.2g}" if np.isfinite(high) else ""
    return f"{value:.4g}{around}{where}"


class Order(NamedTuple):
    """Hold of which rows the leader is ahead, which it is behind, and which it cannot be told from."""

    ahead: Sequence[str]
    behind: Sequence[str]
    undecided: Sequence[str]

    def __str__(self) -> str:
        verdict = "fails" if self.behind else "is undecided" if self.undecided else "holds"
        told = (f"{name} {', '.join(rows)}" for name, rows in zip(_WORDS, self, strict=True) if rows)
        return "; ".join([verdict, *told])


_WORDS = ("ahead of", "behind", "undecided against")


def order(column: Column, leader: str, others: Iterable[str]) -> Order:
    """Tell of which others the leader is ahead by intervals that hold together with 95%."""
    asked = [other for other in others if other != leader]
    found: dict[int, list[str]] = {1: [], -1: [], 0: []}
    for other in asked:
        lead = lead_of(column.costs[leader], column.costs[other])
        _, low, high = lead.at(1 - (1 - CONFIDENCE) / len(asked))
        found[1 if low > 0 else -1 if high < 0 else 0].append(other)
    return Order(found[1], found[-1], found[0])


def contenders(column: Column, leader: str, same: Mapping[str, str]) -> list[str]:
    """List the rows that the leader is held against: every adapter method, but for those that are one run with it."""

    def named(row: str) -> str:
        name = row.removesuffix("*")
        return same.get(name, name)

    return [row for row in column.costs if named(row) not in (FULL, named(leader))]
