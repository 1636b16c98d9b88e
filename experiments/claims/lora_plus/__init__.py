"""Open this package for LoRA+, a larger learning rate for B, and for where that is a larger α (arXiv 2402.12354)."""

from functools import partial

import numpy as np
import xarray as xr

from experiments.analysis.intervals import geometric_mean_of
from experiments.claims.lora_alpha.steps import apart
from experiments.gauge import gauge_breaking, optimizer_gauge
from experiments.gauge.gauge_breaking import NAMES, NOTICED, Config
from experiments.ledger.claim import DERIVED, Claim, Evidence, Reading, Source
from experiments.ledger.verdict import Finding, at_least

SOURCE = Source(
    "lora_plus",
    "LoRA+",
    "LoRA+: Efficient Low Rank Adaptation of Large Models",
    "2024-02",
    "https://arxiv.org/abs/2402.12354",
)


def breaks(config: Config, data: xr.Dataset, everywhere: bool = False) -> list[Finding]:
    """Judge how far each of ε, weight decay and clipping drives the two apart, at the value tried that does most."""
    found = []
    for kind, name in NAMES.items():
        far = data[kind].transpose("seed", f"{kind}_value").values
        most = (np.argmin if everywhere else np.argmax)(np.median(far, axis=0))
        value = float(data[f"{kind}_value"].values[most])
        band = at_least(NOTICED, "a distance of 1% of the way is a break that matters", margin=NOTICED / 4)
        quantity = f"{name} of {value:g}: largest distance of w, over the way"
        found.append(Finding(quantity, band, geometric_mean_of(far[:, most])))
    return found


GAUGE, BREAKING = optimizer_gauge.EXPERIMENT, gauge_breaking.EXPERIMENT
CLAIMS = [
    Claim(
        id="LoRAplus-alpha",
        group="one step",
        assumptions=("Adam with ε → 0", "B = 0 at the start", "no weight decay, no clipping"),
        source=f"{DERIVED} the algorithm, η_B = λη_A",
        evidence=(
            Evidence(
                Reading(
                    "as α",
                    "LoRA+ with the ratio λ is LoRA with α×λ: from B = 0 they have one trajectory of w under Adam.",
                    GAUGE,
                    partial(apart, ("α×c ≡ η_B×c",)),
                ),
                Reading(
                    "control",
                    "It is LoRA with both rates ×λ, or with η_A×λ.",
                    GAUGE,
                    partial(apart, ("α×c vs both η×c", "α×c vs η_A×c"), least=True),
                ),
            ),
        ),
        figure="optimizer_gauge",
        formula=r"(\alpha,\eta_A,\lambda\eta_A)\sim(\lambda\alpha,\eta_A,\eta_A)",
        measurement="pairs of trajectories",
    ),
    Claim(
        id="LoRAplus-apart",
        group="one step",
        assumptions=("Adam", "B = 0 at the start"),
        source=f"{DERIVED} the algorithm, η_B = λη_A",
        evidence=(
            Evidence(
                Reading(
                    "where not",
                    "ε, weight decay and clipping each make LoRA+ with the ratio λ another method than LoRA with α×λ, "
                    "by 1% of the way and more where they are large.",
                    BREAKING,
                    breaks,
                ),
                Reading(
                    "control",
                    "Each of them does, however small it is.",
                    BREAKING,
                    partial(breaks, everywhere=True),
                ),
            ),
        ),
        figure="gauge_breaking",
        measurement="trajectories over ε, weight decay and clipping",
    ),
]
