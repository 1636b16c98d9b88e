"""Judge whether the best α follows the crossover of X16, a hypothesis of our own.

What kills it was stated before it was measured: over ranks α*/α_c must have an exponent in r that is 0 to one decimal,
and its geometric mean must be 1 to the order of magnitude. A rule that meets both and loses more of the loss than V2
is true and of no use; that is a reading of its own.
"""

from functools import partial

import numpy as np
import xarray as xr

from experiments.analysis.intervals import mean_of
from experiments.ledger.claim import OWN, Claim, Evidence, Reading
from experiments.ledger.verdict import Finding, at_most, magnitude, power
from experiments.tuning import crossover
from experiments.tuning.crossover import Config


def follows(config: Config, data: xr.Dataset, rule: str = "α_c") -> list[Finding]:
    """Judge the exponent of r in α*/α of the rule, and its size."""
    return [
        Finding(f"exponent of r in α*/α, {rule}", power(0.0), mean_of(crossover.exponent(data, rule))),
        Finding(f"α*/α, {rule}, geometric mean over ranks", magnitude(1.0), crossover.distance(data, rule)),
    ]


def without_rank(config: Config, data: xr.Dataset) -> list[Finding]:
    """Judge σ₁(G)/λmax[H_Signal at s = 1], which lacks the factor r."""
    alpha = data.alpha.copy(deep=True)
    alpha.loc[{"rule": "α_c"}] = data.alpha.sel(rule="α_c") / data["rank"]
    return follows(config, data.assign(alpha=alpha))


def loses_less(config: Config, data: xr.Dataset, other: str) -> list[Finding]:
    """Compare the loss lost by α_c with that by another rule, paired by seed."""
    gap = crossover.lost(data, "α_c") - crossover.lost(data, other)
    band = at_most(0.0, "it loses no more", margin=float(np.log(1.05)))
    return [Finding(f"ln loss lost by α_c, less that lost by {other}", band, mean_of(gap))]


CLAIMS = [
    Claim(
        id="X16-best-alpha",
        group="tuning",
        assumptions=("B = 0 at the start", "η = η_FFT"),
        source=OWN,
        formula=r"\alpha^*(r) = \alpha_c = r\,\sigma_1(G)\,/\,\lambda_{\max}[H_{\mathrm{Signal}}]_{s=1}",
        evidence=(
            Evidence(
                Reading(
                    "as stated",
                    "At η_FFT the best α is, at every rank and to the order of magnitude, the α_c at which s·σ₁(G) and "
                    "λmax[H_Signal] are equal at the start.",
                    crossover.EXPERIMENT,
                    follows,
                ),
                Reading("control", "It is α_c/r.", crossover.EXPERIMENT, without_rank),
            ),
        ),
        readings=(
            *(
                Reading(
                    f"no worse than {other}",
                    f"α_c loses no more of the loss than {other}, whatever the best α is.",
                    crossover.EXPERIMENT,
                    partial(loses_less, other=other),
                )
                for other in ("V2", "V1", "first step", "α = r")
            ),
        ),
        figure="crossover",
        measurement="best α at η_FFT over ranks, beside λmax at the start",
    ),
]
