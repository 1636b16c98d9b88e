"""The same claims on a transformer that reads real digits: one more reading each."""

from functools import partial

import numpy as np
import xarray as xr

from experiments import (
    transformer_curvature,
    transformer_dynamics,
    transformer_scaling,
    transformer_updates,
)
from experiments.claim import Reading
from experiments.claims.hessians import EPS, asymmetric
from experiments.claims.steps import SCALES, depends_on_alpha, scaling_of
from experiments.claims.trajectories import purer
from experiments.spectral_suppression import largest_normal
from experiments.verdict import Band, Finding, at_least, point

NAME = "on a transformer"


def trace_law(config, data: xr.Dataset) -> list[Finding]:
    """In standard errors alone: the trace of H_ℓ may be near 0 there, and a ratio to it means nothing."""
    z = transformer_curvature.z_scores(data)
    why = f"the largest of {z.size} standard normal absolute values exceeds it in 5% of all cases"
    band = Band(0.0, largest_normal(z.size), why)
    return [Finding(f"largest |z| of {z.size} (seed, rank) means", band, point(np.max(abs(z))))]


def premise(config, data: xr.Dataset) -> list[Finding]:
    band = at_least(-1e4 * EPS, "0, less rounding: n is below 10⁴")
    found = transformer_curvature.estimates(data)
    return [Finding(name, band, found[name]) for name in found if name.startswith("λmin")]


READINGS = {
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
    "F2c-purity": Reading(
        NAME,
        "On a transformer α-scaling has the higher signal-to-drift ratio in the geometric mean over the steps.",
        transformer_dynamics.EXPERIMENT,
        purer,
    ),
    "P4-update": Reading(
        NAME,
        f"{SCALES}, in one step of Adam on a transformer.",
        transformer_updates.EXPERIMENT,
        partial(scaling_of, "Adam"),
    ),
    "A1-sgd": Reading(
        NAME,
        "Under gradient descent on a transformer the signal-to-drift ratio falls as α grows.",
        transformer_updates.EXPERIMENT,
        depends_on_alpha,
    ),
}
