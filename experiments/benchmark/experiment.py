"""Time and memory of every kernel over d, beside other tools, on the same weights in the same run.

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
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from experiments.benchmark.report import report
from experiments.lab.experiment import Experiment, main
from experiments.problems.mlp import Setting

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
ANSWERS = 16
"""Numbers of a result that are kept, to see that all ways computed the same."""


@dataclass(frozen=True)
class Config(Setting):
    """Widths up to that of F2, and what ends the search for how far a tool gets."""

    widths: tuple[int, ...] = (8, 16, 32, 64, 128, 256)
    """Values of d; the rank is `rank`, or d/2 where that is less."""
    pipeline_widths: tuple[int, ...] = (32,)
    """Values of d at which all spectra are computed at every α."""
    alphas: tuple[float, ...] = (1.0, 4.0, 16.0, 64.0, 256.0)
    """Values of α of the pipeline."""
    steps: int = 100
    """Steps of a trajectory."""
    tolerance: float = 1e-8
    """Residual bound of an extreme eigenvalue over the norm."""
    probes: int = 60
    """Products for a trace."""
    repeats: int = 5
    """Timed calls after the first: fewer where they take over ten seconds in all, more where less than one."""
    seconds: float = 300.0
    """A way that takes longer, for all its widths, is ended."""
    gigabytes: float = 16.0
    """A process that grows larger is ended."""

    def at(self, width: int) -> "Config":
        """The same at one width."""
        return replace(self, width=width, rank=min(self.rank, width // 2))


def points(config: Config) -> list[dict]:
    return [{"kernel": kernel, "way": way} for kernel, ways in WAYS.items() for way in ways]


def measure(config: Config, kernel: str, way: str) -> xr.Dataset:
    """One way of one kernel, as far as it gets; every point has all widths."""
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
    """What a fresh process prints of each width; why it printed no more, at the width after the last."""
    imports = "from experiments.benchmark import Config; from experiments.benchmark_worker import work"
    call = f"{imports}; work({kernel!r}, {way!r}, Config(**{asdict(config)}))"
    threads = {"OPENBLAS_NUM_THREADS": "1"} if way.endswith("-1") else {}
    output, reason = _watched([sys.executable, "-c", call], os.environ | ALLOCATOR | threads, config)
    found: dict[int, Mapping[str, Any]] = {row.pop("width"): row for row in map(json.loads, output.splitlines())}
    missing = [width for width in config.widths if width not in found]
    return found | ({missing[0]: {"reason": reason}} if reason else {})


def _watched(command: list[str], environment: Mapping[str, str], config: Config) -> tuple[str, str]:
    """The command's output, and why it was ended if it exceeded the time or the memory (Linux)."""
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
    """Bytes of memory of a process; 0 once it has ended."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii") as status:
            return next((int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS")), 0)
    except FileNotFoundError:
        return 0


EXPERIMENT = Experiment(
    name="benchmark",
    title="Time and memory of every kernel over d, beside other tools on the same weights in the same run.",
    paper=Config(),
    quick=replace(
        Config(),
        widths=(6, 8),
        pipeline_widths=(6,),
        depth=3,
        samples=20,
        rank=3,
        seeds=1,
        alphas=(1.0, 16.0),
        repeats=2,
        steps=5,
        probes=12,
    ),
    points=points,
    measure=measure,
    report=report,
)

if __name__ == "__main__":
    main(EXPERIMENT)
