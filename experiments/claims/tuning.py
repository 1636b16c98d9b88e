"""Judge the claims on tuned runs: F1a, F1b and F1c."""

from functools import partial

import numpy as np
import xarray as xr

from experiments.analysis.intervals import bootstrap
from experiments.ledger.claim import Claim, Evidence, Reading
from experiments.ledger.verdict import Band, Finding, above, at_least, below, exactly, magnitude, power
from experiments.problems import find
from experiments.tuning import rank_law
from experiments.tuning import rank_sweeps as sweeps
from experiments.tuning.rank_sweeps import Config, grid_losses


def _at_ranks(config: Config, data: xr.Dataset) -> list[tuple[str, xr.Dataset]]:
    """The sweeps of the paths and of the grid, rank by rank, with the name of the rank."""
    return [(f"r = {rank}", data.sel(rank=rank)) for rank in config.path_ranks]


def _grids(config: Config, data: xr.Dataset) -> list[tuple[str, np.ndarray]]:
    """The losses of the (α, η) grid of every rank, none where no grid was run."""
    return [(where, grid_losses(here)) for where, here in _at_ranks(config, data)] if config.grid_alphas else []


def rate_falls(config: Config, data: xr.Dataset, band: Band) -> list[Finding]:
    """Fit the exponent of α in the best η."""
    return [
        Finding(f"exponent of α in the best η, {where}", band, bootstrap(partial(sweeps.rate_exponent, config), losses))
        for where, losses in _grids(config, data)
    ]


def improves(config: Config, data: xr.Dataset) -> list[Finding]:
    """Count the share of steps of α that lower the best loss."""
    monotone = exactly(1.0)._replace(why="monotonically: every step")
    return [
        Finding(
            f"share of steps of α that lower the best loss, {where}",
            monotone,
            bootstrap(lambda x: float(np.mean(sweeps.lowering(config, x))), losses),
        )
        for where, losses in _grids(config, data)
    ]


def gains_with_rank(config: Config, data: xr.Dataset) -> list[Finding]:
    """Compare ln best loss at the smallest over that at the largest α: at the highest rank less at the lowest."""
    grids = _grids(config, data)
    if len(grids) < 2:
        return []
    (lowest, few), (highest, many) = grids[0], grids[-1]
    ends = np.stack([few, many], axis=1)
    difference = bootstrap(lambda x: sweeps.gain(config, x[:, 1]) - sweeps.gain(config, x[:, 0]), ends)
    return [Finding(f"gain of ln best loss over α, {highest} less {lowest}", above(0.0), difference)]


def tenfold_rate(config: Config, data: xr.Dataset) -> list[Finding]:
    """Divide the best η at the smallest α by η_FFT."""
    return [
        Finding(
            f"η*/η_FFT at α = {config.grid_alphas[0]:g}, {where}",
            magnitude(10.0),
            bootstrap(partial(sweeps.wanted, config, config.grid_alphas[0]), losses),
        )
        for where, losses in _grids(config, data)
    ]


def coupled(config: Config, data: xr.Dataset) -> list[Finding]:
    """Take all four parts of F1a together."""
    parts = (partial(rate_falls, band=below(0.0)), improves, gains_with_rank, tenfold_rate)
    return [finding for part in parts for finding in part(config, data)]


def alpha_path_wins(
    config: Config, data: xr.Dataset, rank: int | None = None, *, swapped: bool = False
) -> list[Finding]:
    """Compare the best multiplier of α with that of η, and how deep their minima are in ln loss."""
    farther, deeper = (below(1.0), below(0.0)) if swapped else (above(1.0), above(0.0))
    return [
        finding
        for where, here in _at_ranks(config, data)
        if rank in (None, int(here["rank"]))
        for finding in (
            Finding(f"best multiplier of α over that of η, {where}", farther, sweeps.path_ratio(config, here)),
            Finding(
                f"ln of the lowest loss along η over that along α, {where}", deeper, sweeps.path_depth(config, here)
            ),
        )
    ]


def root_of_rank(config: Config, data: xr.Dataset, band: Band) -> list[Finding]:
    """Fit the free exponent of r in α*; one rank gives none."""
    if len(config.ranks) < 2:
        return []
    return [Finding("free exponent of r in α*", band, sweeps.free_exponent(config, data.sel(rank=list(config.ranks))))]


def coefficient_of_root(config: Config, data: xr.Dataset, band: Band, unit: float = 0.0) -> list[Finding]:
    """Fit C of α* = C√r with the slope ½, over σ_A to the power `unit`; one rank does not show the √r."""
    if len(config.ranks) < 2:
        return []
    name = {0.0: "C of α* = C√r", -1.0: "C·σ_A", 1.0: "C/σ_A"}[unit]
    return [Finding(name, band, sweeps.coefficient(config, data.sel(rank=list(config.ranks)), unit))]


def square_root(config: Config, data: xr.Dataset) -> list[Finding]:
    """Take the exponent and the size of C together."""
    large = at_least(10.0, "≫ 1: an order of magnitude")
    return [*root_of_rank(config, data, power(0.5)), *coefficient_of_root(config, data, large)]


RANKS = rank_law.EXPERIMENT
TRAINED = ("Adam at a constant rate", "the loss after the last step, on what was trained on")
"""Assumptions under which the findings of Sec. 2 and 4 are stated here."""
FALLS, IMPROVES = "As α grows the best η falls", "the best loss improves monotonically"
PATH_RANKS = sorted({rank for home in RANKS.homes for rank in RANKS.at(find(home)).path_ranks})
"""Ranks at which the homes of F1b compare the two paths."""

CLAIMS = [
    Claim(
        "F1a-coupling",
        TRAINED,
        "Sec. 2, Fig. 1a",
        (
            Evidence(
                Reading(
                    "as stated",
                    f"{FALLS} and {IMPROVES}, more so at higher rank; at small α the best η is about ten times η_FFT.",
                    RANKS,
                    coupled,
                ),
                Reading("control", "As α grows the best η grows.", RANKS, partial(rate_falls, band=above(0.0))),
            ),
        ),
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
        TRAINED,
        "Eq. 2, Fig. 1b",
        (
            Evidence(
                Reading(
                    "as stated",
                    "From (η_FFT, α₀ = 16), m ↦ (η_FFT, m·α₀) has a larger best multiplier and a deeper minimum than "
                    "m ↦ (m·η_FFT, α₀).",
                    RANKS,
                    alpha_path_wins,
                ),
                Reading("control", "The path of η has both.", RANKS, partial(alpha_path_wins, swapped=True)),
            ),
        ),
        tuple(
            Reading(
                f"at r = {rank}",
                f"The path of α has the larger best multiplier and the deeper minimum at r = {rank}.",
                RANKS,
                partial(alpha_path_wins, rank=rank),
            )
            for rank in PATH_RANKS
        ),
        figures=("scaling_paths",),
    ),
    Claim(
        "F1c-square-root",
        TRAINED,
        "Eq. 3, Fig. 1c",
        (
            Evidence(
                Reading("as stated", "At η_FFT the best α is C√r with C ≫ 1.", RANKS, square_root),
                Reading("control", "The best α falls as 1/√r.", RANKS, partial(root_of_rank, band=power(-0.5))),
            ),
        ),
        (
            Reading("without C", "The best α grows as √r.", RANKS, partial(root_of_rank, band=power(0.5))),
            Reading("grows", "The best α grows with r.", RANKS, partial(root_of_rank, band=above(0.0))),
        ),
        figures=("rank_law",),
    ),
]
