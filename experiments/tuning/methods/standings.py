"""Say how the methods stand: who is best by each judge, and whether LoRA-α is ahead of every other, paired by seed.

A column is one rank and one judge: ln of the training loss, of which less is better, or a score, of which more is.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import xarray as xr

from experiments.analysis.intervals import CONFIDENCE, lead_of, mean_of
from experiments.analysis.sweeps import best_of_others
from experiments.lab.side_by_side import Cell, Place
from experiments.tuning.methods.recipes import FULL
from experiments.tuning.runs import score_names

LOSS = "ln loss"
OWN = " *"
"""Ends the name of a method at the best rate of its own."""
OVER_ALPHA = "LoRA-α *, over α"
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
    for rank, (judge, values) in product(data["rank"].values, by_rate.items()):
        rows = _rows(values.sel(rank=rank), "tuned", "multiple")
        sweeps = {f"{name}{OWN}": _Sweep(data.multiple.values, x, "×") for name, x in rows.items()}
        if judge in by_alpha:
            costs = by_alpha[judge].sel(rank=rank).transpose("seed", "over_v2").values
            sweeps[OVER_ALPHA] = _Sweep(data.over_v2.values, costs, " V2")
        best = {name: best_of_others(sweep.costs) for name, sweep in sweeps.items()}
        found.append(Column(int(rank), judge, best, {name: _place(sweep) for name, sweep in sweeps.items()}))
    return found


class _Sweep(NamedTuple):
    """Hold the costs of every seed over x, in units that are named."""

    x: np.ndarray
    costs: np.ndarray
    unit: str


def _costs(data: xr.Dataset, loss: str, score: str) -> dict[str, xr.DataArray]:
    """Return what each judge says, so that less is better, and infinite where it says nothing."""
    scores = {name: -data[score].sel(judge=name) for name in score_names(data)}
    return {name: x.fillna(np.inf) for name, x in {LOSS: data[loss], **scores}.items()}


def _rows(values: xr.DataArray, axis: str, *more: str) -> dict[str, np.ndarray]:
    return {str(name): values.sel({axis: name}).transpose("seed", *more).values for name in values[axis].values}


def _place(sweep: _Sweep) -> str:
    """Say where the mean over all seeds is lowest; at an end of the sweep it lies there or beyond."""
    i = int(np.argmin(sweep.costs.mean(axis=0)))
    beyond = {0: "≤ ", len(sweep.x) - 1: "≥ "}.get(i, "")
    return f" ({beyond}{sweep.x[i]:g}{sweep.unit})"


def cells(column: Column) -> dict[str, Cell]:
    """Write the mean and half of its 95% interval, the best two marked.

    What is equal, as rows that are one run, shares its mark; where all is equal none is best.
    """
    means = {name: float(np.mean(x)) for name, x in column.costs.items()}
    order = sorted({mean for mean in means.values() if np.isfinite(mean)})
    marks = dict(zip(order, MARKS, strict=False)) if len(order) > 1 else {}
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

    @property
    def verdict(self) -> str:
        """Say whether the leader is ahead of all, and how many rows say so."""
        verdict = "fails" if self.behind else "undecided" if self.undecided else "holds"
        return ", ".join([verdict, *(f"{len(rows)} {name}" for name, rows in self._asdict().items() if rows)])

    def __str__(self) -> str:
        words = ("ahead of", "behind")
        return ", ".join(f"{name} {' · '.join(rows)}" for name, rows in zip(words, self, strict=False) if rows)


def order(column: Column, leader: str, same: Mapping[str, str]) -> Order:
    """Tell of which other adapter methods the leader is ahead, by paired intervals that hold together with 95%.

    `same` names the first of several names of one run: no row is held against itself.
    """

    def named(row: str) -> str:
        name = row.removesuffix(OWN)
        return same.get(name, name)

    others = [row for row in column.costs if named(row) not in (FULL, named(leader))]
    found: dict[int, list[str]] = {1: [], -1: [], 0: []}
    for other in others:
        lead = lead_of(column.costs[leader], column.costs[other])
        _, low, high = lead.at(1 - (1 - CONFIDENCE) / len(others))
        found[1 if low > 0 else -1 if high < 0 else 0].append(other)
    return Order(found[1], found[-1], found[0])
