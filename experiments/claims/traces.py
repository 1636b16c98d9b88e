"""Claims on the trace and the size of H_Signal at B = 0: P3, K1, F8a and F8b."""

from functools import partial

import numpy as np
import xarray as xr

import signal_drift as sd
from experiments.analysis.intervals import bootstrap, exponents, mean_interval, point
from experiments.claims.claim import Claim, Reading
from experiments.claims.verdict import Band, Finding, below, equal, magnitude, power
from experiments.curvature import suppression as spectral_suppression
from experiments.curvature.suppression import Law, factor, largest_normal, predicted_traces, spectral_ratios, z_scores

AT_START = ("B = 0", "the entries of A independent, of mean 0 and variance σ_A²")


def _by_rank(config, ratios: np.ndarray, name: str) -> list[Finding]:
    return [
        Finding(f"{name}, r = {r}", equal(1.0), mean_interval(ratio))
        for r, ratio in zip(config.ranks, ratios.T, strict=True)
    ]


def largest_score(z: np.ndarray, what: str = "(seed, rank) means") -> Finding:
    """The largest of many z-scores against what chance allows it."""
    why = f"the largest of {z.size} standard normal absolute values exceeds it in 5% of all cases"
    band = Band(0.0, largest_normal(z.size), why)
    return Finding(f"largest |z| of {z.size} {what}", band, point(np.max(abs(z))))


def trace_law(config, data: xr.Dataset, law: Law = factor) -> list[Finding]:
    """The mean over draws of A: in standard errors of X2, and over the prediction at every rank."""
    ratios = data.draws.values.mean(2) / predicted_traces(config, data, law)
    return [largest_score(z_scores(config, data, law)), *_by_rank(config, ratios, "Tr H_Signal / prediction")]


def without_rank(config, r: int) -> float:
    """α²σ_A² Tr H_ℓ: 1 instead of 1/r."""
    return r * factor(config, r)


def reversed_ranks(config, r: int) -> float:
    """The prediction for the rank at the mirrored place of the list."""
    return factor(config, config.ranks[-1 - config.ranks.index(r)])


def traces_follow(config, data: xr.Dataset, law: Law = factor) -> list[Finding]:
    """The exponent of r in the mean trace, and the ratio to the prediction at every rank."""
    means, wanted = data.draws.values.mean(2), predicted_traces(config, data, law)
    ranks = np.array(config.ranks, float)
    slope = float(exponents(ranks, wanted[:1] / wanted[0, 0])[0])
    exponent = Finding("exponent of r in Tr H_Signal", power(round(slope, 6)), mean_interval(exponents(ranks, means)))
    return [exponent, *_by_rank(config, means / wanted, "Tr H_Signal / prediction")]


def trace_at(config, data: xr.Dataset, alpha) -> list[Finding]:
    """Tr H_Signal over Tr H_ℓ at α(r), from the draws at the stored α: at fixed weights it goes with α²."""
    scale = np.array([alpha(r) / config.alpha for r in config.ranks]) ** 2
    ratios = data.draws.values.mean(2) * scale / data.task.values.sum(1, keepdims=True)
    return _by_rank(config, ratios, "Tr H_Signal / Tr H_ℓ")


def suppressed(config, data: xr.Dataset, rank: float = 1.0) -> list[Finding]:
    """λmax over its prediction to an order of magnitude, and the trace tighter than it; `rank` spoils the law."""
    ratios = {name: ratio / rank for name, ratio in spectral_ratios(config, data).items()}
    off = np.log([ratios["Tr"], ratios["λmax"]]).T
    spread = bootstrap(lambda x: float(np.divide(*np.sqrt(np.mean(x**2, axis=0)))), off)
    return [
        *(
            Finding(f"{name} H_Signal / (α²σ_A²/r · {name} H_ℓ)", magnitude(1.0), mean_interval(ratios[name]))
            for name in ("λmax", "Tr")
        ),
        Finding("error of the trace over that of λmax, root mean square of ln", below(1.0), spread),
    ]


SUPPRESSION = spectral_suppression.EXPERIMENT

CLAIMS = [
    Claim(
        "P3-trace",
        AT_START,
        "Eq. 34–40",
        Reading("as stated", "E[Tr H_Signal] = α²(σ_A²/r)·Tr H_ℓ.", SUPPRESSION, trace_law),
        Reading(
            "control",
            "1 instead of 1/r: E[Tr H_Signal] = α²σ_A²·Tr H_ℓ.",
            SUPPRESSION,
            partial(trace_law, law=without_rank),
        ),
        figures=("trace_by_rank",),
    ),
    Claim(
        "K1-alignment",
        AT_START,
        "Cor. 1",
        Reading(
            "as stated",
            "E[Tr H_Signal] = Tr H_ℓ at α = √r/σ_A.",
            SUPPRESSION,
            lambda config, data: trace_at(config, data, lambda r: sd.alpha_base(r, config.sigma_a)),
        ),
        Reading(
            "control",
            "The traces agree at α = r.",
            SUPPRESSION,
            lambda config, data: trace_at(config, data, float),
        ),
        figures=("trace_by_rank",),
    ),
    Claim(
        "F8a-suppression",
        AT_START,
        "Fig. 8a",
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
            lambda config, data: suppressed(config, data, rank=config.rank),
        ),
        figures=("spectral_suppression",),
    ),
    Claim(
        "F8b-trace-by-rank",
        AT_START,
        "Fig. 8b",
        Reading("as stated", "Measured Tr H_Signal follows the prediction across ranks.", SUPPRESSION, traces_follow),
        Reading(
            "control",
            "Measured Tr H_Signal follows the prediction for the ranks in reversed order.",
            SUPPRESSION,
            partial(traces_follow, law=reversed_ranks),
        ),
        figures=("trace_by_rank",),
    ),
]
