"""Claims on tuned runs: F1a, F1b and F1c."""

from functools import partial

import numpy as np
import xarray as xr

from experiments.analysis.intervals import Interval, bootstrap
from experiments.analysis.sweeps import valley
from experiments.claims.claim import Claim, Reading
from experiments.claims.verdict import Band, Finding, above, at_least, below, exactly, magnitude, power
from experiments.problems.adaptation import width_of
from experiments.tuning import rank_law
from experiments.tuning.rank_sweeps import (
    by_seed,
    free_exponent,
    gain,
    path_depth,
    path_ratio,
    prefactor,
    rate_exponent,
    wanted,
)


def _cells(config, data: xr.Dataset) -> list[tuple[str, xr.Dataset]]:
    """Every task and rank of the (α, η) grid, with its name."""
    return [
        (f"{task}, r = {rank}", data.sel(task=task, rank=rank))
        for task in config.tasks
        for rank in config.grid_ranks_of(task)
    ]


def _grid(here: xr.Dataset) -> np.ndarray:
    return here.by_both.transpose("seed", "grid_alpha", "grid_rate").values


def rate_falls(config, data: xr.Dataset, band: Band) -> list[Finding]:
    return [
        Finding(f"exponent of α in the best η, {where}", band, bootstrap(partial(rate_exponent, config), _grid(here)))
        for where, here in _cells(config, data)
    ]


def improves(config, data: xr.Dataset) -> list[Finding]:
    """The share of steps of α that lower the best loss."""

    def lowering(losses: np.ndarray) -> float:
        steps = np.diff(valley(config.grid_rates, losses)[1])
        return float(np.mean(steps[np.isfinite(steps)] < 0))

    monotone = exactly(1.0)._replace(why="monotonically: every step")
    return [
        Finding(f"share of steps of α that lower the best loss, {where}", monotone, bootstrap(lowering, _grid(here)))
        for where, here in _cells(config, data)
    ]


def gains_with_rank(config, data: xr.Dataset) -> list[Finding]:
    """Ln best loss at the smallest over that at the largest α: at the highest rank less at the lowest."""
    found = []
    for task in config.tasks:
        ranks = config.grid_ranks_of(task)
        if len(ranks) > 1:
            ends = np.stack([_grid(data.sel(task=task, rank=r)) for r in (ranks[0], ranks[-1])], axis=1)
            difference = bootstrap(lambda x: gain(config, x[:, 1]) - gain(config, x[:, 0]), ends)
            name = f"gain of ln best loss over α, r = {ranks[-1]} less r = {ranks[0]}, {task}"
            found.append(Finding(name, above(0.0), difference))
    return found


def tenfold_rate(config, data: xr.Dataset) -> list[Finding]:
    alpha = config.grid_alphas[0]
    return [
        Finding(
            f"η*/η_FFT at α = {alpha:g}, {where}",
            magnitude(10.0),
            bootstrap(partial(wanted, config, alpha), _grid(here)),
        )
        for where, here in _cells(config, data)
    ]


def coupled(config, data: xr.Dataset) -> list[Finding]:
    parts = (partial(rate_falls, band=below(0.0)), improves, gains_with_rank, tenfold_rate)
    return [finding for part in parts for finding in part(config, data)]


def alpha_path_wins(config, data: xr.Dataset, where: str | None = None, *, swapped: bool = False) -> list[Finding]:
    """The best multiplier of α over that of η, and how much deeper α's minimum is, in ln loss."""
    farther, deeper = (below(1.0), below(0.0)) if swapped else (above(1.0), above(0.0))
    return [
        finding
        for name, here in _cells(config, data)
        if where in (None, name)
        for finding in (
            Finding(f"best multiplier of α over that of η, {name}", farther, path_ratio(config.multipliers, here)),
            Finding(
                f"ln of the lowest loss along η over that along α, {name}", deeper, path_depth(config.multipliers, here)
            ),
        )
    ]


def root_of_rank(config, data: xr.Dataset, band: Band, task: str | None = None) -> list[Finding]:
    return [
        Finding(f"free exponent of r in α*, {name}", band, free_exponent(config, name, _of(config, name, data)))
        for name in config.tasks
        if task in (None, name)
    ]


def _of(config, task: str, data: xr.Dataset) -> xr.Dataset:
    return data.sel(task=task, rank=list(config.ranks_of(task)))


def coefficient(config, data: xr.Dataset, band: Band, task: str | None = None, unit: float = 0.0) -> list[Finding]:
    """C of α* = C√r, by the fit with the slope ½, over σ_A to the power `unit`."""
    name = {0.0: "C of α* = C√r", -1.0: "C·σ_A", 1.0: "C/σ_A"}[unit]
    found = []
    for here in config.tasks:
        if task in (None, here):
            C = bootstrap(partial(prefactor, config, here), by_seed(_of(config, here, data).by_alpha))
            factor = width_of(here) ** (unit / 2)  # σ_A = 1/√d
            found.append(Finding(f"{name}, {here}", band, Interval(*(x * factor for x in C))))
    return found


def square_root(config, data: xr.Dataset) -> list[Finding]:
    large = at_least(10.0, "≫ 1: an order of magnitude")
    return [*root_of_rank(config, data, power(0.5)), *coefficient(config, data, large)]


RANKS = rank_law.EXPERIMENT
TASKS = tuple(RANKS.paper.tasks)
MODELS = ("models of this size: MLPs of width 64 and 256, rotated digits", "full batch Adam, 100 steps, training loss")
FALLS, IMPROVES = "As α grows the best η falls", "the best loss improves monotonically"

CLAIMS = [
    Claim(
        "F1a-coupling",
        MODELS,
        "Sec. 2, Fig. 1a",
        Reading(
            "as stated",
            f"{FALLS} and {IMPROVES}, more so at higher rank; at small α the best η is about ten times η_FFT.",
            RANKS,
            coupled,
        ),
        Reading("control", "As α grows the best η grows.", RANKS, partial(rate_falls, band=above(0.0))),
        (
            Reading("first part", f"{FALLS}.", RANKS, partial(rate_falls, band=below(0.0))),
            Reading("second part", f"As α grows {IMPROVES}.", RANKS, improves),
            Reading("third part", "The best loss gains more from α at higher rank.", RANKS, gains_with_rank),
            Reading("fourth part", "At small α the best η is about ten times η_FFT.", RANKS, tenfold_rate),
        ),
        figures=("best_rate", "best_loss"),
    ),
    Claim(
        "F1b-paths",
        MODELS,
        "Eq. 2, Fig. 1b",
        Reading(
            "as stated",
            "From (η_FFT, α₀ = 16), m ↦ (η_FFT, m·α₀) has a larger best multiplier and a deeper minimum than "
            "m ↦ (m·η_FFT, α₀).",
            RANKS,
            alpha_path_wins,
        ),
        Reading("control", "The path of η has both.", RANKS, partial(alpha_path_wins, swapped=True)),
        tuple(
            Reading(
                f"{task}, r = {rank}",
                f"The path of α has the larger best multiplier and the deeper minimum on {task} at r = {rank}.",
                RANKS,
                partial(alpha_path_wins, where=f"{task}, r = {rank}"),
            )
            for task in TASKS
            for rank in RANKS.paper.grid_ranks_of(task)
        ),
        figures=("scaling_paths",),
    ),
    Claim(
        "F1c-square-root",
        MODELS,
        "Eq. 3, Fig. 1c",
        Reading("as stated", "At η_FFT the best α is C√r with C ≫ 1.", RANKS, square_root),
        Reading("control", "The best α falls as 1/√r.", RANKS, partial(root_of_rank, band=power(-0.5))),
        (
            *(
                Reading(
                    task, f"The best α grows as √r on {task}.", RANKS, partial(root_of_rank, band=power(0.5), task=task)
                )
                for task in TASKS
            ),
            Reading("grows", "The best α grows with r.", RANKS, partial(root_of_rank, band=above(0.0))),
        ),
        figures=("rank_law",),
    ),
]
