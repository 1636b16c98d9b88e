"""What fits: the memory that is left where arrays are made, and the vectors that a linear map takes at a time."""

import os
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
from jaxtyping import Array

from signal_drift.errors import InputError

GIB = 2**30
CHUNK = 128
"""Columns built at a time at most: enough to fill the matrix units, small beside the result."""
CACHE = 2**26
"""On a CPU, bytes that the columns built at a time may write: about four times what lives at once, so 16 MB."""


def available_bytes() -> int:
    """On the default device: of an accelerator what JAX may still take, of the host what Linux calls available."""
    stats = None if jax.default_backend() == "cpu" else jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    table = Path("/proc/meminfo")
    if table.exists():
        lines = dict(line.split(":") for line in table.read_text(encoding="ascii").splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def check_room(shape: tuple[int, int], size: int) -> None:
    """A dense matrix of this shape, taking `size` bytes in all, fits; or `InputError` before it is begun."""
    left = available_bytes()
    if size > left:
        raise InputError(
            f"op: as a dense matrix {shape} it needs {size / GIB:.3g} GiB, but {left / GIB:.3g} GiB are available; "
            "extreme_eigenvalues, estimate_trace and spectral_density need no matrix"
        )


def chunk(apply: Callable, v: jax.ShapeDtypeStruct) -> int:
    """Vectors like v to map at a time: they join the sample axis of each product, but must not leave the cache."""
    if jax.default_backend() != "cpu":
        return CHUNK
    equations = jax.make_jaxpr(apply)(v).jaxpr.eqns
    written = sum(x.aval.size * v.dtype.itemsize for e in equations for x in e.outvars)
    return max(1, min(CHUNK, CACHE // max(written, 1)))


def map_chunks(f: Callable[[Array], Array], rows: Array, size: int) -> Array:
    """The images f(row), `size` rows at a time, in the memory of the result and of one chunk.

    The last chunk ends with the last row, so it may repeat rows of the one before: `lax.map` would append a shorter
    one, which copies the whole.
    """
    n = len(rows)
    size = min(size, n)
    image = jax.eval_shape(f, rows[0])

    def fill(i: Array, images: Array) -> Array:
        start = jnp.minimum(i * size, n - size)
        part = jax.vmap(f)(jax.lax.dynamic_slice_in_dim(rows, start, size))
        return jax.lax.dynamic_update_slice_in_dim(images, part, start, 0)

    return jax.lax.fori_loop(0, -(-n // size), fill, jnp.zeros((n, *image.shape), image.dtype))
