"""Keeps orthonormal vectors on the operator's device, in its dtype, in blocks of one shape: few programs serve all.

Rows of a block that hold no vector are zero, which changes no product.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

FEWEST, MOST, ENTRIES = 8, 64, 2**15
"""Rows of a block: as few as this where vectors are long, and where they are short so many that a call is worth it."""
CHUNKS, NARROW = 16, 1024
"""Chunks of columns in which a basis is recombined in place, unless they would be narrower than this."""


def rows_of_block(n: int) -> int:
    """Return the rows of a block of vectors of length n."""
    return min(MOST, max(FEWEST, ENTRIES // n))


class Basis:
    """Hold orthonormal vectors of length n, one a row."""

    def __init__(self, n: int, dtype: DTypeLike) -> None:
        self.n, self.dtype, self.size = n, jnp.dtype(dtype), 0
        self.height = rows_of_block(n)
        self.blocks: list[Float[Array, "height n"]] = []

    def append(self, x: Float[Array, "n"], norm: float) -> Float[Array, "n"]:
        """Append x/norm, and return it."""
        block, row = divmod(self.size, self.height)
        if block == len(self.blocks):
            self.blocks.append(jnp.zeros((self.height, self.n), self.dtype))
        self.blocks[block], unit = _placed(self.blocks[block], x, norm, row)
        self.size += 1
        return unit

    def combined(self, S: Float[np.ndarray, "m k"]) -> Float[np.ndarray, "k n"]:
        """Return Sᵀ times the basis on the host."""
        found = []
        for weights in self._padded(S, S.shape[1]).T.reshape(-1, len(self.blocks), self.height):
            total = jnp.zeros(self.n, self.dtype)
            for s, block in zip(weights, self.blocks, strict=True):
                total = _added(total, s, block)
            found.append(np.asarray(total))
        return np.stack(found) if found else np.zeros((0, self.n), self.dtype)

    def recombine(self, S: Float[np.ndarray, "m k"]) -> None:
        """Put Sᵀ times the basis, k ≤ m, in its place: in chunks of columns, without a second basis."""
        self.size = S.shape[1]
        kept = -(-self.size // self.height)
        self.blocks = list(_recombined(self.blocks, self._padded(S, kept * self.height)))[:kept]

    def _padded(self, S: np.ndarray, width: int) -> np.ndarray:
        """S in the basis' dtype with zeros for the rows that hold no vector."""
        padded = np.zeros((self.height * len(self.blocks), width), self.dtype)
        padded[: S.shape[0], : S.shape[1]] = S
        return padded

    def rows(self) -> Float[np.ndarray, "m n"]:
        """Return the vectors on the host."""
        return np.concatenate([np.zeros((0, self.n), self.dtype), *map(np.asarray, self.blocks)])[: self.size]


def orthogonalised(x: Float[Array, "n"], *bases: Basis) -> tuple[Array, list[np.ndarray], float]:
    """Return (x − QᵀQx, Qx for each basis, norm of the first), Q the rows of the bases, orthonormal, at least one.

    Twice where the first pass leaves less than half, which is enough. The result takes the place of x.
    """
    rest, h, norm = _pass(x, bases)
    if norm < np.hypot(norm, np.linalg.norm(np.concatenate(h))) / 2:
        rest, again, norm = _pass(rest, bases)
        h = [one + other for one, other in zip(h, again, strict=True)]
    return rest, h, norm


def _pass(x: Array, bases: tuple[Basis, ...]) -> tuple[Array, list[np.ndarray], float]:
    """One pass, block by block."""
    found, norm = [], None
    for basis in bases:
        parts = []
        for block in basis.blocks:
            x, h, norm = _swept(block, x)
            parts.append(h)
        found.append(parts)
    found, norm = jax.device_get((found, norm))
    h = [np.concatenate([np.zeros(0), *parts])[: basis.size] for basis, parts in zip(bases, found, strict=True)]
    return x, h, float(norm)


@jax.jit(donate_argnums=1)
def _swept(block: Array, x: Array) -> tuple[Array, Array, Array]:
    """(x − BᵀBx, Bx, norm of the first), the first in the place of x."""
    h = jnp.matmul(block, x, precision="highest")
    rest = x - jnp.matmul(h, block, precision="highest")
    return rest, h, jnp.sqrt(jnp.vdot(rest, rest, precision="highest"))


@jax.jit(donate_argnums=0)
def _placed(block: Array, x: Array, norm: Array, row: Array) -> tuple[Array, Array]:
    unit = (x / norm).astype(block.dtype)
    return block.at[row].set(unit), unit


@jax.jit(donate_argnums=0)
def _added(total: Array, s: Array, block: Array) -> Array:
    return total + jnp.matmul(s, block, precision="highest")


@jax.jit(donate_argnums=0)
def _recombined(blocks: list[Array], S: Array) -> list[Array]:
    """Sᵀ times the blocks in the first of them; all are returned, so that each takes the place of its own."""
    height, n = blocks[0].shape
    width = max(n // CHUNKS, min(n, NARROW))

    def chunk(start: Array | int, blocks: list[Array], width: int) -> list[Array]:
        old = jnp.concatenate([jax.lax.dynamic_slice_in_dim(block, start, width, 1) for block in blocks])
        new = jnp.matmul(S.T, old, precision="highest").reshape(-1, height, width)
        moved = [jax.lax.dynamic_update_slice_in_dim(b, x, start, 1) for b, x in zip(blocks, new, strict=False)]
        return moved + blocks[len(moved) :]

    whole = n // width
    blocks = jax.lax.fori_loop(0, whole, lambda i, blocks: chunk(i * width, blocks, width), blocks)
    return chunk(whole * width, blocks, n - whole * width) if whole * width < n else blocks
