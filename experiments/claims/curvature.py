"""Claims on signs and powers of exact spectra, and on magnitudes: P2-premise, F8c, F8d and T6."""

from functools import partial

import numpy as np
import xarray as xr

from experiments.analysis.intervals import Interval, exponents, extent, mean_interval, point
from experiments.claims.claim import Claim, Reading
from experiments.claims.verdict import Finding, above, at_least, at_most, below, equal, exactly, near, power
from experiments.curvature import asymmetric_scaling, purification, residual_curvature
from experiments.curvature.residual_curvature import LABEL, lowest_over_highest
from experiments.tuning import magnitudes

EPS = float(np.finfo(float).eps)


def _ratio(ends: xr.DataArray) -> Interval:
    return mean_interval((ends.isel(end=0) / ends.isel(end=1)).values)


def premise(config, data: xr.Dataset) -> list[Finding]:
    n = data.sizes["theta_index"]
    band = at_least(-n * EPS, "0, less n·ε of rounding")
    return [Finding("λmin/λmax of H_ℓ", band, _ratio(data.task_extremes.isel(alpha=0)))]


def mostly_negative(config, data: xr.Dataset) -> list[Finding]:
    band = at_most(-1.0, "as far below 0 as above")
    return [Finding("λmin/λmax of H_ℓ", band, _ratio(data.task_extremes.isel(alpha=0)))]


def definite(config, data: xr.Dataset, names: tuple[str, ...], state: str) -> list[Finding]:
    """λmin/λmax of the named matrices at the seed where it is lowest."""
    band = at_least(-config.tolerance, "0, less the tolerance of the eigenvalues")
    return [
        Finding(
            f"λmin/λmax of {LABEL[name]}, {state}, range over seeds",
            band,
            extent(lowest_over_highest(data, name, state)),
        )
        for name in names
    ]


def _ends(spectrum: xr.DataArray) -> xr.DataArray:
    return xr.concat([spectrum.min("theta_index"), spectrum.max("theta_index")], "end")


def converges(config, data: xr.Dataset, *, away: bool = False) -> list[Finding]:
    """H_LoRA is indefinite at every α, and its spectrum nears that of H_Signal as α grows (or leaves it)."""
    indefinite = [
        Finding(f"λmin/λmax of H_LoRA, α = {a:g}", below(0.0), _ratio(_ends(data.lora.sel(alpha=a))))
        for a in config.alphas
    ]
    gap = purification.distances(data).transpose("seed", "alpha")["mean"].values
    slope = mean_interval(exponents(np.array(config.alphas), gap))
    band = above(0.0) if away else below(0.0)
    return [*indefinite, Finding("exponent of α in the mean distance of the two spectra / λmax", band, slope)]


def purified(config, data: xr.Dataset) -> list[Finding]:
    """It converges, and what it converges to is positive semi-definite."""
    n = data.sizes["theta_index"]
    psd = at_least(-n * EPS, "0, less n·ε of rounding")
    limit = _ratio(_ends(data.signal.isel(alpha=-1)))
    return [*converges(config, data), Finding("λmin/λmax of H_Signal, the limit", psd, limit)]


def asymmetric(config, data: xr.Dataset, state: str = "initial", *, swapped: bool = False) -> list[Finding]:
    """The exponents 2 and 1 of α (or the other way round), and the alignment of the largest eigenvalues."""
    last = data.sel(state=state).isel(alpha=-1)
    ratio = mean_interval((last.lora_max / last.signal_max).values)
    signal, drift = (asymmetric_scaling.fitted(data, name, state) for name in ("signal_max", "drift_min"))
    return asymmetry(config, signal, drift, ratio, swapped=swapped)


def asymmetry(config, signal: Interval, drift: Interval, ratio: Interval, *, swapped: bool = False) -> list[Finding]:
    """Two exponents of α, and the alignment at the largest."""
    stated = (1, 2) if swapped else (2, 1)
    return [
        Finding("exponent of α in λmax[H_Signal]", power(stated[0]), signal),
        Finding("exponent of α in |λmin[H_Drift]|", power(stated[1]), drift),
        Finding(f"λmax[H_LoRA]/λmax[H_Signal], α = {config.alphas[-1]:g}", equal(1.0), ratio),
    ]


def magnitudes_stated(config, data: xr.Dataset) -> list[Finding]:
    """V1 over α = r as printed."""
    return [
        Finding(
            f"V1/(α = r), r = {r}",
            near(stated, 0.05, "printed to one decimal"),
            point(float(data.V1.sel(rank=r)) / r),
        )
        for r, stated in magnitudes.STATED.items()
    ]


def linear_in_rank(config, data: xr.Dataset) -> list[Finding]:
    return [
        Finding(f"V1/(α = r), r = {r}", exactly(config.coefficient), point(float(data.V1.sel(rank=r)) / r))
        for r in magnitudes.STATED
    ]


PURIFICATION, RESIDUAL = purification.EXPERIMENT, residual_curvature.EXPERIMENT
SCALING, MAGNITUDES = asymmetric_scaling.EXPERIMENT, magnitudes.EXPERIMENT

CLAIMS = [
    Claim(
        "P2-premise",
        ("the MLP of App. E at initialisation",),
        "the premise of Eq. 29",
        Reading("as used", "H_ℓ ⪰ 0 on the paper's own MLP.", PURIFICATION, premise),
        Reading(
            "control", "H_ℓ has as much negative curvature as positive: λmin ≤ −λmax.", PURIFICATION, mostly_negative
        ),
        (
            Reading(
                "after training",
                "H_ℓ ⪰ 0 on the MLP after 100 steps of Adam at α = 256.",
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
        figures=("purification", "residual_curvature"),
    ),
    Claim(
        "F8c-purification",
        ("the MLP of App. E at initialisation",),
        "Fig. 8c",
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
        (
            Reading(
                "without the sign",
                "H_LoRA is indefinite; as α grows its spectrum converges to that of H_Signal, definite or not.",
                PURIFICATION,
                converges,
            ),
        ),
        figures=("purification",),
    ),
    Claim(
        "F8d-asymmetry",
        ("fixed W₀ and A, B = 0",),
        "Eq. 6–7, Fig. 8d",
        Reading(
            "at initialisation",
            "λmax[H_Signal] = Θ(α²), |λmin[H_Drift]| = Θ(α), and λmax[H_LoRA]/λmax[H_Signal] → 1.",
            SCALING,
            asymmetric,
        ),
        Reading("control", "The exponents are 1 and 2.", SCALING, partial(asymmetric, swapped=True)),
        (
            Reading(
                "after training",
                "The same after training at each α, where g and H_ℓ have moved with it.",
                SCALING,
                partial(asymmetric, state="trained"),
            ),
        ),
        figures=("asymmetric_scaling",),
    ),
    Claim(
        "T6-magnitudes",
        (),
        "App. F, Table 6",
        Reading("as printed", "V1/(α = r) is 90.5 at r = 8 and 16 at r = 256.", MAGNITUDES, magnitudes_stated),
        Reading("control", "V1 is linear in r: V1/(α = r) = C at every rank.", MAGNITUDES, linear_in_rank),
        figures=("magnitudes",),
    ),
]
