"""Draw what every method makes of the new digits after training at η_FFT: samples from the same noise, side by side."""

from dataclasses import dataclass, fields, replace
from functools import partial

import numpy as np
import xarray as xr
from jax import Array
from jax.tree_util import Partial

from experiments.lab.experiment import Experiment, Point, Report
from experiments.lab.problem import Dtype, Problem, Training, Tuning
from experiments.problems.flow import Flow, Painter, asked_for
from experiments.tuning import rates
from experiments.tuning.methods.recipes import FULL, methods
from experiments.tuning.methods.training import method_runs
from experiments.tuning.runs import SMALL, Tuned, fft_rate, full_runs, training_attributes, tuning_of
from signal_drift import plotting
from signal_drift.tasks.digits import SIDE
from signal_drift.tasks.flow_matching import sampled

BEFORE = "before adaptation"


@dataclass(frozen=True)
class Config(Tuned):
    """Train by every method at η_FFT, and let each draw the same samples."""

    ranks: tuple[int, ...] = Tuning.protocol_ranks
    """Ranks r."""
    count: int = 12
    """Samples of each method, of the new digits in turn."""


@dataclass(frozen=True)
class Painted(Flow):
    """Pose the same problem, a run judged by nothing but the images that it draws."""

    count: int = 12
    """Images."""

    def training(self, seed: int, steps: int, dtype: Dtype = "float64") -> Training:
        draw = Partial(_images, self.painter(dtype), *asked_for(self.count, dtype))
        return super().training(seed, steps, dtype)._replace(fit=draw, scores={})


def _images(painter: Painter, noise: Array, labels: Array, weights: dict[str, Array]) -> Array:
    return sampled(painter.forward, weights, noise, labels)


def refuses(problem: Problem) -> str:
    return "" if isinstance(problem, Flow) else "it draws no images"


def configure(problem: Problem) -> Config:
    sizes = tuning_of(problem)
    return Config(problem, 1, sizes.steps, sizes.fft_rates, sizes.seeds, ranks=sizes.protocol_ranks)


def points(config: Config) -> list[Point]:
    return [{"rank": rank} for rank in config.ranks]


def measure(config: Config, first: xr.Dataset, rank: int) -> xr.Dataset:
    """Train by every method at the first draw and store its images, those of the start before them."""
    assert isinstance(config.problem, Flow), config.problem
    sizes = {field.name: getattr(config.problem, field.name) for field in fields(config.problem)}
    judged = replace(config, problem=Painted(**sizes, count=config.count))
    eta, chosen = fft_rate(first.log_loss), methods(rank, config.problem.sigma_a())
    request = ([eta], chosen)
    adapted = method_runs(judged, 0, rank, max(config.ranks), [request]).at(request).loss[0]
    start = judged.problem.training(0, 1, config.dtype).fit(judged.problem.draw(0, config.dtype).base)
    images = np.concatenate(
        [np.asarray(start)[None], np.asarray(adapted), np.asarray(full_runs(judged, 0, [eta]).loss)]
    )
    return xr.Dataset(
        {"image": (("method", "sample", "pixel"), images.astype(np.float32))},
        coords={
            "method": [BEFORE, *chosen, FULL],
            "digit": ("sample", np.asarray(asked_for(config.count, config.dtype)[1])),
        },
        attrs=training_attributes(config),
    )


def report(config: Config, data: xr.Dataset) -> Report:
    drawings = {f"samples_r{rank}": partial(_figure, config, data.sel(rank=rank)) for rank in config.ranks}
    words = f"{config.problem.label}: {config.count} samples of every method at η_FFT, all from the same noise."
    return Report([], [words], drawings)


def _figure(config: Config, data: xr.Dataset) -> plotting.Figure:
    """Lay out a row of images for every method, the digit asked for above its column."""
    names = [str(name) for name in data.method.values]
    title = f"{config.problem.label}, r = {data['rank'].item()}, η_FFT"
    figure, axes = plotting.panels(config.count, title, 0.62, 0.66, rows=len(names))
    for i, (panel, image) in enumerate(zip(axes, data.image.values.reshape(-1, SIDE, SIDE), strict=True)):
        panel.imshow(-image, cmap="gray", vmin=-1, vmax=1)
        panel.set_xticks([])
        panel.set_yticks([])
        panel.grid(visible=False)
        row, column = divmod(i, config.count)
        if row == 0:
            panel.set_title(str(data.digit.values[column]), loc="center")
        if column == 0:
            panel.set_ylabel(names[row], rotation=0, ha="right", va="center", fontsize=10)
    return figure


EXPERIMENT = Experiment(
    name="samples",
    title="What every method draws of the new digits after training at η_FFT, from the same noise.",
    configure=configure,
    points=points,
    measure=measure,
    report=report,
    tiny={**SMALL, "ranks": (2,), "count": 3},
    homes=("flow",),
    refuses=refuses,
    first=rates.of,
    captions={
        "samples_r4": "Samples of every method at η_FFT, the same noise in each column: the digit asked for is above.",
        "samples_r16": "The same at rank 16.",
    },
)
