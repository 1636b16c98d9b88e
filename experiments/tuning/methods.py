"""What practitioners set: the scaling and the learning rates of each method of the protocol comparison (Eq. 5)."""

from collections.abc import Mapping
from typing import NamedTuple

import signal_drift as sd

FULL, PLAIN, TENFOLD, V1, V2 = "FFT", "LoRA, α = r", "LoRA, 10×η", "LoRA-α, V1", "LoRA-α, V2"


class Recipe(NamedTuple):
    """How a method runs: s of every layer, η_A as a multiple of η_FFT, and η_B/η_A."""

    scaling: Mapping[str, float]
    rate: float = 1.0
    ratio: float = 1.0


def recipes(rank: int, fan_in: Mapping[str, int], coefficient: float = 256.0) -> dict[str, Recipe]:
    """Every adapter method at one rank; A ~ N(0, 1/d_in), so that σ_A = 1/√d_in in each layer.

    rsLoRA is PEFT's `use_rslora` switched on beside α = r, hence s = α/√r = √r; LoRA+ has η_B = 16 η_A.
    """

    def everywhere(s: float) -> dict[str, float]:
        return dict.fromkeys(fan_in, s)

    return {
        PLAIN: Recipe(everywhere(1.0)),
        "LoRA, α = 2r": Recipe(everywhere(2.0)),
        "rsLoRA, s = √r": Recipe(everywhere(rank**0.5)),
        TENFOLD: Recipe(everywhere(1.0), rate=10.0),
        "LoRA+, ratio 16": Recipe(everywhere(1.0), ratio=16.0),
        V1: Recipe(everywhere(sd.empirical_alpha_base(rank, coefficient) / rank)),
        V2: Recipe({layer: sd.alpha_base(rank, d_in**-0.5) / rank for layer, d_in in fan_in.items()}),
    }
