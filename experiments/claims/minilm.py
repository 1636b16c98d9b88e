"""The same claims on a pretrained encoder and text that people rated: one more reading of each."""

from functools import partial

import xarray as xr

from experiments.claims.claim import Reading
from experiments.claims.protocol import closes, recovers
from experiments.claims.verdict import Finding, above
from experiments.lab.experiment import Experiment
from experiments.tuning import minilm_paths, minilm_protocol
from experiments.tuning.methods import V1, V2
from experiments.tuning.rank_sweeps import path_depth, path_ratio

NAME = "on MiniLM"


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


PROTOCOL, PATHS = minilm_protocol.EXPERIMENT, minilm_paths.EXPERIMENT


def _reading(statement: str, experiment: Experiment, findings, name: str = NAME) -> Reading:
    return Reading(name, statement, experiment, findings)


READINGS = {
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
