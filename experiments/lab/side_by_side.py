"""Lay contestants out as a paper's table does: a row for each, a column for each judge, the best two marked."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from signal_drift.errors.words import printable

Place = Literal["", "best", "second"]
MARKED: Mapping[Place, str] = {"": "{}", "best": "**{}**", "second": "__{}__"}


class Cell(NamedTuple):
    """Hold what stands in a cell, and whether it is the best or the second of its column."""

    text: str
    place: Place = ""


class SideBySide(NamedTuple):
    """Hold a table: groups of rows, in each of which the best two of every column are marked, and notes below."""

    title: str
    columns: Sequence[str]
    groups: Mapping[str, Mapping[str, Sequence[Cell]]]
    """Name of the group → name of the row → its cells, one for each column."""
    notes: Sequence[str] = ()
    row: str = "method"
    """What a row is about."""


def as_markdown(table: SideBySide) -> str:
    """Write the table for a terminal: **the best** and __the second__ of a column."""
    lines = [["", *table.columns]]
    for group, rows in table.groups.items():
        lines.append([group, *([""] * len(table.columns))])
        lines += [[name, *(MARKED[x.place].format(x.text) for x in cells)] for name, cells in rows.items()]
    shown = [[printable(x) for x in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    text = ["| " + " | ".join(x.ljust(w) for x, w in zip(line, widths, strict=True)) + " |" for line in shown]
    rule = "|" + "|".join("-" * (w + 2) for w in widths) + "|"
    return "\n".join([printable(table.title), text[0], rule, *text[1:], *map(printable, table.notes)])
