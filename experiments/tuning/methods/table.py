"""Print the comparison as the paper's Tables 1 and 2 are printed: methods × judges, the best two of a column marked."""

from collections.abc import Mapping
from typing import Protocol

import xarray as xr

from experiments.lab.problem import Problem
from experiments.lab.side_by_side import Cell, SideBySide
from experiments.tuning.gap import rate_name
from experiments.tuning.methods.recipes import V1, V2, methods, namesakes
from experiments.tuning.methods.standings import OVER_ALPHA, Column, cells, compared, contenders, order, own_best


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


def table(config: Comparison, data: xr.Dataset) -> SideBySide:
    """Lay out all methods at every rate of the comparison and, where there is a sweep, each at its own best."""
    halves = {f"at {rate_name(share)}": compared(data.sel(share=share)) for share in config.rate_shares}
    leaders = dict.fromkeys(halves, (V2, V1))
    notes = ["mean ± half of the 95% interval over seeds; in each part the best of a column, and the second."]
    if len(config.own_rates) > 1:
        name = "* each at its own best"
        halves[name], leaders[name] = own_best(data), (OVER_ALPHA, f"{V2}*")
        notes.append(
            f"* of η among {', '.join(f'{m:g}' for m in config.own_rates)} × η_FFT, or of α at η_FFT, by the judge of "
            "the column; a seed is read at the choice of the others. In brackets the choice of all, ≤ and ≥ at an end "
            "of the sweep: the best may lie beyond."
        )
    same = {int(r): namesakes(methods(int(r), config.problem.sigma_a(), config.coefficient)) for r in data["rank"]}
    notes += [f"At r = {r} {other} is {name}: one run." for r, names in same.items() for other, name in names.items()]
    for half, columns in halves.items():
        notes += [_order(half, columns, leader, same) for leader in leaders[half] if leader in columns[0].costs]
    title = f"Methods side by side on {config.problem.label}, {config.over_seeds}"
    columns = [column.name for column in next(iter(halves.values()))]
    return SideBySide(title, columns, {name: _lines(found) for name, found in halves.items()}, notes)


def _lines(columns: list[Column]) -> dict[str, list[Cell]]:
    written = [cells(column) for column in columns]
    return {row: [cell[row] for cell in written] for row in columns[0].costs}


def _order(half: str, columns: list[Column], leader: str, same: Mapping[int, Mapping[str, str]]) -> str:
    """Say column by column whether the paper's order holds, that the leader is ahead of every other method."""
    found = (
        f"{column.name}: {order(column, leader, contenders(column, leader, same[column.rank]))}" for column in columns
    )
    return f"That {leader} is ahead of every other adapter, {half.removeprefix('* ')}, by {'. By '.join(found)}."
