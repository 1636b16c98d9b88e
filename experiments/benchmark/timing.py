"""Time a call until its result is there, and tell a lack of memory from other errors."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from signal_drift import InputError

ENOUGH = 10.0
"""Seconds after which a call is not repeated."""
BRIEF = 1.0
"""Seconds of calls below which there are more of them than asked for, ..."""
MORE = 20
"""... up to so many times as many: a median of five calls of a millisecond is that of the first ones."""


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = jax.block_until_ready(call())
    return time.perf_counter() - start, result


def median(call: Callable[[], Any], repeats: int, *known: float) -> float:
    """Time calls until there are enough of them, those included of which the seconds are known, and take the middle."""
    times = list(known)
    while (len(times) < repeats and sum(times) < ENOUGH) or (len(times) < MORE * repeats and sum(times) < BRIEF):
        times.append(timed(call)[0])
    return float(np.median(times))


def no_room(error: Exception) -> str:
    """Say that there was no room, in a line; raise the error again where that is not what it says."""
    lacking = isinstance(error, InputError | MemoryError) or "allocat" in str(error)
    if not lacking and "RESOURCE_EXHAUSTED" not in str(error):  # a RuntimeError, as JAX and PyTorch have it
        raise error
    return f"no room: {str(error).splitlines()[0]}"
