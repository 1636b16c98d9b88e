"""Take one way of a kernel through growing sizes in fresh processes of its own, as far as it gets."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import psutil
import xarray as xr

from experiments.benchmark.config import ANSWERS, Config

ALLOCATOR = {"MALLOC_ARENA_MAX": "1"}
"""Of glibc: memory freed by one thread among several could not be given back, and a peak below it not be seen.

Threads that compute at once, as those of F2's grid do, wait for it: no time is measured under it.
"""
EMPTY: dict[str, Any] = dict.fromkeys(
    ("first", "seconds", "memory", "result", "products", "certified", "float64", "float32", "bytes"), np.nan
) | {"answer": [np.nan] * ANSWERS, "reason": ""}
"""What is known of a way at a size where it was not measured."""


def measured(asked: Mapping[int, Config], kernel: str, way: str, **axis: Sequence[int]) -> xr.Dataset:
    """Measure a way of a kernel at every size asked for, and lay it out along an axis that has more of them.

    Where it got no further, the reason stands at every size from there on.
    """
    ((name, sizes),) = axis.items()
    found = process(asked, kernel, way)
    rows, reason = [], ""
    for size in sizes:
        row = {**EMPTY, **found.get(size, {"reason": reason if size in asked else ""})}
        reason = row["reason"] or reason
        rows.append(row)
    columns = {x: ((name, "entry") if x == "answer" else name, [row[x] for row in rows]) for x in EMPTY}
    return xr.Dataset(columns, coords={name: list(sizes)})


def process(asked: Mapping[int, Config], kernel: str, way: str) -> dict[int, dict[str, Any]]:
    """Return what a fresh process prints of each size; why it printed no more, at the size after the last.

    The memory is that of another one, with an allocator that gives back what it can.
    """
    found, reason = _printed(asked, kernel, way, "timings", {})
    timed = {size: config for size, config in asked.items() if "seconds" in found.get(size, {})}
    if timed:
        for size, row in _printed(timed, kernel, way, "memory", ALLOCATOR)[0].items():
            found[size] |= {"memory": row["memory"]} if "memory" in row else {}
    missing = [size for size in asked if size not in found]
    return found | ({missing[0]: {"reason": reason}} if reason and missing else {})


def _printed(
    asked: Mapping[int, Config], kernel: str, way: str, what: str, environment: Mapping[str, str]
) -> tuple[dict[int, dict[str, Any]], str]:
    """Return what a fresh process prints of each size, and why it was ended."""
    imports = (
        "from experiments.benchmark.config import Config",
        f"from experiments.benchmark.worker import {what}, work",
        "from experiments.problems.mlp import MLP",
    )
    call = f"{'; '.join(imports)}; work({kernel!r}, {way!r}, {dict(asked)!r}, {what})"
    others = {name: value for name, value in os.environ.items() if name not in ALLOCATOR}
    threads = {"OPENBLAS_NUM_THREADS": "1"} if way.endswith("-1") else {}
    output, reason = _watched(
        [sys.executable, "-c", call], {**others, **environment, **threads}, next(iter(asked.values()))
    )
    found: dict[int, dict[str, Any]] = {}
    for row in map(json.loads, output.splitlines()):
        found.setdefault(row.pop("size"), {}).update(row)
    return found, reason


def _watched(command: list[str], environment: Mapping[str, str], limits: Config) -> tuple[str, str]:
    """Return the command's output, and why it was ended: too long without a line, or too large."""
    with (
        TemporaryFile("w+", encoding="utf-8") as output,
        TemporaryFile("w+", encoding="utf-8") as errors,
        subprocess.Popen(command, env=environment, stdout=output, stderr=errors) as process,
    ):
        since, seen, reason = time.monotonic(), 0, ""
        while process.poll() is None and not reason:
            time.sleep(0.1)
            size = os.fstat(output.fileno()).st_size
            if size > seen:
                since, seen = time.monotonic(), size
            if time.monotonic() - since > limits.seconds:
                reason = f"over {limits.seconds:g} s"
            elif _resident(process.pid) > limits.gigabytes * 1e9:
                reason = f"over {limits.gigabytes:g} GB"
        if reason:
            process.kill()
        process.wait()
        for file in (output, errors):
            file.seek(0)
        if process.returncode and not reason:
            raise RuntimeError(f"{' '.join(command)}: {errors.read()}")
        return output.read(), reason


def _resident(pid: int) -> int:
    """Return the bytes of memory of a process; 0 once it has ended."""
    try:
        return psutil.Process(pid).memory_info().rss
    except psutil.NoSuchProcess:
        return 0
