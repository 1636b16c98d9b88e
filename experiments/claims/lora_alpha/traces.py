"""Judge the claims on the trace of H_Signal at B = 0: P3, K1 and F8b.

They rest on the same draws of A. Their traces are computed by X2's formula Σ_l s² Tr(A_l M_l A_lᵀ), and that
is held against the trace of H_Signal itself at the problem's rank, at every seed, as the first of their findings.

A ratio of traces is asked for where it could decide: where the law stands out from the known deviation of the mean (X2)
by so much that a law that holds is found within its band, and one two margins off is not.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import scipy.stats
import xarray as xr

from experiments.analysis.intervals import (
    Estimate,
    exactly_known,
    exponents,
    mean_of,
    quotient_of,
)
from experiments.curvature import layers, suppression
from experiments.curvature.trace_law import Traces
from experiments.ledger.claim import Claim, Evidence, Reading
from experiments.ledger.verdict import (
    ERROR,
    EXPONENT,
    FRACTION,
    MAGNITUDE,
    Finding,
    at_most,
    equal,
    magnitude,
    power,
    weakest,
)

EPS = float(np.finfo(float).eps)
SAFETY = 16.0
"""c in c·p·ε·Σ|λ|, the rounding of a sum of p eigenvalues."""
AT_START = ("B = 0", "the entries of A independent, of mean 0 and variance σ_A²")
ONE_MORE_TENTH = 1 + 2 * FRACTION
"""A law that is two margins off one that is asked to hold to 5%."""
SPARE = 4.0
"""Standard errors that a ratio needs between the end of its band and its interval: then a verdict is likely."""

Law = Callable[[suppression.Config, np.ndarray], np.ndarray]
"""From the prediction, (seed, rank), to what another law says."""


def as_stated(config: suppression.Config, predicted: np.ndarray) -> np.ndarray:
    """Return the prediction itself."""
    return predicted


def one_tenth_more(config: suppression.Config, predicted: np.ndarray) -> np.ndarray:
    """Return 1.1 times the prediction."""
    return predicted * ONE_MORE_TENTH


def flatter(config: suppression.Config, predicted: np.ndarray) -> np.ndarray:
    """Return the prediction with r^(−0.8) in place of 1/r, equal at the geometric mean of the ranks."""
    ranks = np.array(config.ranks, float)
    return predicted * (ranks / np.exp(np.mean(np.log(ranks)))) ** (2 * EXPONENT)


def decidable(stated: np.ndarray, error: np.ndarray) -> bool:
    """Say whether the ratio to a law of independent means of known standard error can be told from 1 ± 5%.

    The weights (stated/error)² give a ratio of standard error 1/√Σ(stated/error)². The interval, Student's t of them,
    and four more of them have to fit into the margin, and no few means may carry all of the weight, or Fieller's
    interval is unbounded.
    """
    weights, n = (stated / error).ravel() ** 2, stated.size
    if n < 2 or not np.sum(weights) > 0:
        return False
    t = float(scipy.stats.t.ppf(1 - ERROR / 2, n - 1))
    even = np.mean(weights) > 2 * t * np.std(weights, ddof=1) / np.sqrt(n)
    return bool((t + SPARE) / np.sqrt(np.sum(weights)) <= FRACTION and even)


def ratio_to(stated: np.ndarray, true: np.ndarray, measured: np.ndarray, error: np.ndarray) -> Estimate:
    """Estimate measured/stated over independent means, each weighted by (true/error)², the information it has."""
    weights = true / error**2
    return quotient_of((measured * weights).ravel(), (stated * weights).ravel())


def _ratios(config: suppression.Config, traces: Traces, law: Law, name: str) -> dict[int, Finding]:
    """The ratio to a law by rank, of the ranks at which it can decide, and of all together, under 0."""
    measured, stated = traces.draws.mean(-1), law(config, traces.stated)
    columns = {0: (slice(None), "all ranks")}
    columns |= {r: ((slice(None), i), f"r = {r}") for i, r in enumerate(config.ranks)}
    return {
        r: Finding(
            f"{name}, {label}",
            equal(1.0),
            ratio_to(stated[at], traces.stated[at], measured[at], traces.error[at]),
        )
        for r, (at, label) in columns.items()
        if decidable(traces.stated[at], traces.error[at])
    }


def formula(data: xr.Dataset) -> Finding:
    """Hold X2's formula, by which all draws are computed, against Σλ of H_Signal itself at the problem's own rank."""
    spectrum = data.signal.transpose("seed", "theta_index").values
    tolerance = SAFETY * spectrum.shape[1] * EPS * np.sum(np.abs(spectrum), axis=1)
    apart = np.abs(spectrum.sum(1) - data.closed_trace.values) / tolerance
    band = at_most(1.0, f"in units of rounding, {SAFETY:g}·p·ε·Σ|λ|", margin=0.5)
    name = f"|Tr H_Signal − X2's formula| / rounding, the largest of {len(apart)} seeds"
    return Finding(name, band, exactly_known(np.nan_to_num(np.max(apart), nan=np.inf)))


def stands_out(traces_of: Callable[[xr.Dataset], Traces], config: suppression.Config, data: xr.Dataset) -> str:
    """Say why no ratio of traces can decide, where Tr H_ℓ is too near to 0."""
    traces = traces_of(data)
    if _ratios(config, traces, as_stated, ""):
        return ""
    ranks = ", ".join(map(str, config.ranks))
    return f"Tr H_ℓ is within its noise of 0 at r = {ranks}: its ratio cannot be held to {FRACTION:.0%}"


def trace_law(config: suppression.Config, data: xr.Dataset) -> list[Finding]:
    """Judge the mean over draws of A against the law, at all ranks together and at every one."""
    found = _ratios(config, suppression.traces(data), as_stated, "Tr H_Signal / prediction")
    return [formula(data), *found.values()]


def trace_law_control(config: suppression.Config, data: xr.Dataset) -> list[Finding]:
    """Judge the law times 1.1 by its weakest ratio."""
    return weakest([*_ratios(config, suppression.traces(data), one_tenth_more, "Tr H_Signal / prediction").values()])


def traces_follow(config: suppression.Config, data: xr.Dataset, law: Law = as_stated) -> list[Finding]:
    """Judge the exponent of r in the mean trace, where every rank has a ratio, and the ratios themselves."""
    traces = suppression.traces(data)
    found = _ratios(config, traces, law, "Tr H_Signal / prediction")
    return [formula(data), *_exponent(config, traces, law, found), *found.values()]


def traces_follow_control(config: suppression.Config, data: xr.Dataset) -> list[Finding]:
    """Judge r^(−0.8) by the weakest of the exponent and the ratios that it moves by two margins or more."""
    traces = suppression.traces(data)
    found = _ratios(config, traces, flatter, "Tr H_Signal / prediction")
    moved = np.abs(flatter(config, np.ones(len(config.ranks))) - 1) >= 2 * FRACTION
    changed = [found[r] for r, here in zip(config.ranks, moved, strict=True) if here and r in found]
    return weakest([*_exponent(config, traces, flatter, found), *changed])


def _exponent(config: suppression.Config, traces: Traces, law: Law, found: dict[int, Finding]) -> list[Finding]:
    """The exponent of r, where the mean has a sign to rely on at every rank."""
    if not set(config.ranks) <= set(found) or len(config.ranks) < 2:
        return []
    ranks, sizes = np.array(config.ranks, float), np.abs(traces.draws.mean(-1))
    slope = float(exponents(ranks, np.abs(law(config, traces.stated))[:1])[0])
    return [Finding("exponent of r in Tr H_Signal", power(round(slope, 6)), mean_of(exponents(ranks, sizes)))]


def preserved(config: suppression.Config, data: xr.Dataset) -> list[Finding]:
    """Judge Tr H_Signal against Tr H_ℓ at α = √r/σ_A of every layer."""
    found = _ratios(config, suppression.aligned_traces(data), as_stated, "Tr H_Signal / Tr H_ℓ")
    return [formula(data), *found.values()]


def preserved_control(config: suppression.Config, data: xr.Dataset) -> list[Finding]:
    """Judge Tr H_Signal against 1.1 Tr H_ℓ there by its weakest ratio."""
    return weakest(
        [*_ratios(config, suppression.aligned_traces(data), one_tenth_more, "Tr H_Signal / Tr H_ℓ").values()]
    )


def _layer_ratios(data: xr.Dataset, margin: float, factor: float = 1.0) -> dict[str, Estimate]:
    """Mean measured over `factor` · mean predicted by layer, of the layers whose samples can hold it to `margin`."""
    samples = layers.both_traces(data).transpose("layer", "side", ...)
    found = {}
    for name in map(str, samples.layer.values):
        measured, stated = (samples.sel(layer=name, side=side).values.ravel() for side in ("measured", "predicted"))
        spread = np.sqrt((np.var(measured, ddof=1) + np.var(stated, ddof=1)) / len(stated))
        t = float(scipy.stats.t.ppf(1 - ERROR / 2, len(stated) - 1))
        if (t + SPARE) * spread <= margin * abs(np.mean(stated)):
            found[name] = quotient_of(measured, factor * stated)
    return found


def layers_stand_out(margin: float, config: layers.Config, data: xr.Dataset) -> str:
    """Say why the samples of no layer can decide."""
    if _layer_ratios(data, margin):
        return ""
    return (
        f"{config.probes} draws of A leave the trace of every layer too uncertain: no ratio can be held to {margin:.0%}"
    )


def trace_law_by_layer(config: layers.Config, data: xr.Dataset) -> list[Finding]:
    """Judge every layer, and the whole, whose ratio to the law can be held to 5%."""
    return [Finding(f"Tr H_Signal / prediction, {k}", equal(1.0), x) for k, x in _layer_ratios(data, FRACTION).items()]


def trace_law_by_layer_control(config: layers.Config, data: xr.Dataset) -> list[Finding]:
    """Judge the law times 1.1 by the weakest of these ratios."""
    found = _layer_ratios(data, FRACTION, ONE_MORE_TENTH)
    return weakest([Finding(f"Tr H_Signal / prediction, {k}", equal(1.0), x) for k, x in found.items()])


def trace_order_by_layer(config: layers.Config, data: xr.Dataset) -> list[Finding]:
    """Judge the layers in order of magnitude, which fewer samples can decide."""
    found = _layer_ratios(data, COARSE)
    return [Finding(f"Tr H_Signal / prediction, {k}", magnitude(1.0), x) for k, x in found.items()]


COARSE = 1 - 1 / MAGNITUDE
"""What an order of magnitude leaves below 1."""


SUPPRESSION, LAYERS = suppression.EXPERIMENT, layers.EXPERIMENT
MLP = "the MLP of App. E"
ON_DRAWS = partial(stands_out, suppression.traces)
SHARED = "draws of A at B = 0, their traces by X2's formula"
BY_X2 = "traces by X2's formula, which is checked against H_Signal itself"

CLAIMS = [
    Claim(
        id="P3-trace",
        group="fixed weights",
        assumptions=AT_START,
        source="Eq. 34–40",
        formula=r"\mathbb{E}[\operatorname{Tr} H_{\mathrm{Signal}}]"
        r" = \alpha^2 \frac{\sigma_A^2}{r} \operatorname{Tr} H_\ell",
        measurement=SHARED,
        evidence=(
            Evidence(
                Reading(
                    "as stated", f"E[Tr H_Signal] = α²(σ_A²/r)·Tr H_ℓ ({BY_X2}).", SUPPRESSION, trace_law, ON_DRAWS
                ),
                Reading(
                    "control",
                    "A tenth more at every rank: E[Tr H_Signal] = 1.1·α²(σ_A²/r)·Tr H_ℓ.",
                    SUPPRESSION,
                    trace_law_control,
                    ON_DRAWS,
                ),
            ),
            Evidence(
                Reading(
                    "layer by layer",
                    "E[Tr H_Signal] = s²rσ_A² Tr H_ℓ for the blocks of every layer.",
                    LAYERS,
                    trace_law_by_layer,
                    partial(layers_stand_out, FRACTION),
                ),
                Reading(
                    "control",
                    "A tenth more in every layer.",
                    LAYERS,
                    trace_law_by_layer_control,
                    partial(layers_stand_out, FRACTION),
                ),
            ),
        ),
        readings=(
            Reading(
                "layer by layer, in order of magnitude",
                "E[Tr H_Signal] is s²rσ_A² Tr H_ℓ in order of magnitude, for the blocks of every layer.",
                LAYERS,
                trace_order_by_layer,
                partial(layers_stand_out, COARSE),
            ),
        ),
        figure="trace_by_rank",
    ),
    Claim(
        id="K1-alignment",
        group="fixed weights",
        assumptions=AT_START,
        source="Cor. 1",
        formula=r"\mathbb{E}[\operatorname{Tr} H_{\mathrm{Signal}}] = \operatorname{Tr} H_\ell"
        r" \quad\text{at}\quad \alpha = \sqrt{r}/\sigma_A",
        measurement=SHARED,
        evidence=(
            Evidence(
                Reading(
                    "as stated",
                    f"E[Tr H_Signal] = Tr H_ℓ at α = √r/σ_A ({BY_X2}).",
                    SUPPRESSION,
                    preserved,
                    partial(stands_out, suppression.aligned_traces),
                ),
                Reading(
                    "control",
                    "E[Tr H_Signal] = 1.1·Tr H_ℓ there, as if α were √(1.1·r)/σ_A.",
                    SUPPRESSION,
                    preserved_control,
                    partial(stands_out, suppression.aligned_traces),
                ),
            ),
        ),
        figure="trace_by_rank",
    ),
    Claim(
        id="F8b-trace-by-rank",
        group="fixed weights",
        assumptions=AT_START,
        source="Fig. 8b",
        formula=r"\operatorname{Tr} H_{\mathrm{Signal}} \propto 1/r",
        measured_on=MLP,
        measurement=SHARED,
        evidence=(
            Evidence(
                Reading(
                    "as stated",
                    f"Measured Tr H_Signal follows the prediction across ranks ({BY_X2}).",
                    SUPPRESSION,
                    traces_follow,
                    ON_DRAWS,
                ),
                Reading(
                    "control",
                    "Measured Tr H_Signal falls with the rank as r^(−0.8).",
                    SUPPRESSION,
                    traces_follow_control,
                    ON_DRAWS,
                ),
            ),
        ),
        figure="trace_by_rank",
    ),
]
