"""Open this package to see what is judged, or to add a statement: the claims of the paper and of our own.

They stand in the order of the theory, then of the experiments.

>>> [claim.id for claim in CLAIMS][:3]
['P1-update', 'P1-hessian', 'P2-descent']
"""

from dataclasses import replace

from experiments.claims.lora_alpha import (
    algebra,
    compression,
    dynamics,
    powers,
    premise,
    protocol,
    spectra,
    steps,
    traces,
    tuning,
)
from experiments.claims.own import atlas, best_rate, crossover, drift
from experiments.ledger.claim import Claim

ORDER = (
    *("P1-update", "P1-hessian", "P2-descent", "P2-psd", "P2-premise", "P2-drift-indefinite", "P2-drift-alignment"),
    *("P3-trace", "P4-landscape", "P4-update", "L1-stability", "K1-alignment", "A1-sgd"),
    *("F8a-suppression", "F8b-trace-by-rank", "F8c-purification", "F8d-asymmetry"),
    *("F2a-trajectories", "F2b-drift-noise", "F2c-purity", "F1a-coupling", "F1b-paths", "F1c-square-root"),
    *("V1", "V2", "T6-magnitudes", "V-protocol", "C1", "C2", "C3", "C4"),
    *("X1", "X2", "X3", "X4", "X5", "X6", "X7", "X8", "X9", "X10", "X13", "X14", "X16"),
    *("X16-best-alpha", "X17", "X18", "X19", "X20-best-rate"),
)

DRAWN = ("P3-trace", "K1-alignment", "L1-stability", "P4-update", "X3", "X4", "X16")
"""Claims on expectations and trajectories that the checks of `signal_drift.propositions` hold on drawn problems too."""

MODULES = (
    algebra,
    premise,
    traces,
    compression,
    spectra,
    powers,
    steps,
    dynamics,
    drift,
    tuning,
    crossover,
    best_rate,
    atlas,
    protocol,
)


def _extended(claim: Claim) -> Claim:
    """Add the reading on drawn problems, where there is a check of the statement."""
    if claim.id not in DRAWN:
        return claim
    drawn = algebra.on_drawn_problems(claim.id, f"On problems drawn at random: {claim.statement}")
    return replace(claim, readings=(*claim.readings, drawn))


CLAIMS: list[Claim] = sorted(
    (_extended(claim) for module in MODULES for claim in module.CLAIMS),
    key=lambda claim: ORDER.index(claim.id),
)
