"""Lets a result show itself in a terminal and in Jupyter: shapes, ranks, sizes and verdicts, never an array."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jax.core import Tracer

C = TypeVar("C", bound=type)

LINES = 60
"""Rows of a table that are shown, where it does not say how many."""
LAYER = ("layer", "W₀", "‖W₀‖", "r", "s", "‖A‖", "‖B‖")
"""The columns of `layer_rows`."""


class Table(NamedTuple):
    """Hold a line, and rows under a header if there is more to say."""

    title: str
    header: tuple[str, ...] = ()
    rows: Sequence[tuple[str, ...]] = ()
    most: int = LINES
    """Rows that are shown."""


def displayed_as(table: Callable[[Any], Table]) -> Callable[[C], C]:
    """Give a class the `repr` that `table` makes of its instances, and the same as HTML for Jupyter."""

    def decorate(cls: C) -> C:
        setattr(cls, "__repr__", lambda self: as_text(table(self)))  # noqa: B010  # the type checker knows no slot
        setattr(cls, "_repr_html_", lambda self: as_html(table(self)))  # noqa: B010
        return cls

    return decorate


def as_text(table: Table) -> str:
    """Lay out columns aligned with spaces: words to the left, numbers to the right."""
    lines = [table.header, *table.rows[: table.most]] if table.rows else []
    columns = [_aligned(column) for column in zip(*lines, strict=True)]
    text = ["  ".join(line).rstrip() for line in zip(*columns, strict=True)]
    return "\n  ".join([table.title, *text, *_more(table)])


def _aligned(column: tuple[str, ...]) -> list[str]:
    """A header and its cells, all of one width."""
    width = max(map(len, column))
    words = any(cell[:1].isalpha() and cell not in {"nan", "inf"} for cell in column[1:])
    return [cell.ljust(width) if words else cell.rjust(width) for cell in column]


def as_html(table: Table) -> str:
    """Lay out a table as one element of HTML."""
    if not table.rows:
        return f"<code>{escape(table.title)}</code>"
    head, *body = (
        "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in line) + "</tr>"
        for tag, line in [("th", table.header), *(("td", row) for row in table.rows[:LINES])]
    )
    under = "".join(f"<div>{escape(line)}</div>" for line in _more(table))
    return f"<div>{escape(table.title)}</div><table><thead>{head}</thead><tbody>{''.join(body)}</tbody></table>{under}"


def _more(table: Table) -> list[str]:
    return [f"… and {len(table.rows) - table.most} more"] if len(table.rows) > table.most else []


def number(x: Any) -> str:
    """Write a number to three digits; one that is not known yet, as under jit, is a dash."""
    return f"{float(x):.3g}" if _known(x) else "–"


def span(values: Any) -> str:
    """Write the least and the greatest of some numbers, or the one they all are."""
    if not _known(values):
        return "–"
    low, high = (number(f(np.asarray(values))) for f in (np.min, np.max))
    return low if low == high else f"{low} … {high}"


def norm(x: Any) -> str:
    """Write ‖x‖_F."""
    return number(np.linalg.norm(np.asarray(x))) if _known(x) else "–"


def shape(x: Any) -> str:
    """Write the shape of an array, 3×4."""
    return "×".join(map(str, getattr(x, "shape", ())))


def dtype(tree: Any) -> str:
    """Write the dtypes of the leaves, as far as they have one."""
    return ", ".join(sorted({str(x.dtype) for x in jax.tree.leaves(tree) if hasattr(x, "dtype")})) or "no arrays"


def layer_rows(base: Mapping, adapters: Mapping, scaling: Mapping) -> list[tuple[str, ...]]:
    """Write one line for each layer: its sizes and norms."""
    return [
        (k, shape(base[k]), norm(base[k]), str(len(A)), number(scaling[k]), norm(A), norm(B))
        for k, (A, B) in sorted(adapters.items())
    ]


def _known(x: Any) -> bool:
    return isinstance(x, jax.Array | np.ndarray | np.generic | float | int) and not isinstance(x, Tracer)
