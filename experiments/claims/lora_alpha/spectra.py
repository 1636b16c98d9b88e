"""Judge the claims on the spectrum of H_LoRA at B = 0: F8c, X13 and X16.

On a problem whose matrices are not affordable both ends of every spectrum decide, each with a certificate
(`at_scale`). What is said of every draw is judged by the draw that is worst for it.
"""

from functools import partial

import numpy as np
import xarray as xr

from experiments.analysis.intervals import mean_of
from experiments.claims.lora_alpha.bounds import (
    EPS,
    Bounds,
    dense,
    distance,
    ends_of,
    not_negative,
    not_negative_by_ends,
    searched,
)
from experiments.curvature import at_scale, is_it_curvature, purification
from experiments.ledger.claim import OWN, Claim, Evidence, Reading
from experiments.ledger.verdict import FRACTION, Band, Finding, at_least, at_most, below, weakest

SEARCH = 1e-9
"""What a search to 100·√n·ε of the norm leaves open, at any n below 10⁸."""


def indefinite(config: purification.Config, data: xr.Dataset) -> list[Finding]:
    """Judge whether H_LoRA has a negative eigenvalue at every α and draw."""
    return [
        Finding(f"λmin/λmax of H_LoRA, α = {a:g}, the highest of the draws", below(0.0), x.highest)
        for a, x in ((a, dense(data.lora.sel(alpha=a))) for a in config.alphas)
    ]


def approach(data: xr.Dataset, band: Band, *, absolute: bool = False) -> Finding:
    """Judge the exponent of α in the mean distance of the spectra of H_LoRA and H_Signal, over λmax or not."""
    slopes = purification.distance_exponents(data, "absolute" if absolute else "mean")
    name = f"exponent of α in the mean distance of the two spectra{'' if absolute else ' / λmax'}"
    return Finding(name, band, mean_of(slopes))


def converges(config: purification.Config, data: xr.Dataset) -> list[Finding]:
    """Judge whether H_LoRA is indefinite at every α, and its spectrum nears H_Signal's as α grows."""
    return [*indefinite(config, data), approach(data, below(0.0))]


def leaves(config: purification.Config, data: xr.Dataset) -> list[Finding]:
    """Judge whether the distance grows, as α^0.1 or faster."""
    return [approach(data, at_least(2 * FRACTION, "two margins above 0"))]


def relative_distance(config: purification.Config, data: xr.Dataset) -> list[Finding]:
    """Judge whether the mean distance over λmax falls."""
    return [approach(data, below(0.0))]


def absolute_distance(config: purification.Config, data: xr.Dataset) -> list[Finding]:
    """Judge whether the mean distance itself falls."""
    return [approach(data, below(0.0), absolute=True)]


def purified(config: purification.Config, data: xr.Dataset) -> list[Finding]:
    """Judge whether it converges, and whether what it converges to is positive semi-definite."""
    limit = dense(data.signal.isel(alpha=-1)).lowest
    slack = 2 * data.sizes["theta_index"] * EPS
    return [*converges(config, data), not_negative("λmin/λmax of H_Signal, the limit", slack, limit)]


def both_signs(config: purification.Config, data: xr.Dataset) -> list[Finding]:
    """Judge the number of eigenvalues of either sign over r·Σ_l rank G_l, at every draw (X13).

    At the smallest α, where rounding blurs the fewest: with D = diag(I, αI) on (A, B), H_LoRA(α) = D H_LoRA(1) D at
    B = 0, and by Sylvester's law of inertia no α changes a sign.
    """
    words = (f"{sign} eigenvalues less r·Σ_l rank G_l, the lowest of the draws" for sign in ("negative", "positive"))
    found = _excess(config, data)
    return [Finding(name, _enough(0), x.lowest) for name, x in zip(words, found, strict=True)]


def both_signs_control(config: purification.Config, data: xr.Dataset) -> list[Finding]:
    """Judge whether there is one more of each sign: of the rarer one there is not, at any draw."""
    rarer = Bounds(*map(np.minimum, *_excess(config, data)))
    name = "eigenvalues of the rarer sign less r·Σ_l rank G_l"
    return weakest([Finding(name, _enough(1), x) for x in rarer.each])


def _enough(more: int) -> Band:
    return at_least(float(more), "a number of eigenvalues is whole", margin=0.5)


def _excess(config: purification.Config, data: xr.Dataset) -> list[Bounds]:
    """Eigenvalues below and above 0, less what X13 says: certain beyond n·ε·‖H‖, possible within."""
    here = data[["lora", "pairs"]].sel(alpha=config.alphas[0]).transpose("seed", "theta_index")
    x, needed = here.lora.values, here.pairs.values
    rounding = x.shape[1] * EPS * np.max(np.abs(x), axis=1, keepdims=True)
    counts = [[np.sum(sign * x > edge, axis=1) - needed for edge in (0.0, rounding, -rounding)] for sign in (-1, 1)]
    return [Bounds(*(c * 1.0 for c in each)) for each in counts]


def _bracket(config: purification.Config, data: xr.Dataset) -> list[tuple[float, xr.DataArray, xr.DataArray]]:
    """α, λmax[H_LoRA] − s·σ₁(G) and the spectrum of H_Signal."""
    return [
        (alpha, here.lora.max("theta_index") - here.drift_max, here.signal)
        for alpha, here in ((a, data.sel(alpha=a)) for a in config.alphas)
    ]


def bracketed(config: purification.Config, data: xr.Dataset) -> list[Finding]:
    """Judge λmin[H_Signal] ≤ λmax[H_LoRA] − s·σ₁(G) ≤ λmax[H_Signal] at every α and draw, over λmax[H_LoRA] (X16)."""
    found = []
    for alpha, rest, signal in _bracket(config, data):
        scale = data.lora.sel(alpha=alpha).max("theta_index")
        for end, excess in (("lower", rest - signal.min("theta_index")), ("upper", signal.max("theta_index") - rest)):
            room = (excess / scale).values
            bounds = Bounds(room, room - SEARCH, room + SEARCH)
            name = f"room of λmax[H_LoRA] to the {end} end over its size, α = {alpha:g}, the lowest of the draws"
            found.append(Finding(name, at_least(-2 * SEARCH, "0, less what a search leaves open"), bounds.lowest))
    return found


def not_added(config: purification.Config, data: xr.Dataset) -> list[Finding]:
    """Judge whether λmax[H_LoRA] is the larger of s·σ₁(G) and λmax[H_Signal], where it exceeds both."""
    found = []
    for alpha in config.alphas:
        here = data.sel(alpha=alpha)
        larger = np.maximum(here.drift_max, here.signal.max("theta_index"))
        room = (here.lora.max("theta_index") / larger - 1).values
        bounds = Bounds(room, room - SEARCH, room + SEARCH)
        band = at_most(2 * SEARCH, "0, and what a search leaves open")
        name = f"λmax[H_LoRA] over the larger of s·σ₁(G) and λmax[H_Signal], less 1, α = {alpha:g}"
        found += [Finding(name, band, x) for x in bounds.each]
    return weakest(found)


def bracketed_by_search(config: is_it_curvature.Config, data: xr.Dataset) -> list[Finding]:
    """Judge the same where both ends were searched, which leaves open how far a spectrum reaches beyond them (X16)."""
    found = []
    for alpha in config.alphas:
        here = data.sel(start="LoRA", alpha=alpha)
        top, open_ = (x.sel(operator="lora", end="max") for x in (here.whole, here.whole_reach))
        for end, side in (("lower", "min"), ("upper", "max")):
            signal, reach = (x.sel(operator="signal", end=side) for x in (here.whole, here.whole_reach))
            room = (top - here.whole_drift - signal) * (1 if end == "lower" else -1)
            ends = [(x / top).values for x in (room, room - reach - open_, room + reach + open_)]
            name = f"room of λmax[H_LoRA] to the {end} end over its size, α = {alpha:g}, the lowest of the draws"
            band = at_least(-4 * config.tolerance, "0, less what two searches leave open")
            found.append(Finding(name, band, Bounds(*ends).lowest))
    return found


def larger_by_search(config: is_it_curvature.Config, data: xr.Dataset) -> list[Finding]:
    """Judge whether λmax[H_LoRA] is 1½ times the sum of s·σ₁(G) and λmax[H_Signal], or more."""
    found = []
    for alpha in config.alphas:
        here = data.sel(start="LoRA", alpha=alpha, end="max")
        top, signal = here.whole.sel(operator="lora"), here.whole.sel(operator="signal")
        open_, reach = (here.whole_reach.sel(operator=name) for name in ("lora", "signal"))
        both = here.whole_drift + signal
        share = Bounds(*((x.values) for x in (top / both, top / (both + reach), (top + open_) / both)))
        name = f"λmax[H_LoRA] over the sum of s·σ₁(G) and λmax[H_Signal], α = {alpha:g}, the highest of the draws"
        found.append(Finding(name, at_least(1.5, "half as much again"), share.highest))
    return weakest(found)


def ends_approach(config: at_scale.Config, data: xr.Dataset) -> dict[str, Bounds]:
    """Bound by how much the distance of either end changes from the first α to the last."""
    changes, (first, *_, last) = {}, config.alphas
    for end in ("min", "max"):
        far, near = (distance(data, end, alpha) for alpha in (first, last))
        name = f"distance of λ{end} to H_Signal's over λmax, α = {last:g} less α = {first:g}"
        changes[name] = Bounds(near.value - far.value, near.low - far.high, near.high - far.low)
    return changes


def ends_converge(config: at_scale.Config, data: xr.Dataset) -> list[Finding]:
    """Judge whether H_LoRA is indefinite at every α, and its ends end up nearer to H_Signal's, at every draw."""
    found = [
        Finding(f"λmin/λmax of H_LoRA, α = {a:g}", below(0.0), searched(data, "lora", "initial", a).highest)
        for a in config.alphas
    ]
    return found + [Finding(name, below(0.0), x.highest) for name, x in ends_approach(config, data).items()]


def ends_leave(config: at_scale.Config, data: xr.Dataset) -> list[Finding]:
    """Judge whether an end ends up farther by a tenth of λmax, at the draw and end where that fails least."""
    band = at_least(2 * FRACTION, "two margins above 0")
    return weakest([Finding(name, band, x) for name, y in ends_approach(config, data).items() for x in y.each])


def ends_purified(config: at_scale.Config, data: xr.Dataset) -> list[Finding]:
    """Judge whether the ends converge, and whether what they converge to is positive semi-definite."""
    return [*ends_converge(config, data), not_negative_by_ends(config, data, "signal", "initial")]


PURIFICATION, SCALE = purification.EXPERIMENT, at_scale.EXPERIMENT
MLP = "the MLP of App. E"
SIGNAL_ENDS = partial(ends_of, ("signal", "lora"), ("initial",))
SPECTRA = "spectra of H_LoRA and H_Signal over α, B = 0"
FARTHER = "As α grows the spectrum of H_LoRA leaves that of H_Signal: its distance over λmax grows as α^0.1 or faster."
ENDS_FARTHER = "As α grows the ends of H_LoRA leave those of H_Signal, by a tenth of λmax or more."

CLAIMS = [
    Claim(
        id="F8c-purification",
        group="fixed weights",
        assumptions=("a problem as it is at initialisation",),
        source="Fig. 8c",
        formula=r"\operatorname{spec}(H_{\mathrm{LoRA}}) \to \operatorname{spec}(H_{\mathrm{Signal}}) \ge 0"
        r" \quad\text{as}\quad \alpha \to \infty",
        measured_on=MLP,
        measurement=SPECTRA,
        evidence=(
            Evidence(
                Reading(
                    "as stated",
                    "H_LoRA is indefinite; as α grows its spectrum converges to that of H_Signal, which is positive "
                    "semi-definite.",
                    PURIFICATION,
                    purified,
                ),
                Reading("control", FARTHER, PURIFICATION, leaves),
            ),
            Evidence(
                Reading(
                    "by both ends",
                    "H_LoRA is indefinite; as α grows its ends converge to those of H_Signal, which is positive "
                    "semi-definite.",
                    SCALE,
                    ends_purified,
                    SIGNAL_ENDS,
                ),
                Reading("control", ENDS_FARTHER, SCALE, ends_leave, SIGNAL_ENDS),
            ),
        ),
        readings=(
            Reading(
                "without the sign",
                "H_LoRA is indefinite; as α grows its spectrum converges to that of H_Signal, definite or not, "
                "relative to λmax.",
                PURIFICATION,
                converges,
            ),
            Reading(
                "by both ends, without the sign",
                "H_LoRA is indefinite; as α grows its ends converge to those of H_Signal, definite or not, relative "
                "to λmax.",
                SCALE,
                ends_converge,
                SIGNAL_ENDS,
            ),
            Reading(
                "relative distance",
                "Relative to λmax the mean distance of the spectra of H_LoRA and H_Signal falls as α grows.",
                PURIFICATION,
                relative_distance,
            ),
            Reading(
                "absolute distance",
                "The mean distance of the spectra of H_LoRA and H_Signal itself falls as α grows.",
                PURIFICATION,
                absolute_distance,
            ),
            Reading(
                "both signs at every α",
                "H_LoRA has at least r·Σ_l rank G_l eigenvalues of each sign at every α (X13).",
                PURIFICATION,
                both_signs,
            ),
        ),
        figure="purification",
    ),
    Claim(
        id="X13",
        group="fixed weights",
        assumptions=("B = 0", "g ≠ 0", "every A of full row rank"),
        source=OWN,
        formula=r"n_\pm(H_{\mathrm{LoRA}}) \ge r \sum_l \operatorname{rank} G_l",
        measurement=SPECTRA,
        evidence=(
            Evidence(
                Reading(
                    "as stated",
                    "At B = 0 H_LoRA has at least r·Σ_l rank G_l eigenvalues of each sign, for every H_ℓ and α "
                    "(counted at the smallest α: no α changes a sign, by Sylvester's law).",
                    PURIFICATION,
                    both_signs,
                ),
                Reading("control", "It has one more of each sign.", PURIFICATION, both_signs_control),
            ),
        ),
        figure="purification",
    ),
    Claim(
        id="X16",
        group="fixed weights",
        assumptions=("B = 0",),
        source=OWN,
        formula=r"s\,\sigma_1(G) + \lambda_{\min}[H_{\mathrm{Signal}}] \le \lambda_{\max}[H_{\mathrm{LoRA}}]"
        r" \le s\,\sigma_1(G) + \lambda_{\max}[H_{\mathrm{Signal}}]",
        measurement=SPECTRA,
        evidence=(
            Evidence(
                Reading(
                    "as stated",
                    "At B = 0 s·σ₁(G) + λmin[H_Signal] ≤ λmax[H_LoRA] ≤ s·σ₁(G) + λmax[H_Signal], σ₁(G) the largest "
                    "over layers.",
                    PURIFICATION,
                    bracketed,
                ),
                Reading(
                    "control",
                    "λmax[H_LoRA] is the larger of s·σ₁(G) and λmax[H_Signal].",
                    PURIFICATION,
                    not_added,
                ),
            ),
            Evidence(
                Reading(
                    "both ends",
                    "The same by both ends of the spectra, found by search.",
                    is_it_curvature.EXPERIMENT,
                    bracketed_by_search,
                ),
                Reading(
                    "control",
                    "λmax[H_LoRA] is 1½ times the sum of s·σ₁(G) and λmax[H_Signal], or more.",
                    is_it_curvature.EXPERIMENT,
                    larger_by_search,
                ),
            ),
        ),
        figure="purification",
    ),
]
