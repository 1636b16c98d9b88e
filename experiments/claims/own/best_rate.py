"""Judge which sharpness at the start the best η follows over α: a rule in use, held against our sweeps.

The criterion is that of X16-best-alpha: an exponent of α in η*·sharpness that is 0 to one decimal. Much is known before
it is measured: by X16 λmax[H_LoRA] grows at least as α where the drift is all of it, λ_c along Adam's first step grows
as α exactly, and F1a has the exponent of η* on the same grids. So the rule is judged by its use as well: it must lose
less of the loss than one η for every α.
"""

from functools import partial

import numpy as np
import xarray as xr

from experiments.analysis.intervals import mean_of
from experiments.ledger.claim import OWN, Claim, Evidence, Reading
from experiments.ledger.verdict import Finding, at_most, power
from experiments.tuning import rate_rules
from experiments.tuning.rate_rules import Config

FIRST_STEP = "1/λ_c, Adam's first step"


def follows(config: Config, data: xr.Dataset, rule: str) -> list[Finding]:
    """Judge the exponent of α in η*·sharpness."""
    return [Finding(f"exponent of α in η*/η, η by {rule}", power(0.0), mean_of(rate_rules.exponent(data, rule)))]


def of_use(config: Config, data: xr.Dataset, rule: str) -> list[Finding]:
    """Compare the loss lost by a rule with that by one η for all α, paired by seed."""
    gap = rate_rules.lost(data, rule) - rate_rules.lost(data, "constant")
    band = at_most(0.0, "it loses no more", margin=float(np.log(1.05)))
    return [Finding(f"ln loss lost by {rule}, less that lost by one η for all α", band, mean_of(gap))]


CLAIMS = [
    Claim(
        id="X20-best-rate",
        group="tuning",
        assumptions=("B = 0 at the start", "Adam"),
        source=OWN,
        formula=r"\eta^*(\alpha) \propto 1/\lambda_{\max}[H_{\mathrm{LoRA}}(\alpha)]",
        evidence=(
            Evidence(
                Reading(
                    "as stated",
                    "Over α the best η is inversely proportional to λmax[H_LoRA] at the start, to one decimal of the "
                    "exponent: the rule by which arXiv 2602.04998 explains the best η of variants of LoRA.",
                    rate_rules.EXPERIMENT,
                    partial(follows, rule="1/λmax[H_LoRA]"),
                ),
                Reading(
                    "control",
                    "It does not depend on α.",
                    rate_rules.EXPERIMENT,
                    partial(follows, rule="constant"),
                ),
            ),
        ),
        readings=(
            Reading(
                "of use",
                "The rule loses no more of the loss than one η for all α, each with the constant that loses least.",
                rate_rules.EXPERIMENT,
                partial(of_use, rule="1/λmax[H_LoRA]"),
            ),
            Reading(
                "critical sharpness",
                "It is inversely proportional to λ_c along Adam's first step, which at B = 0 is proportional to α.",
                rate_rules.EXPERIMENT,
                partial(follows, rule=FIRST_STEP),
            ),
            Reading(
                "critical sharpness, of use",
                "1/λ_c along Adam's first step loses no more of the loss than one η for all α.",
                rate_rules.EXPERIMENT,
                partial(of_use, rule=FIRST_STEP),
            ),
        ),
        figure="rate_rules",
        measurement="best η over α, beside sharpness at the start",
    ),
]
