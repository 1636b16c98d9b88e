"""The same claims on a transformer that reads real digits, and on the MLP at d = 256: more readings of each."""

import xarray as xr

from experiments.analysis.intervals import mean_interval
from experiments.claims.claim import Reading
from experiments.claims.curvature import EPS, asymmetric, asymmetry
from experiments.claims.traces import largest_score
from experiments.claims.verdict import Finding, at_least
from experiments.curvature import at_scale as spectra_at_scale
from experiments.curvature import transformer_curvature, transformer_scaling

NAME, LARGE = "on a transformer", "at d = 256"


def trace_law(config, data: xr.Dataset) -> list[Finding]:
    """In standard errors alone: the trace of H_ℓ may be near 0 there, and a ratio to it means nothing."""
    return [largest_score(transformer_curvature.z_scores(data))]


def premise(config, data: xr.Dataset) -> list[Finding]:
    band = at_least(-1e4 * EPS, "0, less rounding: n is below 10⁴")
    found = transformer_curvature.estimates(data)
    return [Finding(name, band, found[name]) for name in found if name.startswith("λmin")]


def premise_at_scale(config, data: xr.Dataset) -> list[Finding]:
    ratio = mean_interval(spectra_at_scale.lowest_over_highest(data, "task").isel(alpha=0).values)
    return [Finding("λmin/λmax of H_ℓ", at_least(-config.tolerance, "0, less the tolerance of the eigenvalues"), ratio)]


def asymmetric_at_scale(config, data: xr.Dataset) -> list[Finding]:
    last = data.ends.sel(end="max").isel(alpha=-1)
    ratio = mean_interval((last.sel(operator="lora") / last.sel(operator="signal")).values)
    signal, drift = (spectra_at_scale.exponent(config, data, *end) for end in (("signal", "max"), ("drift", "min")))
    return asymmetry(config, signal, drift, ratio)


SCALE = spectra_at_scale.EXPERIMENT

ON_TRANSFORMER = {
    "P3-trace": Reading(
        NAME, "E[Tr H_Signal] = Σ_l s²rσ_l² Tr H_ℓ of the layer's block.", transformer_curvature.EXPERIMENT, trace_law
    ),
    "P2-premise": Reading(
        NAME, "H_ℓ ⪰ 0 on a transformer, before and after training.", transformer_curvature.EXPERIMENT, premise
    ),
    "F8d-asymmetry": Reading(
        NAME,
        "On a transformer at B = 0: λmax[H_Signal] = Θ(α²), |λmin[H_Drift]| = Θ(α), λmax[H_LoRA]/λmax[H_Signal] → 1.",
        transformer_scaling.EXPERIMENT,
        asymmetric,
    ),
}

AT_SCALE = {
    "P2-premise": Reading(LARGE, "H_ℓ ⪰ 0 on the MLP at d = 256, at initialisation.", SCALE, premise_at_scale),
    "F8d-asymmetry": Reading(
        LARGE,
        "At d = 256: λmax[H_Signal] = Θ(α²), |λmin[H_Drift]| = Θ(α), λmax[H_LoRA]/λmax[H_Signal] → 1.",
        SCALE,
        asymmetric_at_scale,
    ),
}


def readings(claim: str) -> list[Reading]:
    return [here[claim] for here in (AT_SCALE, ON_TRANSFORMER) if claim in here]
