"""Measure one kernel, one way, at every width in turn, in a process of its own."""

import ctypes
import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import psutil

from experiments.benchmark import cases, trajectories
from experiments.benchmark.cases import Case
from experiments.benchmark.config import ANSWERS, Config
from experiments.benchmark.floors import measured_rates
from experiments.benchmark.timing import median, no_room, timed
from experiments.lab.command_line import prepare
from signal_drift import InputError


def work(kernel: str, way: str, config: Config) -> None:
    """Print a line of JSON for every width, the last one with the reason where the way gets no further."""
    prepare("cpu")
    case, times = _case(kernel, way.removesuffix("-1")), [np.inf]
    for width in config.widths:
        if isinstance(case, str):
            reason = case
        elif times[-1] ** 2 > config.seconds * times[-2:][0]:
            reason = f"over {config.seconds:g} s if the time grows by the same factor again"
        else:
            reason = _measured(case, kernel, config.at(width), times)
        if reason:
            print(json.dumps({"width": width, "reason": reason}))
            return


def _measured(case: Case, kernel: str, config: Config, times: list[float]) -> str:
    """Print what one width gives and note the seconds of its first call; return the reason if there is no room."""
    try:
        call = case(config)
        first, result = timed(call)
    except (InputError, MemoryError, RuntimeError) as error:
        return no_room(error)
    times.append(first)
    details = dict(result) if isinstance(result, dict) else {"answer": result}
    answer = np.ravel(_array(details.pop("answer")))
    size, picked = answer.nbytes, answer[np.linspace(0, answer.size - 1, ANSWERS).astype(int)].tolist()
    del result, answer
    found = {"width": config.problem.width, "first": first, "answer": picked}
    if kernel == "pipeline":  # once, as a user would; its memory is that of the whole process
        found |= {"seconds": first, "memory": _high_water()}
    else:
        found |= {"memory": _peak_beyond(call) - size, "seconds": median(call, config.repeats)}
    print(json.dumps(found | {name: float(x) for name, x in details.items()} | measured_rates()), flush=True)
    return ""


def find(kernel: str, way: str) -> Case:
    """Return the function that sets up the call. Raises `ImportError` for a tool that is not installed."""
    known = cases.KERNELS | trajectories.KERNELS
    if (kernel, way) not in known:
        known = _of_peft() if way == "peft" else _of_peers()
    return known[kernel, way]


def _of_peers() -> dict[tuple[str, str], Case]:
    from experiments.benchmark.peers import KERNELS

    return KERNELS


def _of_peft() -> dict[tuple[str, str], Case]:
    from experiments.benchmark.peft_loop import KERNELS

    return KERNELS


def _case(kernel: str, way: str) -> Case | str:
    """Return the function that sets up the call, or what is missing."""
    try:
        return find(kernel, way)
    except ImportError as missing:
        return f"{missing.name} is not installed (pip install -e '.[peers]')"


def _array(x: Any) -> np.ndarray:
    return x.numpy(force=True) if hasattr(x, "numpy") else np.asarray(x)


def _peak_beyond(call: Callable[[], object]) -> int:
    """Return the bytes by which the resident memory rose at its highest during the call (Linux)."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what is free goes back, so that taking it again is seen
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets the high-water mark
    before = psutil.Process().memory_info().rss
    jax.block_until_ready(call())
    return _high_water() - before


def _high_water() -> int:
    """Return the largest resident memory since it was last reset, in bytes (Linux).

    Neither psutil nor getrusage has it: the latter also counts the process that this one was started from.
    """
    return int(Path("/proc/self/status").read_text(encoding="ascii").split("VmHWM:")[1].split()[0]) * 1024
