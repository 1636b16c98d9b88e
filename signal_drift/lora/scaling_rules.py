"""States LoRA-α, the paper's protocol (Eq. 5): ΔW = (α·α_base/r)·BA with η = η_FFT and α = 1; and α_c of X16."""

import math
from typing import Any, TypeVar

from signal_drift.errors.arguments import positive, whole

Number = TypeVar("Number", bound=Any)
"""A float, or an array of any kind."""


def alpha_base(rank: int, sigma_a: float) -> float:
    """Return α_base = √r/σ_A, the paper's V2, at which E[Tr H_Signal] = Tr H_ℓ (Cor. 1, K1-alignment).

    `sigma_a` is the standard deviation of the entries of A at initialisation, per layer. Raises `InputError` for a
    rank below 1 and a deviation that is not positive.
    """
    return math.sqrt(whole("rank", rank, 1)) / positive("sigma_a", sigma_a)


def empirical_alpha_base(rank: int, coefficient: float = 256.0) -> float:
    """Return α_base = C√r, the paper's V1, with C = 256 fitted by the paper to Llama-3-1B on Tulu-3 (Eq. 3, 5)."""
    return positive("coefficient", coefficient) * math.sqrt(whole("rank", rank, 1))


def kaiming_sigma(d_in: int) -> float:
    """Return σ_A = 1/√(3 d_in) for A ~ U(−1/√d_in, 1/√d_in), the default of PyTorch and PEFT (App. F)."""
    return 1 / math.sqrt(3 * whole("d_in", d_in, 1))


def crossover_alpha(alpha: float, drift: Number, signal: Number) -> Number:
    """Return α_c = r·σ₁(G)/λmax[H_Signal at s = 1] from λmax of H_Drift and of H_Signal at one α, where B = 0 (X16).

    The first is s·σ₁(G) ∝ α, the second ∝ α² (P4-landscape): they are equal at α·λmax[H_Drift]/λmax[H_Signal].

    >>> crossover_alpha(8.0, drift=3.0, signal=6.0)
    4.0
    """
    return drift * alpha / signal
