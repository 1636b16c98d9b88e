"""Open this package for *LoRA Without Regret*, a report of 2025 on how to set LoRA beside full fine-tuning."""

from functools import partial

import numpy as np
import xarray as xr

from experiments.analysis.intervals import geometric_mean_of, mean_of
from experiments.analysis.sweeps import free_fit, valley
from experiments.claims.lora_alpha.algebra import checked, on_drawn_problems
from experiments.claims.lora_alpha.tuning import RANKS, SWEEPS, TRAINED, has_grid
from experiments.curvature.checked import factorings
from experiments.gauge import rank_stability
from experiments.gauge.rank_stability import ADAM, WAYS, exponent
from experiments.ledger.claim import Claim, Evidence, Reading, Source, untestable
from experiments.ledger.verdict import Finding, magnitude, power
from experiments.tuning import rank_sweeps as sweeps
from experiments.tuning.rank_sweeps import Config, grid_losses

SOURCE = Source(
    "without_regret",
    "LoRA Without Regret",
    "LoRA Without Regret (Schulman and others, Thinking Machines)",
    "2025-09",
    "https://thinkingmachines.ai/blog/lora/",
)
ALPHA = 32.0
"""The α of all their runs."""
PLACE = 2 * sweeps.SAME_PLACE
"""ασ_A where 32 lies on Llama-3 1B."""


def best_rates(config: Config, data: xr.Dataset, alpha: float) -> np.ndarray:
    """Return η*/η_FFT at one α, (seed, rank): between those at the α of the grid, in logarithms.

    NaN where a best rate beside it lies on the edge of the sweep.
    """
    found = []
    for rank in config.path_ranks:
        best = [valley(config.grid_rates, x)[0] for x in grid_losses(data.sel(rank=rank))]
        found.append([float(np.exp(np.interp(np.log(alpha), np.log(config.grid_alphas), np.log(x)))) for x in best])
    return np.array(found).T


def place_of(config: Config, literal: bool) -> float:
    return ALPHA if literal else PLACE / config.problem.typical_sigma()


def tenfold(config: Config, data: xr.Dataset, literal: bool = False) -> list[Finding]:
    """Judge the best η over η_FFT at every rank."""
    alpha = place_of(config, literal)
    return [
        Finding(f"η*/η_FFT at α = {alpha:.3g}, r = {rank}", magnitude(10.0), geometric_mean_of(found))
        for rank, found in zip(config.path_ranks, best_rates(config, data, alpha).T, strict=True)
    ]


def without_rank(config: Config, data: xr.Dataset, literal: bool = False) -> list[Finding]:
    """Judge the exponent of r in the best η at one α, s = α/r."""
    alpha = place_of(config, literal)
    slopes = np.array([free_fit(config.path_ranks, x).slope for x in best_rates(config, data, alpha)])
    return [Finding(f"exponent of r in η* at α = {alpha:.3g}", power(0.0), mean_of(slopes))]


def inside(config: Config, data: xr.Dataset, literal: bool = False) -> str:
    """Ask for a grid that has the α, and a best η inside it at every rank for most seeds."""
    lacking = has_grid(config, data)
    if lacking:
        return lacking
    alpha = place_of(config, literal)
    if not config.grid_alphas[0] <= alpha <= config.grid_alphas[-1]:
        return f"α = {alpha:.3g} is not in the grid"
    known = np.isfinite(best_rates(config, data, alpha))
    return "" if known.all() else f"the best η is on the edge of the sweep at {int((~known).sum())} of {known.size}"


def tenfold_applies(config: Config, data: xr.Dataset, literal: bool = False) -> str:
    """Ask besides for an η_FFT that is not a limit of stability."""
    return inside(config, data, literal) or sweeps.at_the_cliff(config, data)


def several_ranks(config: Config, data: xr.Dataset, literal: bool = False) -> str:
    """Ask for a grid at several ranks."""
    one = "" if len(config.path_ranks) > 1 else "the grid was run at one rank"
    return has_grid(config, data) or one or inside(config, data, literal)


def first_update(config: rank_stability.Config, data: xr.Dataset) -> list[Finding]:
    """Judge the exponent of r in the mean first update of Adam with s = 1/r.

    No control: as ΔB₁ does not depend on s, s = r^(−0.8) gives the same exponent plus 0.2, whatever was measured.
    What would have been noticed says the power.
    """
    return [
        Finding(
            f"exponent of r in the mean first update, {way}, r = {ranks[0]} to {ranks[-1]}",
            power(0.0),
            mean_of(exponent(data, ADAM, ranks, "first", "mean", way)),
        )
        for ranks in (config.low, config.high)
        for way in WAYS
    ]


STABILITY, FACTORINGS = rank_stability.EXPERIMENT, factorings.EXPERIMENT
ON_LLAMA = "Llama and Qwen models on Tulu-3 and OpenThoughts-3, A uniform, α = 32, s = α/r"
INVARIANCE = "(α, init_A, η_A, η_B) ↦ (α/(pq), p·init_A, p·η_A, q·η_B) leaves training under Adam"
CLAIMS = [
    checked(
        "LWR-invariances",
        "Parametrization invariances",
        f"{INVARIANCE} with ε = 0 as it is.",
        r"(\alpha,\mathrm{init}_A,\eta_A,\eta_B)\sim\left(\tfrac{\alpha}{pq},\,p\,\mathrm{init}_A,\,p\,\eta_A,\,q\,\eta_B\right)",
        "Adam with ε → 0",
        "no weight decay, no clipping",
        figure="factorings",
        experiment=FACTORINGS,
    ),
    checked(
        "LWR-epsilon",
        "Parametrization invariances, the note on ε",
        f"{INVARIANCE} with ε > 0 as it is, if ε is scaled by 1/q.",
        r"\epsilon\mapsto\epsilon/q",
        "p ≠ q",
        figure="factorings",
        experiment=FACTORINGS,
        readings=(
            on_drawn_problems(
                "LWR-epsilon-each",
                "It does if A has ε/p and B has ε/q: ∇_A is scaled by 1/p and ∇_B by 1/q.",
                FACTORINGS,
            )._replace(name="each its own"),
            on_drawn_problems("LWR-epsilon-tied", "It does with ε/q where p = q.", FACTORINGS)._replace(
                name="where p = q"
            ),
        ),
    ),
    Claim(
        id="LWR-first-update",
        group="one step",
        assumptions=("B = 0 at the start", "Adam", "s = α/r"),
        source="Optimal learning rate and rank",
        evidence=(
            Evidence(
                Reading(
                    "as derived",
                    "With s = α/r the expected first update of W does not depend on the rank.",
                    STABILITY,
                    first_update,
                ),
            ),
        ),
        figure="rank_stability",
        formula=r"\mathbb{E}\left[\tfrac1r\sum_{i=1}^r \Delta_i\right] = \mathbb{E}[\Delta_1]",
        measurement="moments of the update over the rank",
    ),
    Claim(
        id="LWR-tenfold",
        group="tuning",
        assumptions=TRAINED,
        source="Optimal learning rates for LoRA vs. FullFT",
        evidence=(
            Evidence(
                Reading(
                    "as stated",
                    "The best η of LoRA is ten times that of full fine-tuning, at every rank, at α = 0.4/σ_A, where "
                    "their 32 lies on Llama-3 1B.",
                    RANKS,
                    tenfold,
                    tenfold_applies,
                )
            ),
        ),
        readings=(
            Reading(
                "at 32 itself",
                "The same at α = 32, whatever σ_A is.",
                RANKS,
                partial(tenfold, literal=True),
                partial(tenfold_applies, literal=True),
            ),
        ),
        figure="best_rate",
        formula=r"\eta^*_{\mathrm{LoRA}}\approx 10\,\eta^*_{\mathrm{FFT}}",
        measured_on=ON_LLAMA,
        measurement=SWEEPS,
    ),
    Claim(
        id="LWR-rank",
        group="tuning",
        assumptions=TRAINED,
        source="Optimal learning rate and rank",
        evidence=(
            Evidence(
                Reading(
                    "as stated",
                    "With s = α/r the best η is approximately independent of the rank, at α = 0.4/σ_A, where their 32 "
                    "lies on Llama-3 1B.",
                    RANKS,
                    without_rank,
                    several_ranks,
                )
            ),
        ),
        readings=(
            Reading(
                "at 32 itself",
                "The same at α = 32, whatever σ_A is.",
                RANKS,
                partial(without_rank, literal=True),
                partial(several_ranks, literal=True),
            ),
        ),
        figure="best_rate",
        formula=r"\eta^*(r)\propto r^0",
        measured_on=ON_LLAMA,
        measurement=SWEEPS,
    ),
    Claim(
        id="LWR-batch",
        group="tuning",
        assumptions=TRAINED,
        source="Batch size effects",
        evidence=untestable(
            "LoRA pays a larger penalty in loss than full fine-tuning as the batch grows beyond some point, "
            "whatever the rank.",
            RANKS,
            "no sweep here is over the size of the batch",
        ),
        figure="best_rate",
        measured_on=ON_LLAMA,
        measurement="none: the size of the batch is fixed",
    ),
]
