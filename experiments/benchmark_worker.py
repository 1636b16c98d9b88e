"""The process in which `benchmark.py` measures one kernel, one way, one width."""

import ctypes
import gc
import importlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import benchmark_cases
from experiments.benchmark import ANSWERS, Config
from experiments.benchmark_floors import measured_rates
from experiments.experiment import prepare
from signal_drift import InputError

ENOUGH = 10.0
"""Seconds after which a call is not repeated."""


def work(kernel: str, way: str, config: Config) -> None:
    """Print what was measured as JSON; a line on stderr and exit status 1 where a tool or the room is missing."""
    prepare("cpu")
    call = _case(kernel, way.removesuffix("-1"))(config)
    try:
        first, result = _timed(call)
    except (InputError, MemoryError) as error:
        sys.exit(f"no room: {error}")
    except RuntimeError as error:  # which JAX and PyTorch raise where they cannot allocate
        if "allocat" not in str(error) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        sys.exit(f"no room: {str(error).splitlines()[0]}")
    details = result if isinstance(result, dict) else {"answer": result}
    answer = np.ravel(_array(details["answer"]))
    size, picked = answer.nbytes, answer[np.linspace(0, answer.size - 1, ANSWERS).astype(int)].tolist()
    del result, details["answer"], answer
    once = kernel == "pipeline"
    seconds = first if once else _median(call, config.repeats)
    memory = _status("VmHWM") if once else _peak_beyond(call) - size
    found = {"first": first, "seconds": seconds, "memory": memory, "answer": picked}
    found |= {name: float(value) for name, value in details.items()}
    print(json.dumps(found | measured_rates()))


def _case(kernel: str, way: str) -> Callable[[Any], Callable[[], Any]]:
    name = f"{kernel}_{way}"
    if hasattr(benchmark_cases, name):
        return getattr(benchmark_cases, name)
    try:
        return getattr(importlib.import_module("experiments.benchmark_peers"), name)
    except ImportError as missing:
        sys.exit(f"not installed: {missing.name} (pip install -e '.[peers]')")


def _array(x: Any) -> np.ndarray:
    return x.numpy(force=True) if hasattr(x, "numpy") else np.asarray(x)


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = jax.block_until_ready(call())
    return time.perf_counter() - start, result


def _median(call: Callable[[], Any], repeats: int) -> float:
    times: list[float] = []
    while len(times) < repeats and sum(times) < ENOUGH:
        times.append(_timed(call)[0])
    return float(np.median(times))


def _peak_beyond(call: Callable[[], object]) -> int:
    """Bytes by which the resident memory rose at its highest during the call (Linux)."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what is free goes back, so that taking it again is seen
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _status("VmRSS")
    jax.block_until_ready(call())
    return _status("VmHWM") - before


def _status(field: str) -> int:
    """A memory figure of this process in bytes, from /proc (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024
