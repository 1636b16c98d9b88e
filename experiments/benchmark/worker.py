"""Measure one kernel, one way, at every size in turn, in a process of its own."""

import ctypes
import gc
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
import psutil

from experiments.benchmark.config import ANSWERS, Config
from experiments.benchmark.floors import measured_rates
from experiments.benchmark.timing import median, timed
from experiments.benchmark.ways import by_hand, cases, trajectories
from experiments.benchmark.ways.cases import Case
from experiments.lab.command_line import prepare
from experiments.lab.errors import LACKING, no_room

Measure = Callable[[Callable[[], Any], str, Config], Iterator[dict[str, Any]]]
"""What is measured of a call: lines of what is known of it, each as soon as it is."""


def work(kernel: str, way: str, asked: Mapping[int, Config], measure: Measure) -> None:
    """Print what is known of every size, a line of JSON as soon as it is; the reason where the way gets no further."""
    prepare("cpu")
    case, times = _case(kernel, way.removesuffix("-1")), [np.inf]
    for size, config in asked.items():
        if isinstance(case, str):
            found: Iterable[dict[str, Any]] = [{"reason": case}]
        elif times[-1] ** 2 > config.seconds * times[-2:][0]:
            found = [{"reason": f"over {config.seconds:g} s if the time grows by the same factor again"}]
        else:
            found = _measured(case, kernel, config, measure)
        for line in found:
            print(json.dumps({"size": size, **line}), flush=True)
            times += [line["first"]] if "first" in line else []
            if "reason" in line:
                return


def _measured(case: Case, kernel: str, config: Config, measure: Measure) -> Iterator[dict[str, Any]]:
    """Yield what is measured; the reason if there is no room."""
    try:
        yield from measure(case(config), kernel, config)
    except LACKING as error:
        yield {"reason": no_room(error)}


def timings(call: Callable[[], Any], kernel: str, config: Config) -> Iterator[dict[str, Any]]:
    """Yield what the first call gives, then the time of the others; the pipeline is called once, as a user would."""
    first, result = timed(call)
    details = dict(result) if isinstance(result, dict) else {"answer": result}
    answer = np.ravel(_array(details.pop("answer")))
    size, picked = answer.nbytes, answer[np.linspace(0, answer.size - 1, ANSWERS).astype(int)].tolist()
    del result, answer
    known = {"first": first, "answer": picked, "result": float(size)} | _rates()
    yield known | {name: float(details[name]) for name in details}
    yield {"seconds": first if kernel == "pipeline" else median(call, config.repeats)}


def memory(call: Callable[[], Any], kernel: str, config: Config) -> Iterator[dict[str, Any]]:
    """Yield the peak memory of a call after the first, beyond what was there and the result; the pipeline's is all."""
    result = call()
    size = _array(result["answer"] if isinstance(result, dict) else result).nbytes
    del result
    yield {}  # the limit is that of a call
    yield {"memory": _high_water() if kernel == "pipeline" else _peak_beyond(call) - size}


_rates = cache(measured_rates)


def find(kernel: str, way: str) -> Case:
    """Return the function that sets up the call. Raises `ImportError` for a tool that is not installed."""
    known = cases.KERNELS | trajectories.KERNELS | by_hand.KERNELS
    if (kernel, way) not in known:
        known = _of_peft() if way == "peft" else _of_peers()
    return known[kernel, way]


def _of_peers() -> dict[tuple[str, str], Case]:
    from experiments.benchmark.ways.peers import KERNELS

    return KERNELS


def _of_peft() -> dict[tuple[str, str], Case]:
    from experiments.benchmark.ways.peft_loop import KERNELS

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
