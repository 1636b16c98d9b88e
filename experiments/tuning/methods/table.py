"""Print the comparison as the paper's Tables 1 and 2 are printed: methods × judges, the best two of a column marked."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import xarray as xr

from experiments.lab.problem import Problem
from experiments.lab.side_by_side import Cell, SideBySide
from experiments.tuning.gap import rate_name
from experiments.tuning.methods.recipes import V1, V2, methods, namesakes
from experiments.tuning.methods.standings import OVER_ALPHA, OWN, Column, Order, cells, compared, order, own_best


class Comparison(Protocol):
    """Name what the table reads of a configuration."""

    @property
    def problem(self) -> Problem: ...
    @property
    def over_seeds(self) -> str: ...
    @property
    def coefficient(self) -> float: ...
    @property
    def rate_shares(self) -> tuple[float, ...]: ...
    @property
    def own_rates(self) -> tuple[float, ...]: ...


MARKED = "Mean ± half of the 95% interval over seeds; in each part the best of a column is marked, and the second."
STARRED = (
    "*: the best of η in the sweep, or of α at η_FFT, by the judge of the column; a seed is read where the others "
    "are best. In brackets where all are; ≤ and ≥ stand at an end of the sweep, beyond which the best may lie."
)
OWN_BEST = "each at its own best"
ORDERED = "is it ahead of every other adapter?"


class _Part(NamedTuple):
    """Hold a part of the table: its columns, and the rows of which the paper says that they are ahead."""

    columns: Sequence[Column]
    leaders: Sequence[str]


def table(config: Comparison, data: xr.Dataset) -> SideBySide:
    """Lay out all methods at every rate of the comparison and, where there is a sweep, each at its own best.

    Below stands whether the paper's order holds: LoRA-α ahead of every other adapter, paired by seed.
    """
    parts = {f"at {rate_name(x)}": _Part(compared(data.sel(share=x)), (V2, V1)) for x in config.rate_shares}
    swept = len(config.own_rates) > 1
    if swept:
        columns = own_best(data)
        parts[OWN_BEST] = _Part(columns, [x for x in (OVER_ALPHA, f"{V2}{OWN}") if x in columns[0].costs])
    same = {int(r): namesakes(methods(int(r), config.problem.sigma_a(), config.coefficient)) for r in data["rank"]}
    orders = {
        f"{leader}, {name}": {c.name: order(c, leader, same[c.rank]) for c in part.columns}
        for name, part in parts.items()
        for leader in part.leaders
    }
    groups = {name: _lines(part.columns) for name, part in parts.items()}
    groups[ORDERED] = {name: [Cell(x.verdict) for x in found.values()] for name, found in orders.items()}
    notes = [MARKED, *[STARRED] * swept]
    notes += [f"At r = {r} {other} is {name}: one run." for r, names in same.items() for other, name in names.items()]
    notes += [f"{name}, is {'; '.join(told)}." for name, found in orders.items() if (told := _decided(found))]
    title = f"Methods side by side on {config.problem.label}, {config.over_seeds}"
    return SideBySide(title, [c.name for c in next(iter(parts.values())).columns], groups, notes)


def _decided(found: Mapping[str, Order]) -> list[str]:
    """Say what is decided in each column; the rest is not."""
    return [f"{x} ({name})" for name, x in found.items() if str(x)]


def _lines(columns: Sequence[Column]) -> dict[str, list[Cell]]:
    written = [cells(column) for column in columns]
    return {row: [cell[row] for cell in written] for row in columns[0].costs}
