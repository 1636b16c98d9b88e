"""Measure time and memory of every kernel over d, beside other tools, on the same weights in the same run.

The first call is timed apart, compilation included; then the median of further calls. The memory is the peak during
one call beyond what was there and beyond the result.
"""

import xarray as xr

from experiments.benchmark.config import Config
from experiments.benchmark.process import measured
from experiments.benchmark.report import WAYS, report
from experiments.lab.experiment import Experiment, Point
from experiments.lab.problem import Problem
from experiments.problems.mlp import MLP


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
    return measured({width: config.at(width) for width in asked}, kernel, way, width=config.widths)


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
