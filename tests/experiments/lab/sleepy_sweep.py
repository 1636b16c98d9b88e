"""A sweep of slow little points, run by the tests as a program of its own so that it can be killed.

SLEEPY_LOG names a file that gets a line for every point begun; SLEEPY_NOISE makes results differ between runs.
"""

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from experiments.lab.command_line import exit_on_bad_input, main
from experiments.lab.experiment import Experiment, Report, Row
from experiments.problems import PROBLEMS


@dataclass(frozen=True)
class Config:
    """How many points, and how long each takes."""

    count: int = 12
    """Points."""
    seconds: float = 0.05
    """Time a point takes."""


def measure(config: Config, index: int) -> xr.Dataset:
    with Path(os.environ["SLEEPY_LOG"]).open("a") as log:
        log.write(f"{index}\n")
    time.sleep(config.seconds)
    noise = time.time_ns() if "SLEEPY_NOISE" in os.environ else 0
    return xr.Dataset({"values": ("k", np.sqrt(np.arange(200.0) + index) + noise)})


def report(config: Config, data: xr.Dataset) -> Report:
    return Report([Row("sum", "–", f"{float(data['values'].sum()):.6f}", "–")], [], {})


EXPERIMENT = Experiment(
    name="sleepy",
    title="A sweep to be killed.",
    configure=lambda problem: Config(),
    points=lambda config: [{"index": i} for i in range(config.count)],
    measure=measure,
    report=report,
)

if __name__ == "__main__":
    exit_on_bad_input(lambda: main(EXPERIMENT, PROBLEMS, sys.argv[1:]))
