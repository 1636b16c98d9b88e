"""Measure how time and memory of every kernel grow with the width and with the number of layers, and how far each gets.

Width and depth double until a call takes longer, or a process grows larger, than the configuration allows.
"""

import re
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import xarray as xr

from experiments.benchmark.config import Config
from experiments.benchmark.floors import floor_seconds
from experiments.benchmark.process import measured
from experiments.benchmark.report import COLOR, FITTED, KERNEL, LABEL, STYLE, apart, exponent, rates
from experiments.benchmark.report import WAYS as WAYS_AT_A_SIZE
from experiments.lab.errors import check_ascending, check_positive
from experiments.lab.experiment import Experiment, Point, Report
from experiments.lab.problem import Problem, Setting
from experiments.lab.side_by_side import Cell, SideBySide
from experiments.problems.mlp import MLP
from signal_drift import plotting

VARIANTS = {"merged", "once", "merged_once", "hand", "bare", "linalg", "curvlinops-1"}
WAYS = {
    kernel: [way for way in WAYS_AT_A_SIZE[kernel] if way not in VARIANTS] for kernel in KERNEL if kernel != "pipeline"
}
"""Kernels and the ways of computing each: one of every tool, of what is asked for at all sizes."""
AXES = {"width": "d", "depth": "L"}
"""What grows, and the symbol of it."""
DRAWN = ("trace", "trajectories")
"""Kernels whose answers need not agree: one is estimated by random vectors, one is float32 along a path."""
AGREE = 1e-6
"""Difference of two answers over the largest entry below which they are the same; extremes are asked for to 1e-8."""
SEEN = 1e6
"""Bytes below which a peak of memory says little: the allocator keeps about as much."""


@dataclass(frozen=True)
class Growth(Setting):
    """Take every kernel to larger widths, and at the problem's own width to more layers."""

    problem: MLP
    """The MLP, the rank at most d/2."""
    seeds: int = 1
    """Draws of the grid of F2."""
    widths: tuple[int, ...] = tuple(2**k for k in range(3, 14))
    """Values of d, each tried where the one before did not end the way."""
    depths: tuple[int, ...] = tuple(2**k for k in range(1, 12))
    """Numbers L of layers."""
    seconds: float = 60.0
    """A call that takes longer, compilation included, ends the way."""
    gigabytes: float = 8.0
    """A process that grows larger is ended."""
    repeats: int = 3
    """Timed calls after the first: fewer where they take over ten seconds in all, more where less than one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "repeats")
        check_ascending(self, "widths", "depths")

    def along(self, axis: str) -> dict[int, Config]:
        """Return what the benchmark is asked for at every size along an axis."""
        own = self.problem.resized(self.problem.width)
        problems = {
            "width": {width: self.problem.resized(width) for width in self.widths},
            "depth": {depth: replace(own, depth=depth) for depth in self.depths},
        }[axis]
        limits = {"repeats": self.repeats, "seconds": self.seconds, "gigabytes": self.gigabytes}
        return {size: Config(problem, self.seeds, **limits) for size, problem in problems.items()}


OTHER = "another answer"
"""What ends a way whose answer is not ours."""


def refuses(problem: Problem) -> str:
    return "" if problem.name in EXPERIMENT.homes else "it times the MLP, which has every width and depth"


def configure(problem: Problem) -> Growth:
    assert isinstance(problem, MLP), problem
    return Growth(problem)


def points(config: Growth) -> list[Point]:
    return [{"axis": axis, "kernel": kernel, "way": way} for kernel in WAYS for way in WAYS[kernel] for axis in AXES]


def measure(config: Growth, axis: str, kernel: str, way: str) -> xr.Dataset:
    """Measure one way of one kernel at every size along an axis, as far as it gets."""
    return measured(config.along(axis), kernel, way, size=sorted({*config.widths, *config.depths}))


def report(config: Growth, data: xr.Dataset) -> Report:
    return Report([], [], {"growth": partial(_figure, config, data)}, tables=[table(config, data)])


def table(config: Growth, data: xr.Dataset) -> SideBySide:
    """Lay out, for every way of every kernel, both exponents along both axes, the largest size, and what was beyond."""
    groups = {}
    for kernel, ways in WAYS.items():
        rows = {LABEL[way]: [c for axis in AXES for c in _cells(config, data, axis, kernel, way)] for way in ways}
        floor = [x for axis in AXES for x in (f"{least(config, data, axis, kernel):.2f}", "–", "–", "–")]
        groups[KERNEL[kernel]] = rows | {"floor": [Cell(text) for text in floor]}
    columns = [x for n in AXES.values() for x in (f"time ∝ {n}^", f"memory ∝ {n}^", f"largest {n}", f"{n} twice that")]
    own = config.problem
    notes = [
        f"Width d at {own.depth} layers, and layers L at d = {own.width}; r = {own.rank}, at most d/2; "
        f"n = {own.samples}. Sizes double. A size is reached where the first call, compilation included, ends within "
        f"{config.seconds:g} s and the process stays below {config.gigabytes:g} GB; the next one is not tried where it "
        "would not, should the time grow by the same factor again.",
        f"Exponents are fitted over the last {FITTED} sizes of which the time after the first call is known, memory "
        "that of the peak and the result; the floor's is that of operations and bytes, at rates measured in this run.",
    ]
    return SideBySide("growth of time and memory", columns, groups, [*notes, *_apart(data)], row="way")


def _apart(data: xr.Dataset) -> list[str]:
    """Name the ways whose answer is not ours to six digits, and where; estimates are of other draws."""
    found = []
    for kernel in (kernel for kernel in WAYS if kernel not in DRAWN):
        for way in WAYS[kernel][1:]:
            for axis, symbol in AXES.items():
                odd = _odd(data, axis, kernel, way)
                if len(odd):
                    where = ", ".join(str(n) for n in odd["size"].values)
                    found.append(
                        f"{KERNEL[kernel]} by {LABEL[way]} is not ours to six digits at {symbol} = {where}: "
                        f"apart by up to {float(odd.max()):.1g} of the largest entry."
                    )
    return found or ["Where a size was reached by two ways of a kernel, their answers agree to six digits."]


def _odd(data: xr.Dataset, axis: str, kernel: str, way: str) -> xr.DataArray:
    """By how much the answers differ from ours where they are not the same."""
    ours, other = (data.answer.sel(axis=axis, kernel=kernel, way=name) for name in ("ours", way))
    differ = apart(ours, other)
    return differ[differ.values > AGREE]


def answered(data: xr.Dataset, axis: str, kernel: str, way: str) -> xr.Dataset:
    """Return what a way gave along an axis, as far as its answers are not known to be others than ours."""
    at = data.sel(axis=axis, kernel=kernel, way=way)
    odd = at["size"][:0] if kernel in DRAWN else _odd(data, axis, kernel, way)["size"]
    if not len(odd):
        return at
    wrong = at["size"] >= int(odd.min())
    return at.drop_vars("reason").where(~wrong).assign(reason=at.reason.where(~wrong, OTHER))


def _cells(config: Growth, data: xr.Dataset, axis: str, kernel: str, way: str) -> list[Cell]:
    at = answered(data, axis, kernel, way)
    far = largest(at)
    best = max(largest(answered(data, axis, kernel, other)) for other in WAYS[kernel])
    memory = exponent((at.memory + at.result).where(at.memory + at.result > SEEN))
    tops = {"width": config.widths, "depth": config.depths}[axis]
    return [
        Cell(_shown(exponent(at.seconds))),
        Cell(_shown(memory)),
        Cell(f"{far}" if far else "none", "best" if far == best and far else ""),
        Cell(_beyond(at, far) if far < max(tops) else "not tried"),
    ]


def largest(at: xr.Dataset) -> int:
    """Return the largest size of which the first call ended; 0 where none did."""
    reached = at["first"].dropna("size")
    return int(reached["size"].max()) if len(reached) else 0


def _beyond(at: xr.Dataset, far: int) -> str:
    """Say why the next size was not reached."""
    reasons = [str(x) for x in at.reason.sel(size=at["size"] > far).values if isinstance(x, str) and x]
    would = "would be " if reasons and "if the time" in reasons[0] else ""
    return would + re.split(r" \(pip| if the time|: ", reasons[0])[0] if reasons else ""


def _shown(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else "–"


def least(config: Growth, data: xr.Dataset, axis: str, kernel: str) -> float:
    """Fit the exponent of the kernel's floor over the sizes over which that of this project is fitted."""
    at = data.sel(axis=axis, kernel=kernel, way="ours")
    products, known = at.products.fillna(1), at.seconds.dropna("size")["size"].values
    asked = config.along(axis)
    times = [floor_seconds(kernel, asked[int(n)], float(products.sel(size=n)), rates(data)) for n in known]
    return exponent(xr.DataArray(times, {"size": known}, ["size"]))


def _figure(config: Growth, data: xr.Dataset) -> plotting.Figure:
    """Draw the exponents of time of every way beside that of the floor, along both axes."""
    title = "How time grows: exponents of width and of depth, beside those of the floor"
    figure, panels = plotting.panels(len(AXES), title, width=6.4)
    for panel, (axis, symbol) in zip(panels, AXES.items(), strict=True):
        for place, (kernel, ways) in enumerate(WAYS.items()):
            floor = least(config, data, axis, kernel)
            bar = {"color": plotting.COLOR["prediction"], "lw": 6, "alpha": 0.5}
            panel.plot([floor, floor], [place - 0.35, place + 0.35], **bar, label="floor" if not place else None)
            for way in ways:
                found = exponent(answered(data, axis, kernel, way).seconds)
                panel.plot(found, place, STYLE[way][-1], color=COLOR[way], markersize=9, label=LABEL[way])
        panel.set_yticks(range(len(WAYS)), [KERNEL[kernel] for kernel in WAYS])
        panel.invert_yaxis()
        panel.set_xlabel(f"exponent of {symbol} in the time of a call")
    entries = dict(zip(*reversed(panels[0].get_legend_handles_labels()), strict=True))
    figure.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=4)
    return figure


EXPERIMENT = Experiment(
    name="growth",
    title="How time and memory of every kernel grow with width and depth, beside other tools, and how far each gets.",
    configure=configure,
    points=points,
    measure=measure,
    report=report,
    tiny={"widths": (4, 8, 16), "depths": (2, 4), "repeats": 1},
    refuses=refuses,
    captions={"growth": "Exponents of width and depth in the time of a call, every way beside the floor."},
)
