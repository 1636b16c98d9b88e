"""State what practitioners set in each method of the comparison: start, map, scaling and learning rates (Eq. 5).

LoRAM is left out: no definition of it could be read that fixes its initial magnitudes.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import signal_drift as sd
from experiments.tuning.methods.kinds import Kind, directions_and_lengths, drawn, factors, principal

FULL, COMMON, TENFOLD, V1, V2 = "FFT", "LoRA, α = r", "LoRA, 10×η", "LoRA-α, V1", "LoRA-α, V2"
PISSA, DORA = "PiSSA", "DoRA"

LORA_KIND = Kind(drawn, factors)
PISSA_KIND = Kind(principal, factors)
DORA_KIND = Kind(drawn, directions_and_lengths)


class Method(NamedTuple):
    """Say how a method runs: s of every layer, η_A as a multiple of η_FFT, η_B/η_A, its start and what it trains."""

    scaling: Mapping[str, float]
    rate: float = 1.0
    ratio: float = 1.0
    kind: Kind = LORA_KIND


def swept(rank: int, sigma_a: Mapping[str, float], over_v2: Sequence[float]) -> dict[str, Method]:
    """Set LoRA at one rank with α so many times V2."""
    v2 = {layer: sd.alpha_base(rank, sigma) / rank for layer, sigma in sigma_a.items()}
    return {f"{m:g}": Method({layer: m * s for layer, s in v2.items()}) for m in over_v2}


def methods(rank: int, sigma_a: Mapping[str, float], coefficient: float = 256.0) -> dict[str, Method]:
    """Set every adapter method at one rank, with σ_A given layer by layer.

    rsLoRA is PEFT's `use_rslora` switched on beside α = r, hence s = α/√r = √r; LoRA+ has η_B = 16 η_A; PiSSA and DoRA
    have α = r.
    """

    def everywhere(s: float) -> dict[str, float]:
        return dict.fromkeys(sigma_a, s)

    return {
        COMMON: Method(everywhere(1.0)),
        "LoRA, α = 2r": Method(everywhere(2.0)),
        "rsLoRA, s = √r": Method(everywhere(rank**0.5)),
        TENFOLD: Method(everywhere(1.0), rate=10.0),
        "LoRA+, ratio 16": Method(everywhere(1.0), ratio=16.0),
        PISSA: Method(everywhere(1.0), kind=PISSA_KIND),
        DORA: Method(everywhere(1.0), kind=DORA_KIND),
        V1: Method(everywhere(sd.empirical_alpha_base(rank, coefficient) / rank)),
        V2: Method({layer: sd.alpha_base(rank, sigma) / rank for layer, sigma in sigma_a.items()}),
    }


def tuned(chosen: Mapping[str, Method]) -> dict[str, Method]:
    """Keep the methods that have a sweep over η of their own: another multiple of η_FFT is no other method there."""
    return {name: method for name, method in chosen.items() if method.rate == 1}


class Recipe(NamedTuple):
    """Identify one run, whatever it is called: its kind, (layer, s) of every layer, η_A and η_B, to twelve digits."""

    kind: Kind
    scaling: tuple[tuple[str, float], ...]
    rate_a: float
    rate_b: float


def recipe(method: Method, eta: float) -> Recipe:
    """Return the run of a method where η_FFT is `eta`."""
    scaling = tuple((layer, _short(s)) for layer, s in sorted(method.scaling.items()))
    return Recipe(method.kind, scaling, _short(eta * method.rate), _short(eta * method.rate * method.ratio))


def _short(x: float) -> float:
    """Round to twelve digits, so that one number computed in two ways is one number."""
    return float(f"{x:.12g}")


def namesakes(chosen: Mapping[str, Method]) -> dict[str, str]:
    """Name for every method that is another under a second name the first of its names.

    >>> namesakes(methods(64, {"layer": 1 / 8}))  # 1/σ_A² = 64
    {'LoRA-α, V2': 'LoRA, α = r'}
    """
    first: dict[Recipe, str] = {}
    for name, method in chosen.items():
        first.setdefault(recipe(method, 1.0), name)
    return {name: known for name, method in chosen.items() if (known := first[recipe(method, 1.0)]) != name}
