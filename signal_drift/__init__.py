"""The laboratory in which LoRA's theory is tested exactly.

`decompose` gives the Jacobian, the task, signal, drift and LoRA Hessians of any loss over adapted weights as
operators, `gauss_newton` the part of the curvature that the criterion alone puts there; `decompose_update` splits an
update; `eigenvalues`, `extreme_eigenvalues`, `trace`, `estimate_trace` and `spectral_density` read spectra.
"""

from signal_drift.errors import InputError
from signal_drift.hessians.decomposition import Decomposition, decompose
from signal_drift.hessians.gauss_newton import GaussNewton, gauss_newton
from signal_drift.hessians.one_layer import decompose_layer
from signal_drift.lora.adapters import (
    Adapter,
    adjoint_product,
    effective_weights,
    init_adapters,
    jacobian_product,
    kaiming_uniform,
    normal_fan_in,
)
from signal_drift.lora.scaling_rules import alpha_base, empirical_alpha_base, kaiming_sigma
from signal_drift.lora.updates import UpdateParts, alignment, decompose_update
from signal_drift.losses.batches import mean_over_batches
from signal_drift.losses.composite import composite
from signal_drift.models.attention import exact_attention
from signal_drift.models.bridge import LoRAModel, base_and_forward, lora_and_forward
from signal_drift.models.mlp import MLP
from signal_drift.operators.operator import LinearOperator, SymmetricOperator
from signal_drift.operators.sharding import shard_columns, shard_data
from signal_drift.spectra.exact import eigenvalues, trace
from signal_drift.spectra.extremes import ExtremeEigenvalues, extreme_eigenvalues
from signal_drift.spectra.layers import Block, LayerView, layer_views
from signal_drift.spectra.stochastic import Estimate, SpectralDensity, estimate_trace, spectral_density
from signal_drift.training import Run, pad_rank, separate_rates, train

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
