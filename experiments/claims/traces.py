"""Judge the claims on the trace and the size of H_Signal at B = 0: P3, K1, F8a and F8b.

Traces are judged in standard errors of X2, and as ratios to the law where these say something: where the law stands
out from the deviation of the mean by so much that chance alone keeps a ratio within its band (`trace_law.stands_out`).
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import xarray as xr

from experiments.analysis.intervals import Interval, bootstrap, exponents, extent, mean_interval, point
from experiments.curvature import layers, suppression
from experiments.curvature.trace_law import Traces, largest_normal
from experiments.ledger.claim import Claim, Evidence, Reading
from experiments.ledger.verdict import FRACTION, Band, Finding, below, equal, magnitude, power

AT_START = ("B = 0", "the entries of A independent, of mean 0 and variance σ_A²")

Law = Callable[[suppression.Config, np.ndarray], np.ndarray]
"""From the prediction, (seed, rank), to what another law says."""


def as_stated(config: suppression.Config, predicted: np.ndarray) -> np.ndarray:
    """Return α²(σ_A²/r) Tr H_ℓ itself."""
    return predicted


def without_rank(config: suppression.Config, predicted: np.ndarray) -> np.ndarray:
    """Return α²σ_A² Tr H_ℓ: 1 instead of 1/r."""
    return predicted * np.array(config.ranks)


def reversed_ranks(config: suppression.Config, predicted: np.ndarray) -> np.ndarray:
    """Return the prediction for the rank at the mirrored place of the list."""
    return predicted[:, ::-1]


def _by_rank(config: suppression.Config, traces: Traces, stated: np.ndarray, name: str) -> list[Finding]:
    """The ratio to a law at every rank at which the true one stands out from the noise of the draws."""
    ratios = traces.draws.mean(2) / np.where(stated == 0, np.nan, stated)
    return [
        Finding(f"{name}, r = {r}", equal(1.0), mean_interval(ratio))
        for r, ratio, usable in zip(config.ranks, ratios.T, traces.usable(FRACTION), strict=True)
        if usable
    ]


def largest_score(z: np.ndarray, what: str = "(seed, rank) means") -> Finding:
    """Hold the largest of many z-scores against what chance allows it."""
    why = f"the largest of {z.size} standard normal absolute values exceeds it in 5% of all cases"
    band = Band(0.0, largest_normal(z.size), why)
    return Finding(f"largest |z| of {z.size} {what}", band, point(np.max(abs(z))))


def _score(config: suppression.Config, traces: Traces, usable: np.ndarray) -> Finding:
    """The largest score, which says at which ranks it decides alone."""
    alone = ", ".join(str(r) for r, here in zip(config.ranks, usable, strict=True) if not here)
    why = f"; no ratio at r = {alone}, where Tr H_ℓ is too near 0" if alone else ""
    return largest_score(traces.scores, f"(seed, rank) means{why}")


def trace_law(config: suppression.Config, data: xr.Dataset, law: Law = as_stated) -> list[Finding]:
    """Judge the mean over draws of A: in standard errors of X2, and over the law at every rank."""
    traces = suppression.traces(data)
    stated = law(config, traces.stated)
    score = _score(config, traces._replace(stated=stated), traces.usable(FRACTION))
    return [score, *_by_rank(config, traces, stated, "Tr H_Signal / prediction")]


def traces_follow(config: suppression.Config, data: xr.Dataset, law: Law = as_stated) -> list[Finding]:
    """Judge the exponent of r in the mean trace, and the ratio to the law at every rank.

    Where the trace of H_ℓ is near 0 the means have no sign to rely on, and the standard errors of X2 decide.
    """
    traces = suppression.traces(data)
    stated = law(config, traces.stated)
    found = _by_rank(config, traces, stated, "Tr H_Signal / prediction")
    if len(found) < len(config.ranks):
        return [_score(config, traces._replace(stated=stated), traces.usable(FRACTION)), *found]
    ranks, sizes = np.array(config.ranks, float), (abs(traces.draws.mean(2)), abs(stated))
    slope = float(exponents(ranks, sizes[1][:1])[0])
    exponent = mean_interval(exponents(ranks, sizes[0]))
    return [Finding("exponent of r in Tr H_Signal", power(round(slope, 6)), exponent), *found]


def preserved(config: suppression.Config, data: xr.Dataset) -> list[Finding]:
    """Judge Tr H_Signal against Tr H_ℓ at α = √r/σ_A of every layer."""
    return _agrees(config, suppression.aligned_traces(data))


def preserved_at_rank(config: suppression.Config, data: xr.Dataset) -> list[Finding]:
    """Judge Tr H_Signal against Tr H_ℓ at α = r."""
    return _agrees(config, suppression.traces_at_rank(config, data), suppression.aligned_traces(data))


def _agrees(config: suppression.Config, traces: Traces, standard: Traces | None = None) -> list[Finding]:
    """In standard errors, and as ratios at the ranks at which those of the statement are usable."""
    usable = (standard or traces).usable(FRACTION)
    ratios = [
        Finding(f"Tr H_Signal / Tr H_ℓ, r = {r}", equal(1.0), mean_interval(ratio))
        for r, ratio, here in zip(config.ranks, traces.ratios.T, usable, strict=True)
        if here
    ]
    return ratios if all(usable) else [_score(config, traces, usable), *ratios]


def suppressed(config: suppression.Config, data: xr.Dataset, rank: float = 1.0) -> list[Finding]:
    """Hold λmax against its prediction to an order of magnitude, and ask the trace to be tighter than it.

    The trace where it lies away from 0 (`suppression.spectral_ratios`); `rank` spoils the law.
    """
    ratios = {name: ratio / rank for name, ratio in suppression.spectral_ratios(data).items()}
    sizes = [
        Finding(f"{name} H_Signal / (α²σ_A²/r · {name} H_ℓ)", magnitude(1.0), mean_interval(ratios[name]))
        for name in ("λmax", "Tr")
        if name in ratios
    ]
    if "Tr" not in ratios:
        return sizes
    off = np.log([ratios["Tr"], ratios["λmax"]]).T
    spread = bootstrap(lambda x: float(np.divide(*np.sqrt(np.mean(x**2, axis=0)))), off)
    return [*sizes, Finding("error of the trace over that of λmax, root mean square of ln", below(1.0), spread)]


def trace_law_by_layer(config: layers.Config, data: xr.Dataset) -> list[Finding]:
    """Judge every layer and the whole in standard errors; undecided where they would not notice a law without 1/r."""
    found, power_ = (
        largest_score(layers.trace_scores(data, factor).values, "layers and their sum")
        for factor in (1.0, config.problem.rank)
    )
    return [found if power_.verdict == "refuted" else found._replace(estimate=Interval(np.nan, np.nan, np.nan))]


def trace_law_by_layer_without_rank(config: layers.Config, data: xr.Dataset) -> list[Finding]:
    """Judge the law without 1/r by the same samples."""
    return [largest_score(layers.trace_scores(data, config.problem.rank).values, "layers and their sum")]


def suppressed_by_layer(config: layers.Config, data: xr.Dataset, *, without_rank: bool = False) -> list[Finding]:
    """Hold λmax of every layer's H_Signal against r s²σ_A² that of its H_ℓ, to an order of magnitude."""
    ratio = layers.suppression_ratio(config, data).values / (config.problem.rank if without_rank else 1)
    return [Finding("λmax[H_Signal]/(rs²σ_A²λmax[H_ℓ]) of a layer, range over layers", magnitude(1.0), extent(ratio))]


SUPPRESSION, LAYERS = suppression.EXPERIMENT, layers.EXPERIMENT

CLAIMS = [
    Claim(
        "P3-trace",
        AT_START,
        "Eq. 34–40",
        (
            Evidence(
                Reading("as stated", "E[Tr H_Signal] = α²(σ_A²/r)·Tr H_ℓ.", SUPPRESSION, trace_law),
                Reading(
                    "control",
                    "1 instead of 1/r: E[Tr H_Signal] = α²σ_A²·Tr H_ℓ.",
                    SUPPRESSION,
                    partial(trace_law, law=without_rank),
                ),
            ),
            Evidence(
                Reading(
                    "layer by layer",
                    "E[Tr H_Signal] = s²rσ_A² Tr H_ℓ for the blocks of every layer.",
                    LAYERS,
                    trace_law_by_layer,
                ),
                Reading("control", "The same without 1/r.", LAYERS, trace_law_by_layer_without_rank),
            ),
        ),
        figures=("trace_by_rank", "layers"),
    ),
    Claim(
        "K1-alignment",
        AT_START,
        "Cor. 1",
        (
            Evidence(
                Reading("as stated", "E[Tr H_Signal] = Tr H_ℓ at α = √r/σ_A.", SUPPRESSION, preserved),
                Reading("control", "The traces agree at α = r.", SUPPRESSION, preserved_at_rank),
            ),
        ),
        figures=("trace_by_rank",),
    ),
    Claim(
        "F8a-suppression",
        AT_START,
        "Fig. 8a",
        (
            Evidence(
                Reading(
                    "as stated",
                    "The spectrum of H_Signal is a compressed H_ℓ: λmax agrees with α²(σ_A²/r)·λmax[H_ℓ] in order of "
                    "magnitude, the trace more tightly.",
                    SUPPRESSION,
                    suppressed,
                ),
                Reading(
                    "control",
                    "The same with 1 instead of 1/r.",
                    SUPPRESSION,
                    lambda config, data: suppressed(config, data, rank=config.problem.rank),
                ),
            ),
            Evidence(
                Reading(
                    "layer by layer",
                    "In every layer λmax[H_Signal] is rs²σ_A² λmax[H_ℓ] in order of magnitude.",
                    LAYERS,
                    suppressed_by_layer,
                ),
                Reading(
                    "control",
                    "The same with 1 instead of 1/r.",
                    LAYERS,
                    partial(suppressed_by_layer, without_rank=True),
                ),
            ),
        ),
        figures=("spectral_suppression", "layers"),
    ),
    Claim(
        "F8b-trace-by-rank",
        AT_START,
        "Fig. 8b",
        (
            Evidence(
                Reading(
                    "as stated", "Measured Tr H_Signal follows the prediction across ranks.", SUPPRESSION, traces_follow
                ),
                Reading(
                    "control",
                    "Measured Tr H_Signal follows the prediction for the ranks in reversed order.",
                    SUPPRESSION,
                    partial(traces_follow, law=reversed_ranks),
                ),
            ),
        ),
        figures=("trace_by_rank",),
    ),
]
