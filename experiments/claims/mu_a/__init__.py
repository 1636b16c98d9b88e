"""Open this package for μA, how the best learning rate moves with the rank (arXiv 2602.06204)."""

from functools import partial

import numpy as np
import xarray as xr

from experiments.analysis.intervals import mean_of
from experiments.analysis.sweeps import free_fit
from experiments.claims.lora_alpha.tuning import RANKS, SWEEPS, TRAINED, has_grid
from experiments.claims.without_regret import best_rates
from experiments.ledger.claim import Claim, Evidence, Reading, Source
from experiments.ledger.verdict import EXPONENT, Band, Finding, below, power
from experiments.tuning.rank_sweeps import Config

SOURCE = Source(
    "mu_a",
    "μA",
    "Learning Rate Scaling across LoRA Ranks and Transfer to Full Finetuning",
    "2026-02",
    "https://arxiv.org/abs/2602.06204",
)
GAMMAS = (0.0, 0.5, 1.0)
"""Values of γ in s ∝ r^(−γ): constant, rsLoRA's, LoRA's."""


def rates_along(config: Config, data: xr.Dataset, gamma: float) -> np.ndarray:
    """Return η* (seed, rank) along s ∝ r^(−γ), so α ∝ r^(1−γ), through the middle of the grid at the middle rank."""
    middle = config.path_ranks[len(config.path_ranks) // 2]
    alpha = float(np.sqrt(config.grid_alphas[0] * config.grid_alphas[-1]))
    found = [
        best_rates(config, data, alpha * (rank / middle) ** (1 - gamma))[:, i]
        for i, rank in enumerate(config.path_ranks)
    ]
    return np.array(found).T


def rank_exponents(config: Config, data: xr.Dataset, gammas: tuple[float, ...] = GAMMAS) -> list[Finding]:
    """Judge the exponent of r in η* for every γ: −(1 − γ)/2."""
    return [_finding(config, data, gamma, power(-(1 - gamma) / 2)) for gamma in gammas]


def two_regimes(config: Config, data: xr.Dataset) -> list[Finding]:
    """Judge that η* does not move with r for s = α/r, and falls for a constant s."""
    return [_finding(config, data, 1.0, power(0.0)), _finding(config, data, 0.0, below(0.0, margin=EXPONENT))]


def _finding(config: Config, data: xr.Dataset, gamma: float, band: Band) -> Finding:
    slopes = np.array([free_fit(config.path_ranks, x).slope for x in rates_along(config, data, gamma)])
    return Finding(f"exponent of r in η*, s ∝ {_power_of_r(-gamma)}", band, mean_of(slopes))


def _power_of_r(exponent: float) -> str:
    return f"r^({exponent:g})".replace("-", "−") if exponent else "1"


def inside(config: Config, data: xr.Dataset, gammas: tuple[float, ...] = GAMMAS) -> str:
    """Ask for a grid over several ranks with every best η inside."""
    lacking = has_grid(config, data) or ("" if len(config.path_ranks) > 1 else "the grid was run at one rank")
    if lacking:
        return lacking
    known = np.concatenate([np.isfinite(rates_along(config, data, gamma)).ravel() for gamma in gammas])
    return "" if known.all() else f"the best η is on the edge of the sweep at {int((~known).sum())} of {known.size}"


CLAIMS = [
    Claim(
        id="muA-rank",
        group="tuning",
        assumptions=(*TRAINED, "B = 0 at the start", "the limit of a large width and rank"),
        source="abstract; Cor. 4.4, Init[A]",
        evidence=(
            Evidence(
                Reading(
                    "as stated",
                    "With A random and B = 0 there are two regimes: for s = α/r the best η is roughly invariant across "
                    "ranks, for a constant s it falls with the rank.",
                    RANKS,
                    two_regimes,
                    partial(inside, gammas=(0.0, 1.0)),
                )
            ),
        ),
        readings=tuple(
            Reading(
                f"exponent, γ = {gamma:g}",
                f"With s ∝ {_power_of_r(-gamma)} the best η goes as {_power_of_r(-(1 - gamma) / 2)}.",
                RANKS,
                partial(rank_exponents, gammas=(gamma,)),
                partial(inside, gammas=(gamma,)),
            )
            for gamma in GAMMAS
        ),
        figure="best_rate",
        formula=r"s\propto r^{-\gamma}:\quad \eta^*\propto n^{-1/2}\,r^{-(1-\gamma)/2}",
        measured_on="language, vision and image models, Adam",
        measurement=SWEEPS,
    ),
]
