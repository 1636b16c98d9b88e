"""The same claims on a pretrained encoder and text that people rated: one more reading of each."""

from functools import partial

import numpy as np
import xarray as xr

from experiments.analysis.intervals import Interval, extent
from experiments.claims.claim import Reading
from experiments.claims.curvature import EPS
from experiments.claims.protocol import closes, recovers
from experiments.claims.traces import largest_score
from experiments.claims.verdict import FRACTION, Finding, above, at_least, at_most, below, magnitude
from experiments.curvature import layers as minilm_layers
from experiments.curvature import minilm_curvature
from experiments.curvature.asymmetric_scaling import STATES
from experiments.curvature.minilm_curvature import distance, lowest
from experiments.lab.experiment import Experiment
from experiments.tuning import minilm_paths, minilm_protocol
from experiments.tuning.methods import V1, V2
from experiments.tuning.rank_sweeps import path_depth, path_ratio

NAME = "on MiniLM"


def trace_law(config, data: xr.Dataset) -> list[Finding]:
    """For every layer and the whole, in standard errors; undecided where they would not notice a law without 1/r."""
    found, power = (
        largest_score(minilm_layers.trace_scores(data, factor).values, "layers and their sum")
        for factor in (1.0, config.rank)
    )
    return [found if power.verdict == "refuted" else found._replace(estimate=Interval(np.nan, np.nan, np.nan))]


def suppressed(config, data: xr.Dataset) -> list[Finding]:
    ratio = extent(minilm_layers.suppression(config, data).values)
    return [Finding("λmax[H_Signal]/(rs²σ_A²λmax[H_ℓ]) of a layer, range over layers", magnitude(1.0), ratio)]


def premise(config, data: xr.Dataset) -> list[Finding]:
    return [_sign(data.sel(state=state, operator="task"), f"λmin/λmax of H_ℓ, {state}") for state in STATES]


def _sign(here: xr.Dataset, name: str) -> Finding:
    return Finding(name, at_least(-1e8 * EPS, "0, less rounding: n is below 10⁸"), lowest(here, "ends", "reach"))


def ends_converge(config, data: xr.Dataset) -> list[Finding]:
    """H_LoRA is indefinite at every α, and its ends are nearer to H_Signal's at the largest α than at the least."""
    start, found = data.sel(state="initial"), []
    for alpha in config.alphas:
        sign = lowest(start.sel(alpha=alpha), "over_alpha", "over_reach")
        found.append(Finding(f"λmin/λmax of H_LoRA, α = {alpha:g}", below(0.0), sign))
    for end in ("min", "max"):
        far, near = (distance(config, data, end, alpha) for alpha in (config.alphas[0], config.alphas[-1]))
        change = Interval(near.mean - far.mean, near.low - far.high, near.high - far.low)
        name = f"distance of λ{end} to H_Signal's over λmax, α = {config.alphas[-1]:g} less α = {config.alphas[0]:g}"
        found.append(Finding(name, below(0.0), change))
    return found


def purified(config, data: xr.Dataset) -> list[Finding]:
    limit = data.sel(state="initial", operator="signal")
    return [*ends_converge(config, data), _sign(limit, "λmin/λmax of H_Signal, the limit")]


def aligned(config, data: xr.Dataset) -> list[Finding]:
    apart = distance(config, data, "max", config.alphas[-1])
    why = "an equality of averages: ±5%"
    return [Finding(f"|λmax[H_LoRA]/λmax[H_Signal] − 1|, α = {config.alphas[-1]:g}", at_most(FRACTION, why), apart)]


def purer(config, data: xr.Dataset) -> list[Finding]:
    return [
        Finding(f"signal-to-drift ratio, {m:g}·α₀ over {m:g}·η_FFT", above(1.0), ratio)
        for m, ratio in minilm_paths.purer(config, data).items()
    ]


def alpha_path_wins(config, data: xr.Dataset) -> list[Finding]:
    sweep = minilm_paths.as_sweep(data)
    farther, deeper = path_ratio(config.multipliers, sweep), path_depth(config.multipliers, sweep)
    return [
        Finding("best multiplier of α over that of η", above(1.0), farther),
        Finding("ln of the lowest loss along η over that along α", above(0.0), deeper),
    ]


def compared(findings, config, data: xr.Dataset) -> list[Finding]:
    """What `protocol_comparison` is asked, of the records on MiniLM."""
    return findings(config, minilm_protocol.as_comparison(config, data))


CURVATURE, LAYERS = minilm_curvature.EXPERIMENT, minilm_layers.EXPERIMENT
PROTOCOL, PATHS = minilm_protocol.EXPERIMENT, minilm_paths.EXPERIMENT


def _reading(statement: str, experiment: Experiment, findings, name: str = NAME) -> Reading:
    return Reading(name, statement, experiment, findings)


READINGS = {
    "P2-premise": [_reading("H_ℓ ⪰ 0 on MiniLM, before and after training.", CURVATURE, premise)],
    "P3-trace": [
        _reading("E[Tr H_Signal] = s²rσ_A² Tr H_ℓ for the blocks of every layer of MiniLM.", LAYERS, trace_law)
    ],
    "F8a-suppression": [
        _reading(
            "In every layer of MiniLM λmax[H_Signal] is rs²σ_A² λmax[H_ℓ] in order of magnitude.", LAYERS, suppressed
        )
    ],
    "F8c-purification": [
        _reading(
            "On MiniLM H_LoRA is indefinite; as α grows its ends converge to those of H_Signal, which is positive "
            "semi-definite.",
            CURVATURE,
            purified,
        ),
        _reading(
            "On MiniLM H_LoRA is indefinite; as α grows its ends converge to those of H_Signal, definite or not.",
            CURVATURE,
            ends_converge,
            f"{NAME}, without the sign",
        ),
    ],
    "F8d-asymmetry": [
        _reading(
            "On MiniLM at B = 0 λmax[H_LoRA]/λmax[H_Signal] → 1 as α grows.", CURVATURE, aligned, f"{NAME}, alignment"
        )
    ],
    "F2c-purity": [
        _reading(
            "On MiniLM the path of α has the higher signal-to-drift ratio in the geometric mean over the steps.",
            PATHS,
            purer,
        )
    ],
    "F1b-paths": [
        _reading(
            "On MiniLM the path of α has the larger best multiplier and the deeper minimum.",
            PATHS,
            alpha_path_wins,
        )
    ],
    "V-protocol": [
        _reading(
            "On MiniLM at η_FFT V1 and V2 recover most of the gap, and V2 beats ten times the rate at high rank.",
            PROTOCOL,
            partial(compared, partial(recovers, 1.0)),
        ),
        *(
            _reading(
                f"On MiniLM at η_FFT {method} recovers most of the gap.",
                PROTOCOL,
                partial(compared, partial(closes, method, 1.0)),
                f"{NAME}, {method}",
            )
            for method in (V1, V2)
        ),
    ],
}


def readings(claim: str) -> list[Reading]:
    return READINGS.get(claim, [])
