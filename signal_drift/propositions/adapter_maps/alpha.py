"""Checks the degree of H_Signal and H_Drift in α of every adapter map that has one, with w(θ) held fixed."""

import numpy as np

from signal_drift.propositions.adapter_maps.subject import SCALED, MapInstance
from signal_drift.propositions.check import TOWARDS, Check, largest, relative, rounding, spoiled, worst


def map_has_a_degree_in_alpha(x: MapInstance, factor: float = 2.0) -> Check:
    """Check that H_Signal(cα) = D H_Signal(α) D and H_Drift(cα) = c H_Drift(α) with w(θ) held fixed.

    As P4-landscape, with g and H_ℓ the same at both α. D = c·I, as α multiplies all that θ adds to W₀: the degrees are
    2 and 1. DoRA holds V fixed and has 1 in the place of c for m, which α does not multiply; its drift has terms of
    both degrees and none is claimed.
    """
    scaled = x.kind in SCALED
    there = x.rescaled(factor).dense if scaled else x.dense
    D = np.array([1.0 if x.kind == "dora" and i == 2 else factor for i in _factor_numbers(x)])
    predicted = D[:, None] * x.dense["signal"] * D
    sizes = factor**2 * x.hessian_scale, factor * largest(x.dense["drift"]) + x.hessian_scale
    gaps = [relative(there["signal"] - predicted, sizes[0])]
    if x.kind != "dora":
        gaps.append(relative(there["drift"] - factor * x.dense["drift"], sizes[1]))
    tolerance = rounding(len(x.dense["task"]), 1.0)
    straight = spoiled(predicted, factor * x.dense["signal"], tolerance.value * sizes[0])
    return Check.bound(
        "P4-landscape",
        "at fixed w H_Signal is quadratic in α and H_Drift linear (relative to the size of their terms)",
        worst(*gaps),
        tolerance,
        control=(f"{TOWARDS}H_Signal is linear too", relative(there["signal"] - straight, sizes[0])),
        assumptions={**x.sloped, "there is an α": scaled},
    )


def _factor_numbers(x: MapInstance) -> np.ndarray:
    return np.concatenate([np.full(f.size, i) for y in x.layers for i, f in enumerate(y.factors)])
