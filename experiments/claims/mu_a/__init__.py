"""Open this package for μA, how the best learning rate moves with the rank (arXiv 2602.06204)."""

from functools import partial

import numpy as np
import xarray as xr

from experiments.analysis.intervals import mean_of
from experiments.analysis.sweeps import free_fit
from experiments.claims.lora_alpha.tuning import RANKS, SWEEPS, TRAINED, has_grid
from experiments.claims.without_regret import best_rates
from experiments.ledger.claim import Claim, Evidence, Reading, Source
from experiments.ledger.verdict import Finding, power
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
    return [
        Finding(
            f"exponent of r in η*, s ∝ r^(−{gamma:g})",
            power(-(1 - gamma) / 2),
            mean_of(np.array([free_fit(config.path_ranks, x).slope for x in rates_along(config, data, gamma)])),
        )
        for gamma in gammas
    ]


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
        source="Cor. 4.4, Init[A]",
        evidence=(
            Evidence(
                Reading(
                    "as stated",
                    "With A random, B = 0 and s ∝ r^(−γ) the best η goes as r^(−(1−γ)/2): as r^(−½) for a constant s, "
                    "and not at all for s = α/r.",
                    RANKS,
                    rank_exponents,
                    inside,
                )
            ),
        ),
        readings=tuple(
            Reading(
                f"γ = {gamma:g}",
                f"With s ∝ r^(−{gamma:g}) the best η goes as r^({-(1 - gamma) / 2 + 0:g}).",
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
