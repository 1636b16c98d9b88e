"""Speed and memory beside the straightforward way and beside PEFT, as ratios within one run.

Every case runs in a fresh process. `task` is the dense H_ℓ, compiled beforehand. `pipeline` is everything that
F8a, F8c and F8d need at one seed (four matrices and their spectra at every α), compilation included.
`trajectories` is the grid of F2, compiled beforehand, in float32.
"""

import gc
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
import xarray as xr
from tqdm import tqdm

from experiments import benchmark_cases, figures
from experiments.experiment import Experiment, Report, Row, main, prepare
from experiments.setting import Setting

CASES = {
    "task": ("ours", "straightforward"),
    "pipeline": ("ours", "straightforward"),
    "trajectories": ("ours", "bare", "peft"),
}
LABEL = {"ours": "this project", "straightforward": "straightforward", "bare": "bare optax scan", "peft": "PEFT loop"}


COMPARISONS = {
    "task_seconds": ("H_ℓ: time, s", "straightforward", 1.0, "at most 1"),
    "task_memory": ("H_ℓ: memory beyond result, MB", "straightforward", 1e6, "at most 0.25"),
    "pipeline_seconds": ("all spectra, every α: time, s", "straightforward", 1.0, "at most 0.2"),
    "pipeline_memory": ("all spectra, every α: memory, MB", "straightforward", 1e6, "–"),
    "trajectories_seconds": ("F2 grid: time, s", "peft", 1.0, "at most 0.59"),
    "trajectories_recording": ("F2 grid: time, s", "bare", 1.0, "at most 1.2"),
}
"""What is compared: its name and unit, the other way, the unit's size, and the ratio to the other that we aim for."""


@dataclass(frozen=True)
class Config(Setting):
    """One seed for the spectra, all seeds for the trajectories."""

    alphas: tuple[float, ...] = (1.0, 4.0, 16.0, 64.0, 256.0)
    """Values of α of the pipeline."""
    trajectory_width: int = 256
    """d of the trajectories."""
    steps: int = 100
    """Steps of a trajectory."""
    repeats: int = 5
    """Timed runs of H_ℓ and of the grid; the median is reported."""


def worker(case: str, way: str, config: Config, spectra_file: str) -> None:
    """Run one case in this process and print its seconds and its peak memory beyond the result as JSON."""
    prepare("cpu")
    call = getattr(benchmark_cases, f"{case}_{way}")(config)
    if case == "pipeline":
        start = time.perf_counter()
        spectra = call()
        seconds, memory = time.perf_counter() - start, _status("VmHWM")
        names = {name: (f"{name} index", x) for name, x in spectra.items()}
        xr.Dataset(names).to_netcdf(spectra_file, engine="h5netcdf")
    else:
        size = sum(x.nbytes for x in jax.tree.leaves(jax.block_until_ready(call())) if hasattr(x, "nbytes"))
        memory = _peak_beyond(call) - size
        seconds = float(np.median([_seconds(call) for _ in range(config.repeats)]))
    print(json.dumps({"seconds": seconds, "memory": memory}))


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def _peak_beyond(call: Callable[[], object]) -> int:
    """Bytes by which the resident memory rose at its highest during the call (Linux)."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _status("VmRSS")
    jax.block_until_ready(call())
    return _status("VmHWM") - before


def _status(field: str) -> int:
    """A memory figure of this process in bytes, from /proc (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024


def measure(config: Config) -> xr.Dataset:
    """Every case in a process of its own, one after the other; NaN and a line on stderr where one cannot run."""
    pairs = [(case, way) for case, ways in CASES.items() for way in ways]
    values: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for case, way in tqdm(pairs, desc="cases", unit="case", leave=False):
            call = f"worker({case!r}, {way!r}, Config(**{asdict(config)}), {f'{folder}/{way}.nc'!r})"
            command = [sys.executable, "-c", f"from experiments.benchmark import *; {call}"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode and not done.stderr.startswith("not measured"):
                raise RuntimeError(f"{case} {way}: {done.stderr}")
            if done.returncode:
                tqdm.write(done.stderr.strip(), file=sys.stderr)
            seen = json.loads(done.stdout) if not done.returncode else {"seconds": np.nan, "memory": np.nan}
            values |= {f"{case}_{what}_{way}": value for what, value in seen.items()}
        ours, other = (xr.load_dataset(f"{folder}/{way}.nc", engine="h5netcdf") for way in CASES["pipeline"])
    apart = max(float(abs(ours[name] - x).max() / abs(x).max()) for name, x in other.items())
    return xr.Dataset(values | {"largest_difference": apart})


def _values(data: xr.Dataset, key: str) -> tuple[float, float]:
    """Our figure and the other way's, in the unit of the comparison."""
    _, other, size, _ = COMPARISONS[key]
    measured = key.replace("recording", "seconds")
    return float(data[f"{measured}_ours"]) / size, float(data[f"{measured}_{other}"]) / size


def report(config: Config, data: xr.Dataset) -> Report:
    rows = []
    for key, (name, other, _, aim) in COMPARISONS.items():
        ours, theirs = _values(data, key)
        ratio = f"{ours / theirs:.3g}" if np.isfinite(theirs) else "not installed (extra peers)"
        rows.append(Row(f"{name}, ratio to {LABEL[other]}", aim, ratio, f"not one: {ours:.3g} to {theirs:.3g}"))
    difference = f"{float(data.largest_difference):.1e}"
    rows.append(
        Row("largest difference of an eigenvalue over the norm of its matrix", "at most 1e-10", difference, "–")
    )
    sentence = f"Measured {data.attrs['created']}; remove the folder 'benchmark' from the results to measure again."
    return Report(rows, [sentence], {"benchmark": partial(_figure, data)})


def _figure(data: xr.Dataset) -> figures.Figure:
    figure, axes = figures.panels(len(COMPARISONS), "Beside other ways: same machine, same run", height=3.2, width=3.0)
    for panel, (key, (name, other, _, _)) in zip(axes, COMPARISONS.items(), strict=True):
        values = np.nan_to_num(_values(data, key))
        bars = panel.bar(
            ["this\nproject", LABEL[other]], values, color=[figures.COLOR["signal"], figures.COLOR["task"]]
        )
        panel.bar_label(bars, fmt="%.3g")
        panel.set(ylim=(0, 1.15 * max(values)))
        panel.set_title(name, fontsize=10)
    return figure


EXPERIMENT = Experiment(
    name="benchmark",
    title="Time and memory beside the straightforward way and beside PEFT, as ratios within one run.",
    paper=Config(),
    quick=replace(
        Config(),
        width=6,
        depth=3,
        samples=20,
        rank=3,
        seeds=1,
        alphas=(1.0, 16.0),
        repeats=2,
        trajectory_width=16,
        steps=5,
    ),
    points=lambda config: [{}],
    measure=measure,
    report=report,
)

if __name__ == "__main__":
    main(EXPERIMENT)
