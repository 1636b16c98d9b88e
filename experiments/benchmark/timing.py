"""Time a call until its result is there."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

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


def median(call: Callable[[], Any], repeats: int) -> float:
    """Time calls until there are enough of them, and take the middle."""
    times = []
    while (len(times) < repeats and sum(times) < ENOUGH) or (len(times) < MORE * repeats and sum(times) < BRIEF):
        times.append(timed(call)[0])
    return float(np.median(times))
