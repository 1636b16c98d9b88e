"""Judge the claims on signs and powers of exact spectra: P2-premise, F8c and F8d.

On a problem whose matrices are not affordable both ends of every spectrum decide, each with a certificate
(`at_scale`): their intervals are what the searches leave open, at every seed.
"""

from functools import partial

import numpy as np
import xarray as xr

from experiments.analysis.ends import PLAIN, STATES, lowest_over_highest
from experiments.analysis.intervals import Interval, exponents, extent, mean_interval
from experiments.curvature import asymmetric_scaling, at_scale, purification, residual_curvature
from experiments.curvature.residual_curvature import LABEL
from experiments.ledger.claim import Claim, Evidence, Reading
from experiments.ledger.verdict import FRACTION, Finding, above, at_least, at_most, below, equal, power

EPS = float(np.finfo(float).eps)


def _ratio(ends: xr.DataArray) -> Interval:
    return mean_interval((ends.isel(end=0) / ends.isel(end=1)).values)


def premise(config: purification.Config, data: xr.Dataset) -> list[Finding]:
    """Hold λmin of H_ℓ against 0, at B = 0."""
    n = data.sizes["theta_index"]
    band = at_least(-n * EPS, "0, less n·ε of rounding")
    return [Finding("λmin/λmax of H_ℓ", band, _ratio(data.task_extremes.isel(alpha=0)))]


def mostly_negative(config: purification.Config, data: xr.Dataset) -> list[Finding]:
    """Hold λmin of H_ℓ against −λmax."""
    band = at_most(-1.0, "as far below 0 as above")
    return [Finding("λmin/λmax of H_ℓ", band, _ratio(data.task_extremes.isel(alpha=0)))]


def definite(config: residual_curvature.Config, data: xr.Dataset, names: tuple[str, ...], state: str) -> list[Finding]:
    """Hold λmin/λmax of the named matrices against 0, at the seed where it is lowest."""
    band = at_least(-config.tolerance, "0, less the tolerance of the eigenvalues")
    return [
        Finding(
            f"λmin/λmax of {LABEL[name]}, {state}, range over seeds",
            band,
            extent(lowest_over_highest(data[name].sel(state=state)).values),
        )
        for name in names
    ]


def premise_by_ends(config: at_scale.Config, data: xr.Dataset) -> list[Finding]:
    """Hold λmin of H_ℓ against 0, at B = 0 and after training."""
    return [_sign(config, data, "task", state) for state in STATES]


def mostly_negative_by_ends(config: at_scale.Config, data: xr.Dataset) -> list[Finding]:
    """Hold λmin of H_ℓ against −λmax in both states."""
    band = at_most(-1.0, "as far below 0 as above")
    return [_sign(config, data, "task", state)._replace(band=band) for state in STATES]


def _sign(config: at_scale.Config, data: xr.Dataset, operator: str, state: str) -> Finding:
    band = at_least(-1e8 * EPS, "0, less rounding: n is below 10⁸")
    ratio = at_scale.lowest(data, operator, config.alpha, state)
    return Finding(f"λmin/λmax of {PLAIN[operator]}, {state}", band, ratio)


def _ends(spectrum: xr.DataArray) -> xr.DataArray:
    return xr.concat([spectrum.min("theta_index"), spectrum.max("theta_index")], "end")


def converges(config: purification.Config, data: xr.Dataset, *, away: bool = False) -> list[Finding]:
    """Judge whether H_LoRA is indefinite at every α, and its spectrum nears (or leaves) H_Signal's as α grows."""
    indefinite = [
        Finding(f"λmin/λmax of H_LoRA, α = {a:g}", below(0.0), _ratio(_ends(data.lora.sel(alpha=a))))
        for a in config.alphas
    ]
    gap = purification.distances(data).transpose("seed", "alpha")["mean"].values
    slope = mean_interval(exponents(np.array(config.alphas), gap))
    band = above(0.0) if away else below(0.0)
    return [*indefinite, Finding("exponent of α in the mean distance of the two spectra / λmax", band, slope)]


def purified(config: purification.Config, data: xr.Dataset) -> list[Finding]:
    """Judge whether it converges, and whether what it converges to is positive semi-definite."""
    n = data.sizes["theta_index"]
    psd = at_least(-n * EPS, "0, less n·ε of rounding")
    limit = _ratio(_ends(data.signal.isel(alpha=-1)))
    return [*converges(config, data), Finding("λmin/λmax of H_Signal, the limit", psd, limit)]


def ends_converge(config: at_scale.Config, data: xr.Dataset, *, away: bool = False) -> list[Finding]:
    """Judge whether H_LoRA is indefinite at every α, and its ends end up nearer to H_Signal's, or farther `away`."""
    found, (first, *_, last) = [], config.alphas
    for alpha in config.alphas:
        found.append(Finding(f"λmin/λmax of H_LoRA, α = {alpha:g}", below(0.0), at_scale.lowest(data, "lora", alpha)))
    for end in ("min", "max"):
        far, near = (at_scale.end_distance(data, end, alpha) for alpha in (first, last))
        change = Interval(near.mean - far.mean, near.low - far.high, near.high - far.low)
        name = f"distance of λ{end} to H_Signal's over λmax, α = {last:g} less α = {first:g}"
        found.append(Finding(name, above(0.0) if away else below(0.0), change))
    return found


def ends_purified(config: at_scale.Config, data: xr.Dataset) -> list[Finding]:
    """Judge whether the ends converge, and whether what they converge to is positive semi-definite."""
    limit = _sign(config, data, "signal", "initial")
    return [*ends_converge(config, data), limit._replace(quantity="λmin/λmax of H_Signal, the limit")]


def asymmetric(
    config: asymmetric_scaling.Config, data: xr.Dataset, state: str = "initial", *, swapped: bool = False
) -> list[Finding]:
    """Judge the exponents 2 and 1 of α (or the other way round), and the alignment of the largest eigenvalues."""
    last = data.sel(state=state).isel(alpha=-1)
    ratio = mean_interval((last.lora_max / last.signal_max).values)
    signal, drift = (asymmetric_scaling.fitted(data, name, state) for name in ("signal_max", "drift_min"))
    aligned = Finding(f"λmax[H_LoRA]/λmax[H_Signal], α = {config.alphas[-1]:g}", equal(1.0), ratio)
    return [*_powers(signal, drift, swapped), aligned]


def ends_asymmetric(config: at_scale.Config, data: xr.Dataset, *, swapped: bool = False) -> list[Finding]:
    """Judge these exponents and this alignment by certified ends at B = 0."""
    signal, drift = (at_scale.exponent(data, *end) for end in (("signal", "max"), ("drift", "min")))
    apart = at_scale.end_distance(data, "max", config.alphas[-1])
    name = f"|λmax[H_LoRA]/λmax[H_Signal] − 1|, α = {config.alphas[-1]:g}"
    aligned = Finding(name, at_most(FRACTION, f"an equality of averages: ±{FRACTION:.0%}"), apart)
    return [*_powers(signal, drift, swapped), aligned]


def _powers(signal: Interval, drift: Interval, swapped: bool) -> list[Finding]:
    """The two exponents of α."""
    stated = (1, 2) if swapped else (2, 1)
    return [
        Finding("exponent of α in λmax[H_Signal]", power(stated[0]), signal),
        Finding("exponent of α in |λmin[H_Drift]|", power(stated[1]), drift),
    ]


PURIFICATION, RESIDUAL = purification.EXPERIMENT, residual_curvature.EXPERIMENT
SCALING, SCALE = asymmetric_scaling.EXPERIMENT, at_scale.EXPERIMENT

CLAIMS = [
    Claim(
        "P2-premise",
        ("a problem as it is at initialisation",),
        "the premise of Eq. 29",
        (
            Evidence(
                Reading("as used", "H_ℓ ⪰ 0 on the paper's own MLP.", PURIFICATION, premise),
                Reading(
                    "control",
                    "H_ℓ has as much negative curvature as positive: λmin ≤ −λmax.",
                    PURIFICATION,
                    mostly_negative,
                ),
            ),
            Evidence(
                Reading("by both ends", "H_ℓ ⪰ 0, before and after training.", SCALE, premise_by_ends),
                Reading(
                    "control",
                    "H_ℓ has as much negative curvature as positive: λmin ≤ −λmax.",
                    SCALE,
                    mostly_negative_by_ends,
                ),
            ),
        ),
        readings=(
            Reading(
                "after training",
                "H_ℓ ⪰ 0 after 100 steps of Adam at α = 256.",
                RESIDUAL,
                partial(definite, names=("task",), state="trained"),
            ),
            Reading(
                "Gauss–Newton",
                "G ⪰ 0 and JᵀGJ ⪰ 0 with the Gauss–Newton matrix G in place of H_ℓ.",
                RESIDUAL,
                partial(definite, names=("G", "G_signal"), state="initial"),
            ),
        ),
        figures=("purification", "residual_curvature", "spectra_at_scale"),
    ),
    Claim(
        "F8c-purification",
        ("a problem as it is at initialisation",),
        "Fig. 8c",
        (
            Evidence(
                Reading(
                    "as stated",
                    "H_LoRA is indefinite; as α grows its spectrum converges to that of H_Signal, which is positive "
                    "semi-definite.",
                    PURIFICATION,
                    purified,
                ),
                Reading(
                    "control",
                    "As α grows the spectrum of H_LoRA leaves that of H_Signal.",
                    PURIFICATION,
                    partial(converges, away=True),
                ),
            ),
            Evidence(
                Reading(
                    "by both ends",
                    "H_LoRA is indefinite; as α grows its ends converge to those of H_Signal, which is positive "
                    "semi-definite.",
                    SCALE,
                    ends_purified,
                ),
                Reading(
                    "control",
                    "As α grows the ends of H_LoRA leave those of H_Signal.",
                    SCALE,
                    partial(ends_converge, away=True),
                ),
            ),
        ),
        readings=(
            Reading(
                "without the sign",
                "H_LoRA is indefinite; as α grows its spectrum converges to that of H_Signal, definite or not.",
                PURIFICATION,
                converges,
            ),
            Reading(
                "by both ends, without the sign",
                "H_LoRA is indefinite; as α grows its ends converge to those of H_Signal, definite or not.",
                SCALE,
                ends_converge,
            ),
        ),
        figures=("purification", "spectra_at_scale"),
    ),
    Claim(
        "F8d-asymmetry",
        ("fixed W₀ and A, B = 0",),
        "Eq. 6–7, Fig. 8d",
        (
            Evidence(
                Reading(
                    "at initialisation",
                    "λmax[H_Signal] = Θ(α²), |λmin[H_Drift]| = Θ(α), and λmax[H_LoRA]/λmax[H_Signal] → 1.",
                    SCALING,
                    asymmetric,
                ),
                Reading("control", "The exponents are 1 and 2.", SCALING, partial(asymmetric, swapped=True)),
            ),
            Evidence(
                Reading(
                    "by certified ends",
                    "λmax[H_Signal] = Θ(α²), |λmin[H_Drift]| = Θ(α), and λmax[H_LoRA]/λmax[H_Signal] → 1.",
                    SCALE,
                    ends_asymmetric,
                ),
                Reading("control", "The exponents are 1 and 2.", SCALE, partial(ends_asymmetric, swapped=True)),
            ),
        ),
        readings=(
            Reading(
                "after training",
                "The same after training at each α, where g and H_ℓ have moved with it.",
                SCALING,
                partial(asymmetric, state="trained"),
            ),
        ),
        figures=("asymmetric_scaling", "spectra_at_scale"),
    ),
]
