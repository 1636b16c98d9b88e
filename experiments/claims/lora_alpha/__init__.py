"""Open this package for the statements of the paper, and the identities of our own that belong to its algebra."""

from dataclasses import replace

from experiments.claims.lora_alpha import (
    algebra,
    compression,
    drift,
    dynamics,
    powers,
    premise,
    protocol,
    spectra,
    steps,
    traces,
    tuning,
)
from experiments.ledger.claim import SUBJECT, Claim, Source, in_order

SOURCE = Source(
    SUBJECT,
    "LoRA-α",
    "The Hidden Power of Scaling Factor in LoRA Optimization",
    "2026-06",
    "https://arxiv.org/abs/2606.12883",
)
ORDER = (
    *("P1-update", "P1-hessian", "P2-descent", "P2-psd", "P2-premise", "P2-drift-indefinite", "P2-drift-alignment"),
    *("P3-trace", "P4-landscape", "P4-update", "L1-stability", "K1-alignment", "A1-sgd"),
    *("F8a-suppression", "F8b-trace-by-rank", "F8c-purification", "F8d-asymmetry"),
    *("F2a-trajectories", "F2b-drift-noise", "F2c-purity", "F1a-coupling", "F1b-paths", "F1c-square-root"),
    *("V1", "V2", "T6-magnitudes", "V-protocol", "C1", "C2", "C3", "C4"),
    *("X1", "X2", "X3", "X4", "X5", "X6", "X7", "X8", "X9", "X10", "X13", "X14", "X16"),
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
    protocol,
)


def _extended(claim: Claim) -> Claim:
    """Add the reading on drawn problems, where there is a check of the statement."""
    if claim.id not in DRAWN:
        return claim
    drawn = algebra.on_drawn_problems(claim.id, f"On problems drawn at random: {claim.statement}")
    return replace(claim, readings=(*claim.readings, drawn))


CLAIMS = [_extended(claim) for claim in in_order(ORDER, *MODULES)]
