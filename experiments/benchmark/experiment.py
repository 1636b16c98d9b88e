"""Measure time and memory of every kernel over d, beside other tools, on the same weights in the same run.

Every way of every kernel has a fresh process of its own, one at a time, which goes through the widths as far as it
gets; why it gets no further is kept. The first call is timed apart, compilation included; then the median of further
calls. The memory is the peak during one call beyond what was there and beyond the result.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import psutil
import xarray as xr

from experiments.benchmark.config import ANSWERS, Config
from experiments.benchmark.report import report
from experiments.lab.experiment import Experiment, Point
from experiments.lab.problem import Problem
from experiments.problems.mlp import MLP

WAYS = {
    "gradient": ("ours", "merged", "torch"),
    "product": ("ours", "merged", "once", "merged_once", "torch", "curvlinops", "eigenthings"),
    "dense": ("ours", "straightforward", "torch", "chunked", "curvlinops"),
    "spectrum": ("ours", "straightforward"),
    "extremes": ("ours", "curvlinops", "curvlinops-1", "eigenthings"),
    "trace": ("ours", "curvlinops", "eigenthings"),
    "trajectories": ("ours", "bare", "peft"),
    "pipeline": ("ours", "straightforward"),
}
"""Kernels and the ways of computing each; a way that ends in -1 holds the BLAS to one thread."""
ALLOCATOR = {"MALLOC_ARENA_MAX": "1"}
"""Of glibc: memory freed by one thread among several could not be given back, and a peak below it not be seen."""


def refuses(problem: Problem) -> str:
    return "" if problem.name in EXPERIMENT.homes else "it times the MLP, which has every width"


def configure(problem: Problem) -> Config:
    assert isinstance(problem, MLP), problem
    return Config(problem)


def points(config: Config) -> list[Point]:
    return [{"kernel": kernel, "way": way} for kernel, ways in WAYS.items() for way in ways]


def measure(config: Config, kernel: str, way: str) -> xr.Dataset:
    """Measure one way of one kernel, as far as it gets; every point has all widths."""
    asked = config.pipeline_widths if kernel == "pipeline" else config.widths
    found = process(replace(config, widths=asked), kernel, way)
    rows, reason = [], ""
    for width in config.widths:
        row = {**EMPTY, **found.get(width, {"reason": reason if width in asked else ""})}
        reason = row["reason"]
        rows.append(row)
    return xr.Dataset(
        {name: (("width", "entry") if name == "answer" else "width", [row[name] for row in rows]) for name in EMPTY},
        coords={"width": list(config.widths)},
    )


EMPTY: dict[str, Any] = dict.fromkeys(
    ("first", "seconds", "memory", "products", "certified", "float64", "float32", "bytes"), np.nan
) | {"answer": [np.nan] * ANSWERS, "reason": ""}
"""What is known of a way at a width where it was not measured."""


def process(config: Config, kernel: str, way: str) -> dict[int, Mapping[str, Any]]:
    """Return what a fresh process prints of each width; why it printed no more, at the width after the last."""
    imports = (
        "from experiments.benchmark.config import Config",
        "from experiments.benchmark.worker import work",
        "from experiments.problems.mlp import MLP",
    )
    call = f"{'; '.join(imports)}; work({kernel!r}, {way!r}, {config!r})"
    threads = {"OPENBLAS_NUM_THREADS": "1"} if way.endswith("-1") else {}
    output, reason = _watched([sys.executable, "-c", call], os.environ | ALLOCATOR | threads, config)
    found: dict[int, Mapping[str, Any]] = {row.pop("width"): row for row in map(json.loads, output.splitlines())}
    missing = [width for width in config.widths if width not in found]
    return found | ({missing[0]: {"reason": reason}} if reason else {})


def _watched(command: list[str], environment: Mapping[str, str], config: Config) -> tuple[str, str]:
    """Return the command's output, and why it was ended if it exceeded the time or the memory."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, text=True, stdout=pipe, stderr=pipe) as process:
        start, reason = time.monotonic(), ""
        while process.poll() is None and not reason:
            time.sleep(0.1)
            if time.monotonic() - start > config.seconds:
                reason = f"over {config.seconds:g} s"
            elif _resident(process.pid) > config.gigabytes * 1e9:
                reason = f"over {config.gigabytes:g} GB"
        if reason:
            process.kill()
        output, errors = process.communicate()
    if process.returncode and not reason:
        raise RuntimeError(f"{' '.join(command)}: {errors}")
    return output, reason


def _resident(pid: int) -> int:
    """Return the bytes of memory of a process; 0 once it has ended."""
    try:
        return psutil.Process(pid).memory_info().rss
    except psutil.NoSuchProcess:
        return 0


EXPERIMENT = Experiment(
    name="benchmark",
    title="Time and memory of every kernel over d, beside other tools on the same weights in the same run.",
    configure=configure,
    points=points,
    measure=measure,
    report=report,
    tiny={
        "seeds": 1,
        "widths": (6, 8),
        "pipeline_widths": (6,),
        "alphas": (1.0, 16.0),
        "repeats": 2,
        "steps": 5,
        "probes": 12,
    },
    refuses=refuses,
)
