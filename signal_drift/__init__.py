"""The laboratory in which LoRA's theory is tested exactly.

`decompose` gives the Jacobian, the task, signal, drift and LoRA Hessians of any loss over adapted weights as
operators, `gauss_newton` the part of the curvature that the criterion alone puts there; `decompose_update` splits an
update; `eigenvalues`, `extreme_eigenvalues`, `trace`, `estimate_trace` and `spectral_density` read spectra.
"""

from signal_drift.attention import exact_attention
from signal_drift.batches import mean_over_batches
from signal_drift.bridge import LoRAModel, base_and_forward, lora_and_forward
from signal_drift.composite import composite
from signal_drift.curvature import Decomposition, LinearOperator, SymmetricOperator, decompose
from signal_drift.density import Estimate, SpectralDensity, estimate_trace, spectral_density
from signal_drift.errors import InputError
from signal_drift.extremes import ExtremeEigenvalues, extreme_eigenvalues
from signal_drift.gauss_newton import GaussNewton, gauss_newton
from signal_drift.layers import Block, LayerView, decompose_layer, layer_views
from signal_drift.lora import (
    Adapter,
    adjoint_product,
    effective_weights,
    init_adapters,
    jacobian_product,
    kaiming_uniform,
    normal_fan_in,
)
from signal_drift.models import MLP
from signal_drift.protocol import alpha_base, empirical_alpha_base, kaiming_sigma
from signal_drift.sharding import shard_columns, shard_data
from signal_drift.spectrum import eigenvalues, trace
from signal_drift.training import Run, pad_rank, separate_rates, train
from signal_drift.updates import UpdateParts, alignment, decompose_update

__all__ = [
    "MLP",
    "Adapter",
    "Block",
    "Decomposition",
    "Estimate",
    "ExtremeEigenvalues",
    "GaussNewton",
    "InputError",
    "LayerView",
    "LinearOperator",
    "LoRAModel",
    "Run",
    "SpectralDensity",
    "SymmetricOperator",
    "UpdateParts",
    "adjoint_product",
    "alignment",
    "alpha_base",
    "base_and_forward",
    "composite",
    "decompose",
    "decompose_layer",
    "decompose_update",
    "effective_weights",
    "eigenvalues",
    "empirical_alpha_base",
    "estimate_trace",
    "exact_attention",
    "extreme_eigenvalues",
    "gauss_newton",
    "init_adapters",
    "jacobian_product",
    "kaiming_sigma",
    "kaiming_uniform",
    "layer_views",
    "lora_and_forward",
    "mean_over_batches",
    "normal_fan_in",
    "pad_rank",
    "separate_rates",
    "shard_columns",
    "shard_data",
    "spectral_density",
    "trace",
    "train",
]
