"""Judge the claims on tuned runs: F1a, F1b and F1c.

A finding is of one rank on one problem, from optima found seed by seed and paired by seed.
"""

from functools import partial

import numpy as np
import xarray as xr

from experiments.analysis.intervals import geometric_mean_of, mean_of
from experiments.ledger.claim import Claim, Evidence, Reading
from experiments.ledger.verdict import EXPONENT, Band, Finding, above, at_least, at_most, below, magnitude, near, power
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
        Finding(f"exponent of α in the best η, {where}", band, mean_of(sweeps.rate_exponents(config, losses)))
        for where, losses in _grids(config, data)
    ]


def improves(config: Config, data: xr.Dataset) -> list[Finding]:
    """Judge every step of α by the change of the best ln loss: monotone is what nowhere rises."""
    found = []
    band = at_most(0.0, "monotonically: no step raises it", margin=np.log(1.05))
    steps = list(zip(config.grid_alphas, config.grid_alphas[1:], strict=False))
    for where, losses in _grids(config, data):
        for (low, high), change in zip(steps, sweeps.changes(config, losses).T, strict=True):
            name = f"change of the best ln loss from α = {low:.3g} to {high:.3g}, {where}"
            estimate = mean_of(change)
            factor = f"{np.exp(estimate.value):.3g}"
            words = f"from α = {low:.3g} to {high:.3g} the best loss rises by a factor {factor}, {where}"
            if np.isfinite(estimate.value):
                found.append(Finding(name, band, estimate, words))
    return found


def gains_with_rank(config: Config, data: xr.Dataset) -> list[Finding]:
    """Compare ln best loss at the smallest over that at the largest α: at the highest rank less at the lowest."""
    grids = _grids(config, data)
    if len(grids) < 2:
        return []
    (lowest, few), (highest, many) = grids[0], grids[-1]
    difference = mean_of(sweeps.gains(config, many) - sweeps.gains(config, few))
    return [Finding(f"gain of ln best loss over α, {highest} less {lowest}", above(0.0), difference)]


def small_alpha(config: Config) -> float:
    """Return the α of the grid that lies where the paper's 16 does: 0.2/σ_A."""
    place = sweeps.SAME_PLACE / config.problem.typical_sigma()
    return min(config.grid_alphas, key=lambda alpha: abs(np.log(alpha / place)))


def tenfold_rate(config: Config, data: xr.Dataset) -> list[Finding]:
    """Divide the best η at a small α by η_FFT."""
    found = []
    for where, losses in _grids(config, data):
        alpha = small_alpha(config)
        estimate = geometric_mean_of(sweeps.wanted(config, alpha, losses))
        name = f"η*/η_FFT at α = {alpha:.3g}, {where}"
        words = (
            f"at α = {alpha:.3g}, the place of the paper's 16, the best η is {estimate} of η_FFT and not 10, {where}"
        )
        found.append(Finding(name, magnitude(10.0), estimate, words))
    return found


def coupled(config: Config, data: xr.Dataset) -> list[Finding]:
    """Take all parts of F1a together; the tenfold rate only where full fine-tuning is not at its cliff."""
    parts = [partial(rate_falls, band=below(0.0)), improves, gains_with_rank]
    if not sweeps.at_the_cliff(config, data):
        parts.append(tenfold_rate)
    return [finding for part in parts for finding in part(config, data)]


def has_grid(config: Config, data: xr.Dataset) -> str:
    return "" if config.grid_alphas else "the (α, η) grid was not run"


def tenfold_applies(config: Config, data: xr.Dataset) -> str:
    """Ask for a grid, and for an η_FFT that is not a limit of stability."""
    return has_grid(config, data) or sweeps.at_the_cliff(config, data)


def ranks_with_room(config: Config, data: xr.Dataset, start: float) -> list[int]:
    """List the ranks at which the best α lies above α₀, so that a path of α can rise to it."""
    return [rank for rank in config.path_ranks if sweeps.room_above(config, data.sel(rank=rank), start) > 1]


def start_of(config: Config, literal: bool) -> float:
    """Return α₀: the paper's number, or its place 0.2/σ_A."""
    return config.starts[0 if literal else -1]


def paths_apply(config: Config, data: xr.Dataset, *, literal: bool = False, rank: int | None = None) -> str:
    """Ask that α₀ be below the best α at some rank."""
    start = start_of(config, literal)
    asked = [r for r in config.path_ranks if rank in (None, r)]
    if not asked:
        return f"r = {rank} was not run"
    if set(asked) & set(ranks_with_room(config, data, start)):
        return ""
    found = ", ".join(f"{sweeps.room_above(config, data.sel(rank=r), start) * start:.3g} at r = {r}" for r in asked)
    return f"α₀ = {start:.3g} is past the best α, {found}: the path of α can only get worse"


def alpha_path_wins(
    config: Config, data: xr.Dataset, rank: int | None = None, *, swapped: bool = False, literal: bool = False
) -> list[Finding]:
    """Compare the best multiplier of α with that of η, and how deep their minima are in ln loss."""
    farther, deeper = (below(1.0), below(0.0)) if swapped else (above(1.0), above(0.0))
    start = start_of(config, literal)
    found = []
    for r in ranks_with_room(config, data, start):
        if rank in (None, r):
            here, where = data.sel(rank=r), f"from α₀ = {start:.3g}, r = {r}"
            depth = sweeps.path_depth(config, here, start)
            found += [
                Finding(
                    f"best multiplier of α over that of η, {where}", farther, sweeps.path_ratio(config, here, start)
                ),
                Finding(f"ln of the lowest loss along η over that along α, {where}", deeper, depth),
            ]
    return found


def rank_law_applies(config: Config, data: xr.Dataset) -> str:
    """Ask for several ranks, a best α inside the sweep, and an η_FFT that is not a limit of stability."""
    if len(config.ranks) < 2:
        return "one rank does not show how α* grows with it"
    edge = np.isnan(sweeps.best_alphas(config, data.sel(rank=list(config.ranks))))
    if edge.any():
        return f"the best α is on the edge of the sweep at {int(edge.sum())} of {edge.size} ranks and seeds"
    return sweeps.at_the_cliff(config, data)


def root_of_rank(config: Config, data: xr.Dataset, band: Band) -> list[Finding]:
    """Fit the free exponent of r in α*."""
    return [Finding("free exponent of r in α*", band, sweeps.free_exponent(config, data.sel(rank=list(config.ranks))))]


def coefficient_of_root(config: Config, data: xr.Dataset, band: Band, unit: float = 0.0) -> list[Finding]:
    """Fit C of α* = C√r with the slope ½, over σ_A to the power `unit`."""
    name = {0.0: "C of α* = C√r", -1.0: "C·σ_A of α* = C√r", 1.0: "C/σ_A of α* = C√r"}[unit]
    return [Finding(name, band, sweeps.coefficient(config, data.sel(rank=list(config.ranks)), unit))]


def square_root(config: Config, data: xr.Dataset) -> list[Finding]:
    """Take the exponent and the size of C together; the size only where V2 itself, C = 1/σ_A, has it ≫ 1."""
    large = at_least(LARGE, "≫ 1: an order of magnitude", margin=LARGE - LARGE**0.5)
    sized = coefficient_of_root(config, data, large) if 1 / config.problem.typical_sigma() >= LARGE else []
    return [*root_of_rank(config, data, power(0.5)), *sized]


RANKS = rank_law.EXPERIMENT
LARGE = 10.0
"""What "≫ 1" asks of C; on Llama 1/σ_A is 78 and more, and C 256 and more."""
TRAINED = ("Adam at a constant rate", "the loss after the last step, on what was trained on")
"""Assumptions under which the findings of Sec. 2 and 4 are stated here."""
ON_LLAMA = "Llama-3 1B and 8B on Tulu-3 and OpenThoughts, AdamW, one epoch in batches of 32"
"""Where the paper made its findings on tuned runs."""
SWEEPS = "sweeps over α, η and r"
FALLS, IMPROVES = "As α grows the best η falls", "the best loss improves monotonically"
PATH_RANKS = sorted({rank for home in RANKS.homes for rank in RANKS.at(find(home)).path_ranks})
"""Ranks at which the homes of F1b compare the two paths."""

CLAIMS = [
    Claim(
        "F1a-coupling",
        "tuning",
        TRAINED,
        "Sec. 2, Fig. 1a",
        (
            Evidence(
                Reading(
                    "as stated",
                    f"{FALLS} and {IMPROVES}, more so at higher rank; at small α the best η is about ten times η_FFT.",
                    RANKS,
                    coupled,
                    has_grid,
                ),
                Reading(
                    "control",
                    "The best η does not depend on α.",
                    RANKS,
                    partial(rate_falls, band=near(0.0, EXPONENT, "0 to one decimal")),
                    has_grid,
                ),
            ),
        ),
        (
            Reading("first part", f"{FALLS}.", RANKS, partial(rate_falls, band=below(0.0)), has_grid),
            Reading("second part", f"As α grows {IMPROVES}.", RANKS, improves, has_grid),
            Reading("third part", "The best loss gains more from α at higher rank.", RANKS, gains_with_rank, has_grid),
            Reading(
                "fourth part", "At small α the best η is about ten times η_FFT.", RANKS, tenfold_rate, tenfold_applies
            ),
            Reading(
                "how steeply (X15)",
                "As α grows the best η falls as α^(−½) to α^(−1).",
                RANKS,
                partial(rate_falls, band=near(-0.75, 0.25, "between the two regimes of X15")),
                has_grid,
            ),
        ),
        figure="best_rate",
        formula=(
            r"\frac{d\ln\eta^*}{d\ln\alpha}<0,\quad\frac{d\,\ell^*}{d\alpha}<0,"
            r"\quad\eta^*(\text{small }\alpha)\approx 10\,\eta_{FFT}"
        ),
        measured_on=ON_LLAMA,
        measurement=SWEEPS,
    ),
    Claim(
        "F1b-paths",
        "tuning",
        TRAINED,
        "Eq. 2, Fig. 1b",
        (
            Evidence(
                Reading(
                    "from the paper's place",
                    "From (η_FFT, α₀), α₀ = 0.2/σ_A as on Llama, m ↦ (η_FFT, m·α₀) has a larger best multiplier and a "
                    "deeper minimum than m ↦ (m·η_FFT, α₀).",
                    RANKS,
                    alpha_path_wins,
                    paths_apply,
                ),
                Reading(
                    "control", "The path of η has both.", RANKS, partial(alpha_path_wins, swapped=True), paths_apply
                ),
            ),
        ),
        (
            Reading(
                "from α₀ = 16 itself",
                "The same from α₀ = 16, whatever σ_A is.",
                RANKS,
                partial(alpha_path_wins, literal=True),
                partial(paths_apply, literal=True),
            ),
            *(
                Reading(
                    f"at r = {rank}",
                    f"The path of α has the larger best multiplier and the deeper minimum at r = {rank}.",
                    RANKS,
                    partial(alpha_path_wins, rank=rank),
                    partial(paths_apply, rank=rank),
                )
                for rank in PATH_RANKS
            ),
        ),
        figure="scaling_paths",
        formula=r"m^*_\alpha>m^*_\eta,\qquad \min_m \ell(\eta_{FFT},\,m\alpha_0)<\min_m \ell(m\,\eta_{FFT},\,\alpha_0)",
        measured_on=ON_LLAMA,
        measurement=SWEEPS,
    ),
    Claim(
        "F1c-square-root",
        "tuning",
        TRAINED,
        "Eq. 3, Fig. 1c",
        (
            Evidence(
                Reading("as stated", "At η_FFT the best α is C√r with C ≫ 1.", RANKS, square_root, rank_law_applies),
                Reading(
                    "control",
                    "The best α is linear in r.",
                    RANKS,
                    partial(root_of_rank, band=power(1.0)),
                    rank_law_applies,
                ),
            ),
        ),
        (
            Reading(
                "without C",
                "The best α grows as √r.",
                RANKS,
                partial(root_of_rank, band=power(0.5)),
                rank_law_applies,
            ),
            Reading(
                "grows",
                "The best α grows with r.",
                RANKS,
                partial(root_of_rank, band=above(0.0, margin=EXPONENT)),
                rank_law_applies,
            ),
        ),
        figure="rank_law",
        formula=r"\alpha^*(r)\approx C\sqrt r,\qquad C\gg 1",
        measured_on=ON_LLAMA,
        measurement=SWEEPS,
    ),
]
