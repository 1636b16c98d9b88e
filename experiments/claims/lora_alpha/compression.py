"""Judge F8a: the spectrum of H_Signal as a compressed H_ℓ, by its largest eigenvalue and its trace, at B = 0."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from experiments.analysis.intervals import Estimate, certified_between, geometric_mean_of, mean_of
from experiments.claims.lora_alpha.traces import AT_START, LAYERS, MLP, SUPPRESSION
from experiments.curvature import layers, suppression
from experiments.ledger.claim import Claim, Evidence, Reading
from experiments.ledger.verdict import MAGNITUDE, Finding, below, magnitude, weakest

TENFOLD = MAGNITUDE**2
"""A law that is two margins off one that is asked to hold in order of magnitude."""
LAYER_RATIO = "λmax[H_Signal]/(rs²σ_A²λmax[H_ℓ]) of a layer"


def _sizes(data: xr.Dataset, factor: float) -> list[Finding]:
    """λmax, and the trace where it lies away from 0 (`suppression.spectral_ratios`), over `factor` times the law."""
    ratios = suppression.spectral_ratios(data)
    means = {"λmax": geometric_mean_of, "Tr": mean_of}
    return [
        Finding(f"{name} H_Signal / (α²σ_A²/r · {name} H_ℓ)", magnitude(1.0), mean(ratios[name] / factor))
        for name, mean in means.items()
        if name in ratios
    ]


def suppressed(config: suppression.Config, data: xr.Dataset) -> list[Finding]:
    """Hold λmax against its prediction to an order of magnitude, and ask the trace to be tighter, seed by seed."""
    ratios = suppression.spectral_ratios(data)
    if "Tr" not in ratios:
        return _sizes(data, 1.0)
    off = {name: np.abs(ratios[name] - 1) for name in ("Tr", "λmax")}
    closer = Finding(
        "error of the trace less that of λmax, each over its prediction", below(0.0), mean_of(off["Tr"] - off["λmax"])
    )
    return [*_sizes(data, 1.0), closer]


def suppressed_control(config: suppression.Config, data: xr.Dataset) -> list[Finding]:
    """Judge ten times the law by the weaker of its two ratios."""
    return weakest(_sizes(data, TENFOLD))


def suppressed_by_layer(config: layers.Config, data: xr.Dataset) -> list[Finding]:
    """Hold λmax of H_Signal's block against r s²σ_A² that of H_ℓ's, in every layer of the draws at hand."""
    ratios = layers.suppression_ratio(config, data).values.ravel()
    mean = float(np.exp(np.mean(np.log(ratios))))
    return [Finding(f"{LAYER_RATIO}, range over layers", magnitude(1.0), _searched(config, mean, ratios))]


def suppressed_by_layer_control(config: layers.Config, data: xr.Dataset) -> list[Finding]:
    """Judge ten times the law in the layer in which it fails least."""
    ratios = layers.suppression_ratio(config, data).stack(place=("seed", "layer")) / TENFOLD
    return weakest(
        [
            Finding(f"{LAYER_RATIO}, {k}", magnitude(1.0), _searched(config, float(x), np.array([x])))
            for k, x in zip(ratios.layer.values, ratios.values, strict=True)
        ]
    )


def _searched(config: layers.Config, value: float, ratios: Sequence[float] | np.ndarray) -> Estimate:
    """The range of ratios of two searched eigenvalues, each as much as the tolerance too low."""
    slack = 1 + (0.0 if config.problem.dense else config.tolerance)
    return certified_between(value, float(np.min(ratios)) / slack, float(np.max(ratios)) * slack, "range over layers")


def layers_certified(config: layers.Config, data: xr.Dataset) -> str:
    """Name the layers of which a search ended without a certificate."""
    ratios = layers.suppression_ratio(config, data)
    missing = [str(k) for k in data.layer.values if not (ratios.sel(layer=k) > 0).all()]
    return f"the search for λmax ended without a certificate in {', '.join(missing)}" if missing else ""


CLAIMS = [
    Claim(
        id="F8a-suppression",
        group="fixed weights",
        assumptions=AT_START,
        source="Fig. 8a",
        formula=r"\lambda_{\max}[H_{\mathrm{Signal}}] \approx \alpha^2 \frac{\sigma_A^2}{r} \lambda_{\max}[H_\ell]",
        measured_on=MLP,
        measurement="spectra of H_ℓ and H_Signal at one draw of A",
        evidence=(
            Evidence(
                Reading(
                    "as stated",
                    "The spectrum of H_Signal is a compressed H_ℓ: λmax agrees with α²(σ_A²/r)·λmax[H_ℓ] in order of "
                    "magnitude, the trace more tightly.",
                    SUPPRESSION,
                    suppressed,
                ),
                Reading(
                    "control", "λmax and the trace are ten times as large as that.", SUPPRESSION, suppressed_control
                ),
            ),
            Evidence(
                Reading(
                    "layer by layer",
                    "In every layer λmax[H_Signal] is rs²σ_A² λmax[H_ℓ] in order of magnitude.",
                    LAYERS,
                    suppressed_by_layer,
                    layers_certified,
                ),
                Reading(
                    "control",
                    "In every layer it is ten times as large.",
                    LAYERS,
                    suppressed_by_layer_control,
                    layers_certified,
                ),
            ),
        ),
        figure="spectral_suppression",
    ),
]
