"""The laboratory in which LoRA's theory is tested exactly.

`decompose` gives the Jacobian, the task, signal, drift and LoRA Hessians of any loss over adapted weights as
operators; `decompose_update` splits an update; `eigenvalues`, `extreme_eigenvalues`, `trace`,
`estimate_trace` and `spectral_density` read spectra.
"""

from signal_drift.curvature import Decomposition, LinearOperator, SymmetricOperator, decompose
from signal_drift.density import Estimate, SpectralDensity, estimate_trace, spectral_density
from signal_drift.errors import InputError
from signal_drift.extremes import ExtremeEigenvalues, extreme_eigenvalues
from signal_drift.lora import (
    Adapter,
    adjoint_product,
    effective_weights,
    init_adapters,
    jacobian_product,
    kaiming_uniform,
    normal_fan_in,
)
from signal_drift.models import MLP, base_and_forward
from signal_drift.protocol import alpha_base, empirical_alpha_base, kaiming_sigma
from signal_drift.spectrum import eigenvalues, trace
from signal_drift.training import Run, pad_rank, separate_rates, train
from signal_drift.updates import UpdateParts, alignment, decompose_update

__all__ = [
    "MLP",
    "Adapter",
    "Decomposition",
    "Estimate",
    "ExtremeEigenvalues",
    "InputError",
    "LinearOperator",
    "Run",
    "SpectralDensity",
    "SymmetricOperator",
    "UpdateParts",
    "adjoint_product",
    "alignment",
    "alpha_base",
    "base_and_forward",
    "decompose",
    "decompose_update",
    "effective_weights",
    "eigenvalues",
    "empirical_alpha_base",
    "estimate_trace",
    "extreme_eigenvalues",
    "init_adapters",
    "jacobian_product",
    "kaiming_sigma",
    "kaiming_uniform",
    "normal_fan_in",
    "pad_rank",
    "separate_rates",
    "spectral_density",
    "trace",
    "train",
]
