"""Speed and memory of the exact decomposition beside the straightforward way, as ratios within one run.

Every case runs in a fresh process. `task` is the dense H_ℓ, compiled beforehand. `pipeline` is everything that
F8a, F8c and F8d need at one seed (four matrices and their spectra at every α), compilation included.
"""

import gc
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.flatten_util import ravel_pytree
from tqdm import tqdm

import signal_drift as sd
from experiments import figures
from experiments.experiment import Experiment, Report, Row, main, prepare
from experiments.setting import Setting, adapters, problem

WAYS = ("ours", "straightforward")
Spectra = dict[str, np.ndarray]


@dataclass(frozen=True)
class Config(Setting):
    """One seed of the MLP."""

    alphas: tuple[float, ...] = (1.0, 4.0, 16.0, 64.0, 256.0)
    """Values of α of the pipeline."""
    repeats: int = 5
    """Timed builds of H_ℓ; the median is reported."""


def task_ours(config: Config) -> Callable[[], jax.Array]:
    loss, base = problem(config, 0)
    operator = sd.decompose(loss, base, adapters(config, base, 0), config.scaling(1.0)).task
    return operator.dense


def task_straightforward(config: Config) -> Callable[[], jax.Array]:
    """`jax.hessian` of the loss of the flat weights, compiled."""
    loss, base = problem(config, 0)
    w, unravel = ravel_pytree(base)
    hessian = jax.jit(jax.hessian(lambda w: loss(unravel(w))))
    return lambda: hessian(w)


def pipeline_ours(config: Config) -> Spectra:
    """One H_ℓ, one H_Signal and one H_Drift, scaled by α² and α (exact at B = 0), and H_LoRA itself at every α."""
    loss, base = problem(config, 0)
    start = adapters(config, base, 0)
    unit = sd.decompose(loss, base, start, config.scaling(1.0))
    task, signal, drift = (sd.eigenvalues(op) for op in (unit.task, unit.signal, unit.drift))
    spectra = {}
    for alpha in config.alphas:
        lora = sd.decompose(loss, base, start, config.scaling(alpha)).lora
        spectra |= {f"task {alpha}": task, f"signal {alpha}": alpha**2 * signal, f"drift {alpha}": alpha * drift}
        spectra[f"lora {alpha}"] = sd.eigenvalues(lora)
    return spectra


def pipeline_straightforward(config: Config) -> Spectra:
    """`jax.hessian` of both losses, a dense J and `jnp.linalg.eigvalsh` of the four matrices at every α."""
    loss, base = problem(config, 0)
    theta, unravel = ravel_pytree(adapters(config, base, 0))
    unravel_w = ravel_pytree(base)[1]
    task_hessian = jax.jit(jax.hessian(lambda w: loss(unravel_w(w))))
    weights = lambda theta, s: ravel_pytree(sd.effective_weights(base, unravel(theta), s))[0]  # noqa: E731
    lora_hessian = jax.jit(jax.hessian(lambda theta, s: loss(unravel_w(weights(theta, s)))))
    jacobian = jax.jit(jax.jacobian(weights))
    spectra = {}
    for alpha in config.alphas:
        s = config.scaling(alpha)
        task, lora, J = task_hessian(weights(theta, s)), lora_hessian(theta, s), jacobian(theta, s)
        signal = J.T @ task @ J
        matrices = {"task": task, "signal": signal, "drift": lora - signal, "lora": lora}
        spectra |= {f"{name} {alpha}": np.asarray(jnp.linalg.eigvalsh(H)) for name, H in matrices.items()}
    return spectra


def worker(case: str, way: str, config: Config, spectra_file: str) -> None:
    """Run one case in this process and print its seconds and its peak memory beyond the result as JSON."""
    prepare("cpu")
    if case == "task":
        build = {"ours": task_ours, "straightforward": task_straightforward}[way](config)
        size = build().block_until_ready().nbytes
        memory = _peak_beyond(lambda: build().block_until_ready()) - size
        seconds = float(np.median([_seconds(lambda: build().block_until_ready()) for _ in range(config.repeats)]))
    else:
        pipeline = {"ours": pipeline_ours, "straightforward": pipeline_straightforward}[way]
        start = time.perf_counter()
        spectra = pipeline(config)
        seconds, memory = time.perf_counter() - start, _status("VmHWM")
        xr.Dataset({name: (f"{name} index", x) for name, x in spectra.items()}).to_netcdf(
            spectra_file, engine="h5netcdf"
        )
    print(json.dumps({"seconds": seconds, "memory": memory}))


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _peak_beyond(call: Callable[[], object]) -> int:
    """Bytes by which the resident memory rose at its highest during the call (Linux)."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _status("VmRSS")
    call()
    return _status("VmHWM") - before


def _status(field: str) -> int:
    """A memory figure of this process in bytes, from /proc (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024


def measure(config: Config) -> xr.Dataset:
    """Every case in a process of its own, one after the other."""
    cases = [(case, way) for case in ("task", "pipeline") for way in WAYS]
    seen, spectra = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for case, way in tqdm(cases, desc="cases", unit="case", leave=False):
            file = f"{folder}/{way}.nc"
            program = (
                f"from experiments.benchmark import *; worker({case!r}, {way!r}, Config(**{asdict(config)}), {file!r})"
            )
            done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
            seen[case, way] = json.loads(done.stdout)
        spectra = {way: xr.load_dataset(f"{folder}/{way}.nc", engine="h5netcdf") for way in WAYS}
    apart = [_relative_distance(spectra["ours"][name], x) for name, x in spectra["straightforward"].items()]
    values = {
        f"{case}_{what}": ("way", [seen[case, way][what] for way in WAYS])
        for case in ("task", "pipeline")
        for what in ("seconds", "memory")
    }
    return xr.Dataset({**values, "largest_difference": max(apart)}, coords={"way": list(WAYS)})


def _relative_distance(a: xr.DataArray, b: xr.DataArray) -> float:
    """max_i |λ_i − λ'_i| / ‖H‖."""
    return float(abs(a - b).max() / abs(b).max())


QUANTITIES = {
    "task_seconds": ("H_ℓ: time", "s", 1.0, "at most 1"),
    "task_memory": ("H_ℓ: peak memory beyond the result", "MB", 1e6, "at most 0.25"),
    "pipeline_seconds": ("all spectra at every α: time", "s", 1.0, "at most 0.2"),
    "pipeline_memory": ("all spectra at every α: peak memory of the process", "MB", 1e6, "–"),
}
"""What is compared: its name, unit, the unit's size, and the ratio to the straightforward way that we aim for."""


def report(config: Config, data: xr.Dataset) -> Report:
    rows = []
    for key, (name, unit, size, aim) in QUANTITIES.items():
        ours, other = data[key].sel(way=list(WAYS)).values / size
        rows.append(Row(f"{name}, ratio", aim, f"{ours / other:.3g}", f"{ours:.3g} {unit} against {other:.3g} {unit}"))
    difference = f"{float(data.largest_difference):.1e}"
    rows.append(
        Row("largest difference of an eigenvalue over the norm of its matrix", "at most 1e-10", difference, "–")
    )
    sentence = f"Measured {data.attrs['created']}; remove the folder 'benchmark' from the results to measure again."
    return Report(rows, [sentence], {"benchmark": _figure(data)})


def _figure(data: xr.Dataset) -> figures.Figure:
    figure, axes = figures.panels(4, "Ours beside the straightforward way, same machine, same run", height=3.2)
    for panel, (key, (name, unit, size, _)) in zip(axes, QUANTITIES.items(), strict=True):
        values = data[key].sel(way=list(WAYS)).values / size
        bars = panel.bar(WAYS, values, color=[figures.COLOR["signal"], figures.COLOR["task"]])
        panel.bar_label(bars, fmt="%.3g")
        panel.set(ylabel=unit, ylim=(0, 1.15 * values.max()))
        panel.set_title(name, fontsize=10)
    return figure


EXPERIMENT = Experiment(
    name="benchmark",
    title="Time and memory of the exact decomposition beside the straightforward way, as ratios within one run.",
    paper=Config(),
    quick=replace(Config(), width=6, depth=3, samples=20, rank=3, alphas=(1.0, 16.0), repeats=2),
    points=lambda config: [{}],
    measure=measure,
    report=report,
)

if __name__ == "__main__":
    main(EXPERIMENT)
