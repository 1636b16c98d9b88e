"""Compute every kernel on the device that JAX has, to set its numbers and times beside another device's.

Each is computed once for its numbers, then timed until the device is done; how far its size grows before memory ends
is measured too.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from experiments.benchmark.config import Config, Single
from experiments.benchmark.floors import floor_seconds
from experiments.benchmark.timing import median, timed
from experiments.benchmark.ways import cases
from experiments.benchmark.ways.cases import Call, Case
from experiments.benchmark.worker import find
from experiments.lab.errors import LACKING, check_ascending, check_positive, no_room
from experiments.lab.experiment import Experiment, Point, Report, Row
from experiments.lab.problem import Dtype, Problem, Setting
from experiments.problems.mlp import MLP

ENTRIES = 4096
"""Numbers of a result that are kept: what two devices are compared by."""
PRECISIONS: tuple[Dtype, ...] = ("float64", "float32")
EXACT = ("dense", "spectrum")
"""Kernels in float64 and at the narrow width, where the matrix is affordable."""
LOWERED = "lowered"
"""The product of matrices as the device has it by default: TF32 on some, where float32 was asked for."""


@dataclass(frozen=True)
class OnDevice(Setting):
    """Compute dense matrices and spectra at the problem's width, everything else at a wider one and beyond."""

    problem: MLP
    wide: int = 256
    """d of what needs no dense matrix; the width of F2."""
    widths: tuple[int, ...] = (1024, 2048, 4096, 8192, 16384)
    """d up to which products with H_LoRA in float32 are tried."""
    seeds: int = 2
    """Draws of F2's grid."""
    steps: int = 100
    """Steps of F2's grid."""
    tolerance: float = 1e-5
    """Residual bound of an extreme eigenvalue over the norm, within what float32 can do."""
    matrix: int = 4096
    """Rows of the matrices whose product measures the rate of arithmetic."""
    moved: int = 2**30
    """Bytes of the array that is read and written to measure the rate of the memory."""
    repeats: int = 5
    """Timed calls after the first: fewer where they take over ten seconds in all, more where less than one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "wide", "steps", "matrix", "moved", "repeats")
        check_ascending(self, "widths")

    def at(self, width: int, dtype: Dtype) -> Config:
        """Return the same as the benchmark has it, at one width and in one precision."""
        kind = {"float64": Config, "float32": Single}[dtype]
        return kind(
            self.problem.resized(width), self.seeds, steps=self.steps, tolerance=self.tolerance, repeats=self.repeats
        )


def refuses(problem: Problem) -> str:
    return "" if problem.name in EXPERIMENT.homes else "it computes the MLP, which has every width"


def configure(problem: Problem) -> OnDevice:
    assert isinstance(problem, MLP), problem
    return OnDevice(problem)


def points(config: OnDevice) -> list[Point]:
    both = ("gradient", *cases.OPERATORS, "extremes", "matrices")
    pairs = [(kernel, dtype) for kernel in both for dtype in PRECISIONS]
    pairs += [(kernel, "float64") for kernel in EXACT] + [("trajectories", "float32")]
    ours = [_point(kernel, "ours", dtype, width_of(config, kernel)) for kernel, dtype in pairs]
    peers = [
        _point(kernel, "torch", "float64", width_of(config, kernel)) for kernel in ("gradient", "product", "dense")
    ]
    other = [_point("matrices", LOWERED, "float32", config.wide), _point("memory", "ours", "float32", config.wide)]
    return ours + other + peers + [_point("growth", "ours", "float32", width) for width in config.widths]


def _point(kernel: str, way: str, dtype: str, width: int) -> Point:
    return {"kernel": kernel, "way": way, "dtype": dtype, "width": width}


def width_of(config: OnDevice, kernel: str) -> int:
    """Return d at which a kernel is computed."""
    return config.problem.width if kernel in EXACT else config.wide


def measure(config: OnDevice, kernel: str, way: str, dtype: Dtype, width: int) -> xr.Dataset:
    """Compute it once and time it; `reason` says why it was not."""
    found: dict[str, Any] = {"first": np.nan, "seconds": np.nan, "reach": 0.0, "products": np.nan, "peak": np.nan}
    answer, reason = np.full(ENTRIES, np.nan), ""
    try:
        call = _call(config, kernel, way, dtype, width)
        found["first"], result = timed(call)
        details = dict(result) if isinstance(result, dict) else {"answer": result}
        answer = _entries(details.pop("answer"))
        found |= {name: float(details[name]) for name in ("reach", "products") if name in details}
        del result
        found["seconds"] = median(call, config.repeats)
    except ImportError as missing:
        reason = f"{missing.name} is not installed"
    except LACKING as error:
        reason = no_room(error)
    stats = jax.local_devices()[0].memory_stats() or {}
    found["peak"] = stats.get("peak_bytes_in_use", np.nan)
    return xr.Dataset({"answer": ("entry", answer), **found, "reason": reason})


def _call(config: OnDevice, kernel: str, way: str, dtype: Dtype, width: int) -> Call:
    if way == "torch":
        return _of_torch(find(kernel, way), config.at(width, dtype))
    if kernel == "matrices":
        return _matrices(config, dtype, None if way == "ours" else "default")
    if kernel == "memory":
        x = jnp.ones(config.moved // 4, jnp.float32)
        double = jax.jit(lambda x: 2 * x)
        return lambda: double(x)
    if kernel == "growth":
        return cases.OPERATORS["lora"](config.at(width, dtype))
    case: Case = cases.OPERATORS[kernel] if kernel in cases.OPERATORS else find(kernel, way)
    return case(config.at(width, dtype))


def _matrices(config: OnDevice, dtype: Dtype, precision: str | None) -> Call:
    """Multiply what every device draws alike, to the last digit: normal numbers go through its own logarithm."""
    x, y = 2 * jax.random.uniform(jax.random.key(0), (2, config.matrix, config.matrix), "float32").astype(dtype) - 1
    product = jax.jit(partial(jnp.matmul, precision=precision))
    return lambda: product(x, y)


def _of_torch(case: Case, config: Config) -> Call:
    """Compute it by PyTorch, on a GPU where JAX has one too, and wait until that is done."""
    import torch  # pyright: ignore[reportMissingImports]

    place = "cpu" if jax.default_backend() == "cpu" else "cuda"
    with torch.device(place):
        call = case(config)

    def done() -> Any:
        with torch.device(place):
            result = call()
        if place == "cuda":
            torch.cuda.synchronize()
        return result

    return done


def _entries(answer: Any) -> np.ndarray:
    """Take so many of the numbers, evenly over all of them; all, and zeros, where there are fewer."""
    x = answer.detach().flatten() if hasattr(answer, "detach") else answer.ravel()
    chosen = np.unique(np.linspace(0, len(x) - 1, ENTRIES).astype(int))
    picked = x[chosen]
    kept = np.asarray(picked.numpy(force=True) if hasattr(picked, "numpy") else picked, float)
    return np.pad(kept, (0, ENTRIES - len(kept)))


def rates(config: OnDevice, data: xr.Dataset) -> dict[str, float]:
    """Return the operations per second of a product of matrices in both precisions, and bytes per second of a copy."""

    def seconds(kernel: str, dtype: str) -> float:
        return float(data.seconds.sel(kernel=kernel, way="ours", dtype=dtype, width=config.wide))

    found = {dtype: 2 * config.matrix**3 / seconds("matrices", dtype) for dtype in PRECISIONS}
    return found | {"bytes": 2 * config.moved / seconds("memory", "float32")}


def over_floor(config: OnDevice, data: xr.Dataset, kernel: str, dtype: Dtype) -> float:
    """Return the seconds over the floor that the measured rates set; NaN for what has none."""
    name, width, found = {"lora": "product"}.get(kernel, kernel), width_of(config, kernel), rates(config, data)
    if name not in ("gradient", "product", "extremes", "trajectories", *EXACT):
        return np.nan
    here = data.sel(kernel=kernel, way="ours", dtype=dtype, width=width)
    products = float(here.products) if np.isfinite(here.products) else 1.0
    half = dtype == "float32" and name != "trajectories"  # whose bytes are counted in float32
    own = found | {"float64": found[dtype], "bytes": found["bytes"] * (2 if half else 1)}
    return float(here.seconds) / floor_seconds(name, config.at(width, dtype), products, own)


def report(config: OnDevice, data: xr.Dataset) -> Report:
    measured = rates(config, data)
    rows = [
        Row("rate of products of matrices, float64 and float32", "–", _rate(measured, PRECISIONS, "flop/s"), "–"),
        Row("rate of the memory, read and written", "–", _rate(measured, ("bytes",), "B/s"), "–"),
    ]
    for point in points(config):
        here = data.sel(point)
        name = f"{point['kernel']}, {point['way']}, {point['dtype']}, d = {point['width']}"
        if str(here.reason.item()):
            rows.append(Row(name, "–", str(here.reason.item()), "–"))
            continue
        times = f"{float(here.seconds):.3g} s, the first {float(here['first']):.3g} s"
        ratio = over_floor(config, data, point["kernel"], point["dtype"]) if point["way"] == "ours" else np.nan
        rows.append(Row(name, "–", times + (f"; {ratio:.3g} × floor" if np.isfinite(ratio) else ""), "–"))
    return Report(rows, [], {})


def _rate(found: dict[str, float], names: tuple[str, ...], unit: str) -> str:
    return ", ".join(f"{found[name]:.3g}" for name in names) + f" {unit}"


EXPERIMENT = Experiment(
    name="on_device",
    title="Every kernel on the device there is: its numbers, its time over the floor, and how large it may grow.",
    configure=configure,
    points=points,
    measure=measure,
    report=report,
    tiny={"seeds": 1, "wide": 8, "widths": (12,), "steps": 5, "matrix": 64, "moved": 2**16, "repeats": 1},
    refuses=refuses,
)
