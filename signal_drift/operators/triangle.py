"""Builds a symmetric matrix from the part of every column that lies at the diagonal or below it.

Of the columns of one layer only the rows of that layer and of those after it are computed: in a model that goes through
its layers in this order, what comes before has no tangent and needs no cotangent, which is half of the work.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from signal_drift.operators.chunks import chunk, images, in_chunks
from signal_drift.operators.linearised import LinearMap

WIDTH = 1024
"""Columns of a block at least: each is compiled by itself, which pays only where there are many to compute."""
SMALL = 4
"""Blocks of that width in all, below which the matrix is one block: compiling more would cost more than is saved."""
BLOCKS = 8
"""Blocks at most: with b of them (b + 1)/2b of the matrix is computed."""


@runtime_checkable
class Triangular(Protocol):
    """Stand for what turns a point into a linear map, and into the lower part of a block of its columns too."""

    def __call__(self, point: Any, /) -> LinearMap: ...

    def sizes(self, point: Any, /) -> Sequence[int]:
        """Return the number of variables of each of the arrays, a block being some of these in a row."""
        ...

    def lower(self, point: Any, first: int, last: int, /) -> LinearMap:
        """Return v ↦ rows of H v from the array `first` on, v in the arrays from `first` up to `last`."""
        ...


def asymmetry_of_rounding(n: int, dtype: DTypeLike) -> float:
    """Return 100·√n·ε, by how much ⟨u, Hv⟩ and ⟨v, Hu⟩ of random unit vectors may differ by rounding, in units of ‖Hu‖.

    E⟨u, (H − Hᵀ)v⟩² = ‖H − Hᵀ‖_F²/n² and E‖Hu‖² = ‖H‖_F²/n: it is the same as √n times this for ‖H − Hᵀ‖_F/‖H‖_F.
    """
    return 100 * n**0.5 * float(jnp.finfo(dtype).eps)


def blocks(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Divide arrays of these sizes into blocks, each of some arrays in a row: the first one and the one after the last.

    >>> blocks([1024, 2000, 600, 600, 10])
    [(0, 1), (1, 2), (2, 5)]
    """
    width = max(WIDTH, -(-sum(sizes) // BLOCKS))
    if sum(sizes) < SMALL * WIDTH:
        return [(0, len(sizes))]
    cuts, begun = [0], 0
    for i, size in enumerate(sizes):
        begun += size
        if begun >= width:
            cuts, begun = [*cuts, i + 1], 0
    if cuts[-1] < len(sizes):
        cuts = [*cuts[: max(1, len(cuts) - 1)], len(sizes)]
    return list(pairwise(cuts))


def from_lower_columns(linearise: Triangular, point: Any, dtype: jnp.dtype) -> Float[Array, "n n"]:
    """Build the matrix block by block, each column mirrored as soon as it is known, in the memory of one copy."""
    sizes = linearise.sizes(point)
    ends = np.cumsum([0, *sizes])
    n = int(ends[-1])
    H = jnp.zeros((n, n), dtype)
    for first, last in blocks(sizes):
        H, point = jax.lax.optimization_barrier((H, point))  # what one block keeps is gone before the next
        start, width = int(ends[first]), int(ends[last] - ends[first])
        H = _mirrored(H, linearise.lower(point, first, last), start, width)
    return H


def _mirrored(H: Array, apply: LinearMap, start: int, width: int) -> Array:
    """Fill in the columns from `start` on and the rows that are their transpose, a chunk at a time."""
    size = min(width, chunk(apply, jax.ShapeDtypeStruct((width,), H.dtype), H.size * H.dtype.itemsize))

    def fill(column: Array, H: Array) -> Array:
        basis = (column + jnp.arange(size))[:, None] == jnp.arange(width)
        rows = images(apply, basis.astype(H.dtype))
        H = jax.lax.dynamic_update_slice(H, rows, (start + column, start))
        return jax.lax.dynamic_update_slice(H, rows[:, width:].T, (start + width, start + column))

    return in_chunks(width, size, fill, H)
