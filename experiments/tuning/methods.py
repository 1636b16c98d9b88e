"""State what practitioners set in each method of the comparison: its scaling and its learning rates (Eq. 5)."""

from collections.abc import Mapping
from typing import NamedTuple

import signal_drift as sd

FULL, COMMON, TENFOLD, V1, V2 = "FFT", "LoRA, α = r", "LoRA, 10×η", "LoRA-α, V1", "LoRA-α, V2"


class Method(NamedTuple):
    """Say how a method runs: s of every layer, η_A as a multiple of η_FFT, and η_B/η_A."""

    scaling: Mapping[str, float]
    rate: float = 1.0
    ratio: float = 1.0


OVER_V2 = tuple(2.0**k for k in range(-4, 5))
"""α/V2 of the sweep that says what any α could reach at the rate of the comparison."""


def swept(rank: int, sigma_a: Mapping[str, float]) -> dict[str, Method]:
    """Set LoRA at one rank with α from a sixteenth of V2 to sixteen times it."""
    v2 = {layer: sd.alpha_base(rank, sigma) / rank for layer, sigma in sigma_a.items()}
    return {f"{m:g}": Method({layer: m * s for layer, s in v2.items()}) for m in OVER_V2}


def methods(rank: int, sigma_a: Mapping[str, float], coefficient: float = 256.0) -> dict[str, Method]:
    """Set every adapter method at one rank, with σ_A given layer by layer.

    rsLoRA is PEFT's `use_rslora` switched on beside α = r, hence s = α/√r = √r; LoRA+ has η_B = 16 η_A.
    """

    def everywhere(s: float) -> dict[str, float]:
        return dict.fromkeys(sigma_a, s)

    return {
        COMMON: Method(everywhere(1.0)),
        "LoRA, α = 2r": Method(everywhere(2.0)),
        "rsLoRA, s = √r": Method(everywhere(rank**0.5)),
        TENFOLD: Method(everywhere(1.0), rate=10.0),
        "LoRA+, ratio 16": Method(everywhere(1.0), ratio=16.0),
        V1: Method(everywhere(sd.empirical_alpha_base(rank, coefficient) / rank)),
        V2: Method({layer: sd.alpha_base(rank, sigma) / rank for layer, sigma in sigma_a.items()}),
    }
