"""Open this package for Adam's edge of stability (arXiv 2207.14484), asked of LoRA along training."""

from functools import partial

import xarray as xr

from experiments.analysis.intervals import geometric_mean_of
from experiments.dynamics import spectra_along_training
from experiments.dynamics.spectra_along_training import BETA_1, EDGE, REMOVED, Config, late, over_edge
from experiments.ledger.claim import DERIVED, Claim, Evidence, Reading, Source
from experiments.ledger.verdict import Band, Finding, at_least, equal, magnitude

SOURCE = Source(
    "edge_of_stability",
    "Edge of stability",
    "Adaptive Gradient Methods at the Edge of Stability",
    "2022-07",
    "https://arxiv.org/abs/2207.14484",
)


def largest_rate(config: Config, removed: bool = False) -> str:
    """Name the run at the largest η, with or without its drift."""
    eta = [run for run in config.runs() if run.startswith(f"{max(config.eta_multipliers):g}·η")]
    return next(run for run in eta if run.endswith(REMOVED) == removed)


def at_the_edge(
    config: Config, data: xr.Dataset, band: Band, unit: float = EDGE, removed: bool = False
) -> list[Finding]:
    """Judge λmax of the preconditioned Hessian in the second half, in `unit`/η, and whether it gets there."""
    run = largest_rate(config, removed)
    nearness = over_edge(data).sel(run=run) * EDGE / unit
    return [
        Finding(
            f"η·λmax of the preconditioned Hessian over {unit:.3g}, {run}, mean of the second half",
            band,
            geometric_mean_of(late(nearness).mean("step").values),
        ),
        Finding(
            f"the same, {run}, the highest along training",
            at_least(1.0, "the edge is reached"),
            geometric_mean_of(nearness.max("step").values),
        ),
    ]


SPECTRA = spectra_along_training.EXPERIMENT
CLAIMS = [
    Claim(
        id="EoS-Adam",
        group="training",
        assumptions=("full batch", f"Adam with β₁ = {BETA_1:g}", "an η at which the edge is reached"),
        source=f"{DERIVED} the abstract",
        evidence=(
            Evidence(
                Reading(
                    "for LoRA",
                    "Along training λmax of the preconditioned Hessian of LoRA rises to Adam’s edge, "
                    "2(1 + β₁)/((1 − β₁)η) = 38/η, and stays at its order.",
                    SPECTRA,
                    partial(at_the_edge, band=magnitude(1.0)),
                ),
                Reading(
                    "control",
                    "It stays at the order of 2/η, the edge of gradient descent.",
                    SPECTRA,
                    partial(at_the_edge, band=magnitude(1.0), unit=2.0),
                ),
            ),
        ),
        readings=(
            Reading(
                "to 5%",
                "Its mean over the second half of training is 38/η, to 5%.",
                SPECTRA,
                partial(at_the_edge, band=equal(1.0)),
            ),
            Reading(
                "without drift",
                "It does so with the drift removed.",
                SPECTRA,
                partial(at_the_edge, band=magnitude(1.0), removed=True),
            ),
        ),
        figure="spectra_along_training",
        formula=r"\lambda_{\max}[P^{-1/2}HP^{-1/2}]\to\frac{2(1+\beta_1)}{(1-\beta_1)\,\eta}",
        measured_on="networks trained in full",
        measurement="the preconditioned Hessian along training",
    ),
]
