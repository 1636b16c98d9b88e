"""Set the numbers of one device beside another's, and write what was found as one record."""

import hashlib
import shutil
import subprocess
from collections.abc import Collection
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr
from jax.extend.backend import get_backend

from experiments.benchmark.every_matrix import curvature_share
from experiments.benchmark.on_device import LOWERED, OnDevice, over_floor, points
from experiments.lab import store
from experiments.lab.experiment import Row

ROOT = Path(__file__).parents[3]


def place() -> dict[str, Any]:
    """Say on what and with what it was computed; the source is told by its digest, which needs no git."""
    device = jax.local_devices()[0]
    stats = device.memory_stats() or {}
    return store.provenance() | {
        "driver": _driver(),
        "runtime": get_backend().platform_version.splitlines()[0],
        "bytes given to JAX": stats.get("bytes_limit"),
        "source": source(),
    }


def source(root: Path = ROOT) -> str:
    """Return the SHA-256 of all of the code: of every module's name and bytes."""
    content = hashlib.sha256()
    for top in ("signal_drift", "experiments"):
        for path in sorted((root / top).rglob("*.py")):
            content.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return content.hexdigest()


def _driver() -> str | None:
    """Return the version of NVIDIA's driver, where there is one."""
    if not shutil.which("nvidia-smi"):
        return None
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    return asked.stdout.splitlines()[0].strip() if asked.returncode == 0 and asked.stdout else None


def agreement(
    config: OnDevice, device: xr.Dataset, host: xr.Dataset, apart_in_float64: float | None
) -> list[dict[str, Any]]:
    """Compare every kernel with the host's in float64: the error, and the bound that rounding sets, both relative.

    Beside them stands how far the host's own numbers of that precision are from the same. Training multiplies its
    roundings: where it is known how far the same runs come apart in float64, the bound in float32 is ε₃₂/ε₆₄ as much.
    Of the extremes it is what both certificates leave open.
    """
    found = []
    for point in points(config):
        kernel, dtype = point["kernel"], point["dtype"]
        if point["way"] == "torch" or kernel in ("memory", "growth"):
            continue
        exact = point | {"way": "ours", "dtype": "float32" if kernel == "trajectories" else "float64"}
        reference, here, there = host.sel(exact), device.sel(point), host.sel(point)
        reach = float(here.reach + reference.reach)
        entry = {name: point[name] for name in ("kernel", "way", "dtype", "width")}
        errors = {"error": _apart(kernel, here, reference), "host_error": _apart(kernel, there, reference)}
        if kernel == "extremes":
            bound = reach / float(np.abs(reference.answer).max())
        elif kernel == "trajectories" and apart_in_float64 is not None:
            bound = apart_in_float64 * float(np.finfo("float32").eps / np.finfo("float64").eps)
        else:
            bound = _rounding(config, kernel, dtype)
        found.append(entry | errors | {"bound": bound})
    return found


def _apart(kernel: str, here: xr.Dataset, reference: xr.Dataset) -> float:
    """Measure the distance in norm; of eigenvalues each by itself, in units of the largest."""
    x, y = here.answer.values, reference.answer.values
    order = np.inf if kernel in ("spectrum", "extremes", "trajectories") else 2
    return float(np.linalg.norm(x - y, order) / np.linalg.norm(y, order))


def _rounding(config: OnDevice, kernel: str, dtype: str) -> float:
    """Bound what rounding may do, in units of the norm.

    10·√n·ε for a product over n numbers, where roundings add up like random ones; n·ε for all n eigenvalues; for T calm
    steps of training 4·T·ε.
    """
    eps, problem = float(np.finfo(dtype).eps), config.problem
    if kernel == "trajectories":
        return 4 * config.steps * eps
    if kernel == "matrices":
        return 10 * config.matrix**0.5 * eps
    if kernel in ("dense", "spectrum"):
        size = problem.depth * problem.width**2
        return size * eps if kernel == "spectrum" else 10 * size**0.5 * eps
    wide = problem.resized(config.wide)
    size = wide.depth * wide.width**2 if kernel in ("task", "jacobian") else 2 * wide.depth * wide.width * wide.rank
    return 10 * size**0.5 * eps


def speed(config: OnDevice, device: xr.Dataset, host: xr.Dataset) -> list[dict[str, Any]]:
    """List the seconds of every kernel, over the floor of the device's own rates, and the host's."""
    found = []
    for point in points(config):
        here = device.sel(point)
        try:
            there = float(host.seconds.sel(point))
        except KeyError:  # what only the device was asked for
            there = np.nan
        ours = point["way"] == "ours"
        ratio = over_floor(config, device, point["kernel"], point["dtype"]) if ours else np.nan
        growing = point["kernel"] == "growth"  # the peak is that of all so far
        numbers = {
            "seconds": float(here.seconds),
            "first": float(here["first"]),
            "host_seconds": there,
            "over_floor": ratio,
            "peak_bytes": float(here.peak) if growing else np.nan,
        }
        found.append(point | {k: x for k, x in numbers.items() if np.isfinite(x)} | {"reason": str(here.reason.item())})
    return found


def figures_apart(device: xr.Dataset, host: xr.Dataset | None, labels: Collection[str]) -> dict[str, float]:
    """Compare every stored quantity of an experiment: the largest difference, in units of the largest of its point.

    `labels` are the axes along which the points lie. What is itself a rounding, or the residual of a search, differs
    by about as much as it is. A number that only one of both has is infinitely far.
    """
    if host is None:
        return {}
    apart = {}
    for name in sorted(set(map(str, device.data_vars)) & set(map(str, host.data_vars))):
        x, y = xr.align(device[name], host[name], join="inner")
        if not x.size or x.dtype.kind != "f":
            continue
        within = [axis for axis in x.dims if axis not in labels]
        difference, size = abs(x - y).where(x.isnull() == y.isnull(), np.inf).max(within), abs(y).max(within)
        apart[name] = float(xr.where(size > 0, difference / size.where(size > 0), difference).max())
    return apart


def language_model(data: xr.Dataset, label: str, seconds: float | None) -> dict[str, Any]:
    """Tell of every matrix its λmax, what its search leaves open, s·σ₁(G), and of each kind the share of curvature."""
    shares = curvature_share(data)
    return {
        "model": label,
        "seconds": seconds,
        "matrices": int(data.drift.size),
        "certified": int(np.isfinite(data.top).all("operator").sum()),
        "share": {str(kind): [round(float(x), 6) for x in shares.sel(kind=kind).values] for kind in data.kind.values},
        "lambda_max": {op: float(data.top.sel(operator=op).max()) for op in ("signal", "lora")},
        "largest_reach": float((data.reach / abs(data.top)).max()),
    }


def rows(record: dict[str, Any]) -> list[Row]:
    """Say what was found, line by line."""
    found = [Row("device", "–", f"{record['place']['device']}, driver {record['place']['driver']}", "–")]
    for x in record["agreement"]:
        control = x["way"] == LOWERED
        name = f"{x['kernel']}{', as the device has it by default' if control else ''}, {x['dtype']}, d = {x['width']}"
        measured = f"{x['error']:.2g} (host: {x['host_error']:.2g})"
        found.append(Row(f"error of {name}", "–" if control else f"≤ {x['bound']:.2g}", measured, "–"))
    for x in record["speed"]:
        words = x["reason"] or f"{x['seconds']:.3g} s (host: {x.get('host_seconds', np.nan):.3g} s)"
        ratio = f", {x['over_floor']:.3g} × floor" if "over_floor" in x else ""
        found.append(Row(f"time of {x['kernel']}, {x['way']}, {x['dtype']}, d = {x['width']}", "–", words + ratio, "–"))
    for name, x in record["figures"].items():
        apart = ", ".join(f"{quantity} {error:.1e}" for quantity, error in x["apart"].items())
        times = f"{x['seconds']:.3g} s; from the reference: {apart or 'nothing to compare'}"
        found.append(Row(f"{name} at full size", "–", times, "–"))
    if record["language_model"]:
        x = record["language_model"]
        words = f"{x['certified']} of {x['matrices']} certified, {x['seconds']:.3g} s"
        found.append(Row(f"every matrix of {x['model']}", "–", words, "–"))
    return [*found, Row("left for the next run", "nothing", ", ".join(record["left"]) or "nothing", "–")]
