"""Make the table and the figure of the benchmark from its stored results."""

from functools import partial
from typing import NamedTuple

import numpy as np
import xarray as xr

from experiments.benchmark.config import Config
from experiments.benchmark.floors import floor_seconds, product_flops
from experiments.lab.experiment import Report, Row
from signal_drift import plotting

WAYS = {
    "gradient": ("ours", "merged", "torch"),
    "product": ("ours", "merged", "once", "merged_once", "hand", "torch", "curvlinops", "eigenthings"),
    "dense": ("ours", "straightforward", "hand", "torch", "chunked", "curvlinops"),
    "spectrum": ("ours", "straightforward", "linalg"),
    "extremes": ("ours", "curvlinops", "curvlinops-1", "eigenthings"),
    "trace": ("ours", "curvlinops", "eigenthings"),
    "trajectories": ("ours", "bare", "peft"),
    "pipeline": ("ours", "straightforward"),
}
"""Kernels and the ways of computing each; a way that ends in -1 holds the BLAS to one thread."""
LABEL = {
    "ours": "this project",
    "merged": "JAX, merged weights",
    "once": "this project, once",
    "merged_once": "JAX, merged weights, once",
    "straightforward": "jax.hessian",
    "hand": "by hand",
    "bare": "bare optax scan",
    "torch": "torch.func",
    "chunked": "torch.func in chunks",
    "linalg": "torch.linalg",
    "curvlinops": "curvlinops",
    "curvlinops-1": "curvlinops, one BLAS thread",
    "eigenthings": "hessian-eigenthings",
    "peft": "PEFT loop",
}
KERNEL = {
    "gradient": "gradient in θ",
    "product": "H_LoRA v",
    "dense": "dense H_ℓ",
    "spectrum": "spectrum of H_ℓ",
    "extremes": "extremes of H_LoRA",
    "trace": "trace of H_LoRA",
    "trajectories": "grid of F2",
    "pipeline": "all spectra, every α",
}
STYLE = dict(
    zip(
        LABEL, ("-o", ":s", "-.o", "-.s", "--D", "-*", ":P", "--^", ":v", "--h", "--s", ":X", "-.d", "--P"), strict=True
    )
)
HUES = (
    *("signal", "drift", "signal", "drift", "other", "band", "band"),
    *("lora", "drift", "drift", "task", "band", "lora", "other"),
)
COLOR = {way: plotting.COLOR[hue] for way, hue in zip(LABEL, HUES, strict=True)}
HEADINGS = Row("quantity", "aim or floor", "measured", "more")
"""What stands above the table where it is published."""
PAGE = 4.096e-3
"""Megabytes, the least change of a process's memory that can be seen."""


class Aim(NamedTuple):
    """State the most that a ratio of two numbers measured within the run should be."""

    kernel: str
    quantity: str
    others: tuple[str, ...]
    """The ways compared with; the best of them counts."""
    most: float
    width: int
    of: str | None = None
    """The kernel of the others, where it is another one."""
    way: str = "ours"


AIMS = (
    Aim("product", "seconds", ("merged",), 1 / 2.5, 256),
    Aim("product", "seconds", ("merged_once",), 1 / 2.5, 256, way="once"),
    Aim("product", "seconds", ("hand",), 1, 256),
    Aim("product", "seconds", ("torch", "curvlinops"), 1 / 2.5, 256),
    Aim("product", "seconds", ("ours",), 2.5, 256, "gradient", "once"),
    Aim("product", "memory", ("ours",), 3, 256, "gradient"),
    Aim("extremes", "memory", ("ours",), 3, 256, "gradient"),
    Aim("dense", "seconds", ("torch", "curvlinops"), 0.25, 32),
    Aim("dense", "seconds", ("hand",), 1, 32),
    Aim("dense", "seconds", ("chunked",), 1, 32),
    Aim("dense", "memory", ("chunked",), 1, 32),
    Aim("dense", "seconds", ("straightforward",), 1, 32),
    Aim("dense", "memory", ("straightforward",), 0.25, 32),
    Aim("spectrum", "seconds", ("linalg",), 1, 32),
    Aim("pipeline", "seconds", ("straightforward",), 0.2, 32),
    Aim("extremes", "seconds", ("curvlinops", "curvlinops-1"), 0.15, 256),
    Aim("trajectories", "seconds", ("peft",), 0.4, 256),
    Aim("trajectories", "seconds", ("bare",), 1.15, 256),
)
"""What we aim for; the widths are those at which it was set down."""
FITTED = 3
"""Largest sizes over which a growth exponent is fitted."""


def report(config: Config, data: xr.Dataset) -> Report:
    widths = set(data.width.values.tolist())
    rows = [_aim(data, aim) for aim in AIMS if aim.width in widths]
    rows += [_growth(data), *(row for kernel in KERNEL for row in _kernel(config, data, kernel))]
    words = [_rates(data), _arithmetic(config), *_stopped(data)]
    return Report(rows, words, {"benchmark": partial(_figure, config, data)})


def _number(data: xr.Dataset, quantity: str, kernel: str, way: str, width: int) -> float:
    return float(data[quantity].sel(kernel=kernel, way=way, width=width))


def _aim(data: xr.Dataset, aim: Aim) -> Row:
    ours = _number(data, aim.quantity, aim.kernel, aim.way, aim.width)
    others = {way: _number(data, aim.quantity, aim.of or aim.kernel, way, aim.width) for way in aim.others}
    known = {way: value for way, value in others.items() if np.isfinite(value)}
    name = " or ".join(LABEL[way] for way in aim.others) if aim.of is None else f"its {KERNEL[aim.of]}"
    quantity = f"{KERNEL[aim.kernel]}, d = {aim.width}: {_quantity(aim.quantity)}, ratio to {name}"
    if not known or not np.isfinite(ours):
        return Row(quantity, f"at most {aim.most:.3g}", "–", "one of them was not measured")
    best = min(known.values())
    unit = 1.0 if aim.quantity == "seconds" else 1e6
    parts = f"{_written(ours / unit)} against {_written(best / unit)} {'s' if unit == 1 else 'MB'}"
    return Row(quantity, f"at most {aim.most:.3g}", f"{ours / best:.3g}", parts)


def _written(x: float) -> str:
    """Write three digits, those of thousands too without a power of ten."""
    return f"{float(f'{x:.3g}'):g}"


def _quantity(name: str) -> str:
    return {"seconds": "time", "memory": "peak memory beyond the result"}[name]


def exponent(taken: xr.DataArray) -> float:
    """Fit the slope of the logarithm of what was taken over that of the size, at the largest sizes that were reached.

    NaN with fewer than two.
    """
    (size,) = taken.dims
    known = taken.dropna(size)[-FITTED:]
    return float(np.polyfit(np.log(known[size]), np.log(known), 1)[0]) if len(known) > 1 else np.nan


def _growth(data: xr.Dataset) -> Row:
    extremes, gradient = (exponent(data.seconds.sel(kernel=k, way="ours")) for k in ("extremes", "gradient"))
    measured = f"{extremes - gradient:+.2f}"
    quantity = "growth exponent in d: extremes of H_LoRA beyond the gradient's own"
    return Row(quantity, "at most +0.2", measured, f"{extremes:.2f} against {gradient:.2f}")


def _kernel(config: Config, data: xr.Dataset, kernel: str) -> list[Row]:
    """Give one line for each way, at the largest width that it reached."""
    found = []
    for way in data.way.values:
        seconds = data.seconds.sel(kernel=kernel, way=way).dropna("width")
        if not len(seconds):
            continue
        width = int(seconds.width[-1])
        at = data.sel(kernel=kernel, way=way, width=width)
        floor = "–" if kernel == "pipeline" else f"floor {floors(config, data, kernel, way)[width]:.2g} s"
        apart = "" if way == "ours" else f", apart {difference(data, kernel, way, width):.0e}"
        growth = f", ∝ d^{exponent(seconds):.2f}" if len(seconds) > 1 else ""
        measured = (
            f"{float(at.seconds):.3g} s ({_reached(config, data, kernel, way, width)}first {float(at['first']):.2g} s)"
        )
        memory = f"{_written(float(at.memory) / 1e6)} MB" if at.memory.notnull() else "memory not measured"
        row = f"{memory}{growth}{apart}"
        found.append(Row(f"{KERNEL[kernel]}, {LABEL[way]}, d = {width}", floor, measured, row))
    return found


def _reached(config: Config, data: xr.Dataset, kernel: str, way: str, width: int) -> str:
    if kernel == "pipeline":
        return ""
    fraction = floors(config, data, kernel, way)[width] / _number(data, "seconds", kernel, way, width)
    return f"{100 * fraction:.2g}% of the floor's speed, "


def rates(data: xr.Dataset) -> dict[str, float]:
    """Return the best that was measured anywhere in the run, of arithmetic and of memory."""
    return {name: float(data[name].max()) for name in ("float64", "float32", "bytes")}


def floors(config: Config, data: xr.Dataset, kernel: str, way: str) -> dict[int, float]:
    """Return, by width reached, the seconds below which no way of the kernel can get at the products this one took."""
    known = data.sel(kernel=kernel, way=way).dropna("width", subset=["seconds"])
    products = known.products.fillna(1)
    return {
        int(width): floor_seconds(kernel, config.at(int(width)), float(products.sel(width=width)), rates(data))
        for width in known.width
    }


def difference(data: xr.Dataset, kernel: str, way: str, width: int) -> float:
    """Return the largest difference from our answer, over the largest number of that."""
    return float(apart(*(data.answer.sel(kernel=kernel, way=name, width=width) for name in ("ours", way))))


def apart(ours: xr.DataArray, other: xr.DataArray) -> xr.DataArray:
    """Return the largest difference of two answers, over the largest number of the first."""
    return abs(ours - other).max("entry") / abs(ours).max("entry")


def _rates(data: xr.Dataset) -> str:
    best = {name: rate / 1e9 for name, rate in rates(data).items()}
    where = f"commit {data.attrs['commit']}" if "commit" in data.attrs else "several commits, kernel by kernel"
    when = f"The last was measured {data.attrs['created']}," if "created" in data.attrs else "Measured"
    return (
        f"Rates measured in this run: {best['float64']:.0f} GFLOP/s in float64 and {best['float32']:.0f} in float32 "
        f"(a matrix product), {best['bytes']:.0f} GB/s (a copy). "
        f"{when} at {where}; remove the folder 'benchmark' from the results to measure again."
    )


def _arithmetic(config: Config) -> str:
    width = max(config.widths)
    flops = product_flops(config.at(width))
    return (
        f"At d = {width} H_LoRA v with factored weights takes {flops['factored'] / flops['merged']:.2g} of the "
        "operations that it takes through merged weights: at one rate of arithmetic, no ratio of their times is less."
    )


def _stopped(data: xr.Dataset) -> list[str]:
    """Say where and why a way got no further."""
    found = []
    for kernel, name in KERNEL.items():
        for way in data.way.values:
            reasons = data.reason.sel(kernel=kernel, way=way)
            ends = (
                (int(w), r) for w, r in zip(data.width.values, reasons.values, strict=True) if isinstance(r, str) and r
            )
            found += [f"{name}, {LABEL[way]}: none at d = {width}: {reason}." for width, reason in list(ends)[:1]]
    return found


def _figure(config: Config, data: xr.Dataset) -> plotting.Figure:
    """Draw time over d for each kernel, and the memory that ours take."""
    kernels = [kernel for kernel in KERNEL if kernel != "pipeline"]
    title = "Time over d, on the same weights in the same run, and the memory of this project"
    figure, [*axes, memory] = plotting.panels(4, title, rows=2, height=5.0, width=4.6)
    for panel, kernel in zip(axes, kernels, strict=True):
        for way in (way for way in LABEL if way in data.way.values):
            seconds = data.seconds.sel(kernel=kernel, way=way).dropna("width")
            if len(seconds):
                panel.plot(seconds.width, seconds, STYLE[way], color=COLOR[way], label=LABEL[way], markersize=5)
        least = floors(config, data, kernel, "ours")
        panel.plot(
            list(least), list(least.values()), color=plotting.COLOR["prediction"], lw=4, alpha=0.5, label="floor"
        )
        panel.set_title(KERNEL[kernel])
        plotting.log_axis(panel, "d", "time, s")
    for kernel, shade in zip(kernels, plotting.shades(len(kernels)), strict=True):
        taken = data.memory.sel(kernel=kernel, way="ours").dropna("width") / 1e6
        memory.plot(taken.width, taken.clip(min=PAGE), "-o", color=shade, label=KERNEL[kernel], markersize=5)
    memory.set_title("peak memory beyond the result")
    plotting.log_axis(memory, "d", "MB")
    for panel in [*axes, memory]:
        panel.set_xticks(data.width.values, [str(d) for d in data.width.values])
        panel.minorticks_off()
        panel.legend(fontsize=8.5, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.2))  # hides no curve
    return figure
