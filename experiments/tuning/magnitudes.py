"""Compute T6: how large α is by the common rule α = r, by V1 = 256√r and by V2 = √r/σ_A = √(3 d_in r) (App. F)."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import xarray as xr

import signal_drift as sd
from experiments.lab.errors import check_positive
from experiments.lab.experiment import Experiment, Point, Report, Row
from experiments.lab.problem import Problem
from signal_drift import plotting

PRINTED = {8: 90.5, 256: 16.0}
"""V1/(α = r) as printed in App. F, by rank."""


@dataclass(frozen=True)
class Config:
    """Set the layer and the ranks of Table 6."""

    d_in: int = 4096
    """Inputs of the layer; σ_A² = 1/(3 d_in), Kaiming-uniform."""
    ranks: tuple[int, ...] = tuple(2**k for k in range(9))
    """Ranks r."""
    coefficient: float = 256.0
    """C of V1."""

    def __post_init__(self) -> None:
        check_positive(self, "d_in", "ranks")


def points(config: Config) -> list[Point]:
    return [{}]


def measure(config: Config) -> xr.Dataset:
    """Compute α at every rank by each of the three rules."""
    sigma_a = sd.kaiming_sigma(config.d_in)
    return xr.Dataset(
        {
            "common": ("rank", np.array(config.ranks, float)),
            "V1": ("rank", [sd.empirical_alpha_base(r, config.coefficient) for r in config.ranks]),
            "V2": ("rank", [sd.alpha_base(r, sigma_a) for r in config.ranks]),
        },
        coords={"rank": list(config.ranks)},
    )


def report(config: Config, data: xr.Dataset) -> Report:
    rows = [_row(config, data.sel(rank=r)) for r in config.ranks]
    sigma_a = sd.kaiming_sigma(config.d_in)
    coefficients = f"{config.coefficient:g} in V1 and 1/σ_A = {1 / sigma_a:.1f} in V2"
    sentence = f"At d_in = {config.d_in} the coefficient of √r is {coefficients}."
    return Report(rows, [sentence], {"magnitudes": partial(_figure, config, data)})


def _row(config: Config, here: xr.Dataset) -> Row:
    r = int(here["rank"])
    stated = PRINTED.get(r) if config.coefficient == Config.coefficient else None
    values = f"α = r: {r}, V1: {float(here.V1):.4g}, V2: {float(here.V2):.4g}"
    return Row(
        f"T6   V1/(α=r) at r = {r} ({values})", f"{stated:g}" if stated else "–", f"{float(here.V1) / r:.3g}", "exact"
    )


def _figure(config: Config, data: xr.Dataset) -> plotting.Figure:
    figure, (left, right) = plotting.panels(2, f"T6  The scaling factor by three rules, d_in = {config.d_in}")
    styles = {
        "common": ("α = r", "task"),
        "V1": (f"V1: {config.coefficient:g}√r", "lora"),
        "V2": ("V2: √(3 d_in r)", "signal"),
    }
    for name, (label, color) in styles.items():
        left.plot(data["rank"], data[name], "o-", color=plotting.COLOR[color], label=label)
        right.plot(data["rank"], data[name] / data.common, "o-", color=plotting.COLOR[color], label=label)
    for r, ratio in PRINTED.items():
        if r in config.ranks:
            right.plot(
                r,
                ratio,
                "s",
                ms=13,
                mfc="none",
                color=plotting.COLOR["prediction"],
                label="stated in App. F" if r == min(PRINTED) else None,
            )
    plotting.log_axis(left, "rank r", "α")
    plotting.log_axis(right, "rank r", "α / r, the factor before BA")
    left.set_title("(a) α")
    right.set_title("(b) against the common rule")
    left.legend()
    right.legend()
    return figure


def arithmetic(problem: Problem) -> str:
    """Refuse every problem but its home: nothing here depends on one."""
    return "" if problem.name in EXPERIMENT.homes else "is arithmetic, asks no model"


CAPTIONS = {
    "magnitudes": "α by three rules over ranks, and the factor α/r before BA. Squares: what App. F prints.",
}

EXPERIMENT = Experiment(
    name="magnitudes",
    title="T6: α = r against V1 = 256√r and V2 = √r/σ_A over ranks, for a layer with d_in inputs.",
    configure=lambda problem: Config(),
    points=points,
    measure=measure,
    report=report,
    tiny={"ranks": (1, 8, 256)},
    refuses=arithmetic,
    captions=CAPTIONS,
)
