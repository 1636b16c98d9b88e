"""Open this package for rsLoRA: the one power of the rank in s that keeps an adapter stable (arXiv 2312.03732)."""

from collections.abc import Sequence
from functools import partial

import xarray as xr

from experiments.analysis.intervals import mean_of
from experiments.gauge import rank_stability
from experiments.gauge.rank_stability import WAYS, Config, exponent
from experiments.ledger.claim import Claim, Evidence, Reading, Source
from experiments.ledger.verdict import EXPONENT, Finding, above, below, power

SOURCE = Source(
    "rslora",
    "rsLoRA",
    "A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA",
    "2023-12",
    "https://arxiv.org/abs/2312.03732",
)
STEPS = ("first", "last")
STABLE = "0.5"


def is_kept(
    config: Config,
    data: xr.Dataset,
    family: str = STABLE,
    moment: str = "mean",
    steps: Sequence[str] = STEPS,
    low: bool = False,
) -> list[Finding]:
    """Judge whether the exponent of r in what an adapter gives and passes back is 0, at ranks above or below d_in."""
    ranks = config.low if low else config.high
    return [
        Finding(
            f"exponent of r, s = r^(−{family}), {moment}, {way}, {step} step, r = {ranks[0]} to {ranks[-1]}",
            power(0.0),
            mean_of(exponent(data, family, ranks, step, moment, way)),
        )
        for step in steps
        for way in WAYS
    ]


def is_kept_by_the_root_alone(config: Config, data: xr.Dataset) -> list[Finding]:
    """Judge "if and only if": kept by s = 1/√r, rising for a larger power of r and falling for a smaller."""
    others = [p for p in config.powers if f"{p:g}" != STABLE]
    bands = {p: above(EXPONENT) if p < float(STABLE) else below(-EXPONENT) for p in others}
    return [
        *is_kept(config, data),
        *(
            Finding(
                f"exponent of r, s = r^(−{p:g}), mean, {way}, first step, r = {config.high[0]} to {config.high[-1]}",
                band,
                mean_of(exponent(data, f"{p:g}", config.high, "first", "mean", way)),
            )
            for p, band in bands.items()
            for way in WAYS
        ),
    ]


RANKS = rank_stability.EXPERIMENT
CLAIMS = [
    Claim(
        id="rsLoRA-stability",
        group="fixed weights",
        assumptions=(
            "B = 0 at the start",
            "A_ij independent, mean 0, a variance without r",
            "gradient descent",
            "r ≫ d",
        ),
        source="Def. 3.1, Theorem 3.2",
        evidence=(
            Evidence(
                Reading(
                    "as proved",
                    "In expectation over A, the output of an adapter and the gradient that goes back through it are "
                    "Θ(1) in r along training if and only if s = Θ(1/√r).",
                    RANKS,
                    is_kept_by_the_root_alone,
                ),
                Reading(
                    "control",
                    "They are Θ(1) for s = r^(−0.6).",
                    RANKS,
                    partial(is_kept, family="0.6", steps=("first",)),
                ),
            ),
        ),
        readings=(
            Reading(
                "root mean square, r ≫ d",
                "What a single draw of A has is Θ(1) in r for s = 1/√r, at ranks far above d.",
                RANKS,
                partial(is_kept, moment="rms"),
            ),
            Reading(
                "first step, r < d",
                "In expectation over A they are Θ(1) after the first step for s = 1/√r, at ranks below d too.",
                RANKS,
                partial(is_kept, steps=("first",), low=True),
            ),
            Reading(
                "root mean square, r < d",
                "What a single draw of A has is Θ(1) in r for s = 1/√r, at ranks below d, where adapters are used.",
                RANKS,
                partial(is_kept, moment="rms", steps=("first",), low=True),
            ),
        ),
        figure="rank_stability",
        formula=r"\mathbb{E}_A[s\,BA] = -s^2 r\,\sigma_A^2\,\eta\sum_k v_k x_k^\top + O(s^3 r)",
        measured_on="a theorem on one adapter, for r → ∞",
        measurement="moments of the update over the rank",
    ),
]
