"""Judge F8d: the powers of α in the extremes of H_Signal and H_Drift, and how λmax of H_LoRA follows."""

from functools import partial

import numpy as np
import xarray as xr

from experiments.analysis.intervals import Estimate, certified_between, exponents, geometric_mean_of, mean_of
from experiments.claims.lora_alpha.bounds import distance, ends_of
from experiments.curvature import asymmetric_scaling, at_scale
from experiments.ledger.claim import Claim, Evidence, Reading
from experiments.ledger.verdict import EXPONENT, FRACTION, Finding, at_most, equal, power, weakest

STATED = {"signal": 2.0, "drift": 1.0}
"""The exponents of α that the paper states."""
SHIFTED = {"signal": 2.0 - 2 * EXPONENT, "drift": 1.0 + 2 * EXPONENT}
"""Those of a wrong law, two margins off."""
NAMES = {"signal": "exponent of α in λmax[H_Signal]", "drift": "exponent of α in |λmin[H_Drift]|"}


def _powers(found: dict[str, Estimate], stated: dict[str, float]) -> list[Finding]:
    return [Finding(NAMES[k], power(stated[k]), x) for k, x in found.items()]


def _fitted(config: asymmetric_scaling.Config, data: xr.Dataset, state: str) -> dict[str, Estimate]:
    """The exponent of α in both extremes, the mean over seeds."""
    here, columns = (
        data.sel(state=state).transpose("seed", "alpha", ...),
        {"signal": "signal_max", "drift": "drift_min"},
    )
    return {k: mean_of(exponents(np.array(config.alphas), here[column].values)) for k, column in columns.items()}


def asymmetric(config: asymmetric_scaling.Config, data: xr.Dataset, state: str = "initial") -> list[Finding]:
    """Judge the exponents 2 and 1 of α, and the alignment of the largest eigenvalues."""
    last = data.sel(state=state).isel(alpha=-1)
    ratio = geometric_mean_of((last.lora_max / last.signal_max).values)
    aligned = Finding(f"λmax[H_LoRA]/λmax[H_Signal], α = {config.alphas[-1]:g}", equal(1.0), ratio)
    return [*_powers(_fitted(config, data, state), STATED), aligned]


def asymmetric_control(config: asymmetric_scaling.Config, data: xr.Dataset) -> list[Finding]:
    """Judge the exponents 1.8 and 1.2 by the weaker of both."""
    return weakest(_powers(_fitted(config, data, "initial"), SHIFTED))


def positive(config: asymmetric_scaling.Config, data: xr.Dataset, state: str = "initial") -> str:
    """Say why there is no power of α: an extreme eigenvalue that is not known or has the other sign."""
    here = data.sel(state=state)
    missing = [k for k in ("signal_max", "drift_min", "lora_max") if not (here[k] > 0).all()]
    plain = ", ".join(asymmetric_scaling.PLAIN[k] for k in missing)
    return f"{plain} is not known to be above 0 at every α and draw: it has no power of α" if missing else ""


def _exponents_by_ends(config: at_scale.Config, data: xr.Dataset) -> dict[str, Estimate]:
    """The exponents of α in these ends at B = 0, between bounds that hold at every draw."""
    ends = {"signal": "max", "drift": "min"}
    return {k: certified_between(*at_scale.exponent(data, k, end), "certified bounds") for k, end in ends.items()}


def ends_asymmetric(config: at_scale.Config, data: xr.Dataset) -> list[Finding]:
    """Judge these exponents and this alignment by certified ends at B = 0."""
    name = f"|λmax[H_LoRA]/λmax[H_Signal] − 1|, α = {config.alphas[-1]:g}, the highest of the draws"
    apart = distance(data, "max", config.alphas[-1]).highest
    aligned = Finding(name, at_most(FRACTION, f"an equality of averages: ±{FRACTION:.0%}"), apart)
    return [*_powers(_exponents_by_ends(config, data), STATED), aligned]


def ends_asymmetric_control(config: at_scale.Config, data: xr.Dataset) -> list[Finding]:
    """Judge the exponents 1.8 and 1.2 by the weaker of both."""
    return weakest(_powers(_exponents_by_ends(config, data), SHIFTED))


SCALING, SCALE = asymmetric_scaling.EXPERIMENT, at_scale.EXPERIMENT
POWER_ENDS = partial(ends_of, ("signal", "drift", "lora"), ("initial",))
POWERS_OF_ALPHA = "powers of α in H_Signal and H_Drift, B = 0"
SHIFTED_LAW = "λmax[H_Signal] = Θ(α^1.8) and |λmin[H_Drift]| = Θ(α^1.2)."

CLAIMS = [
    Claim(
        id="F8d-asymmetry",
        group="fixed weights",
        assumptions=("fixed W₀ and A, B = 0",),
        source="Eq. 6–7, Fig. 8d",
        formula=r"\lambda_{\max}[H_{\mathrm{Signal}}] = \Theta(\alpha^2),\;"
        r" |\lambda_{\min}[H_{\mathrm{Drift}}]| = \Theta(\alpha),\;"
        r" \lambda_{\max}[H_{\mathrm{LoRA}}] / \lambda_{\max}[H_{\mathrm{Signal}}] \to 1",
        measured_on="the MLP of App. E",
        measurement=POWERS_OF_ALPHA,
        evidence=(
            Evidence(
                Reading(
                    "at initialisation",
                    "λmax[H_Signal] = Θ(α²), |λmin[H_Drift]| = Θ(α), and λmax[H_LoRA]/λmax[H_Signal] → 1.",
                    SCALING,
                    asymmetric,
                    positive,
                ),
                Reading("control", SHIFTED_LAW, SCALING, asymmetric_control, positive),
            ),
            Evidence(
                Reading(
                    "by certified ends",
                    "λmax[H_Signal] = Θ(α²), |λmin[H_Drift]| = Θ(α), and λmax[H_LoRA]/λmax[H_Signal] → 1.",
                    SCALE,
                    ends_asymmetric,
                    POWER_ENDS,
                ),
                Reading("control", SHIFTED_LAW, SCALE, ends_asymmetric_control, POWER_ENDS),
            ),
        ),
        readings=(
            Reading(
                "after training",
                "The same after training at each α, where g and H_ℓ have moved with it.",
                SCALING,
                partial(asymmetric, state="trained"),
                partial(positive, state="trained"),
            ),
        ),
        figure="asymmetric_scaling",
    ),
]
