"""Keeps to what fits: the memory that is left where arrays are made, the vectors that a map takes at a time."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import psutil
from jaxtyping import Array

from signal_drift.errors import RoomError

GIB = 2**30
CHUNK = 128
"""Columns built at a time at most: enough to fill the matrix units, small beside the result."""
CACHE = 2**26
"""On a CPU, bytes that the columns built at a time may write: about four times what lives at once, so 16 MB."""
SHARE = 0.5
"""On an accelerator, the share of the memory left beside the result that they may write."""


def available_bytes() -> int:
    """Return the bytes left on the default device: to JAX on an accelerator, on the host without swapping."""
    stats = None if jax.default_backend() == "cpu" else jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    return psutil.virtual_memory().available


def check_room(shape: tuple[int, int], size: int) -> None:
    """Raise `RoomError` unless a dense matrix of this shape, taking `size` bytes in all, fits."""
    left = available_bytes()
    if size > left:
        raise RoomError(
            f"op: as a dense matrix {shape} it needs {size / GIB:.3g} GiB, but {left / GIB:.3g} GiB are available; "
            "extreme_eigenvalues, estimate_trace and spectral_density need no matrix"
        )


def chunk(apply: Callable, v: jax.ShapeDtypeStruct, result: int) -> int:
    """Return how many vectors like v to map at a time for a result of so many bytes.

    They join the sample axis, but must not leave the cache of a CPU, nor the memory of an accelerator.
    """
    room = CACHE if jax.default_backend() == "cpu" else int(SHARE * max(available_bytes() - result, 0))
    equations = jax.make_jaxpr(apply)(v).jaxpr.eqns
    written = sum(x.aval.size * v.dtype.itemsize for e in equations for x in e.outvars)
    return max(1, min(CHUNK, room // max(written, 1)))


def images(f: Callable[[Array], Array], rows: Array) -> Array:
    """Return the images f(row), in one block, or row by row where JAX cannot map the function so."""
    try:
        return jax.vmap(f)(rows)
    except NotImplementedError:
        return jax.lax.map(f, rows)


def in_chunks(n: int, size: int, fill: Callable[[Array, Array], Array], into: Array) -> Array:
    """Return what is filled in by fill(start, filled) for chunks of `size` that cover n, in the memory of `into`.

    The last chunk ends with n, so it may repeat some of the one before: a shorter one would be another program.
    """
    return jax.lax.fori_loop(0, -(-n // size), lambda i, filled: fill(jnp.minimum(i * size, n - size), filled), into)


def map_chunks(f: Callable[[Array], Array], rows: Array, size: int) -> Array:
    """Return the images f(row), `size` rows at a time, in the memory of the result and of one chunk.

    `lax.map` would append a shorter chunk at the end, which copies the whole.
    """
    n = len(rows)
    size = min(size, n)
    image = jax.eval_shape(f, rows[0])

    def fill(start: Array, filled: Array) -> Array:
        part = images(f, jax.lax.dynamic_slice_in_dim(rows, start, size))
        return jax.lax.dynamic_update_slice_in_dim(filled, part, start, 0)

    return in_chunks(n, size, fill, jnp.zeros((n, *image.shape), image.dtype))
