"""The laboratory in which LoRA's theory is tested exactly; open this first, `import signal_drift as sd`.

`decompose` gives the Jacobian, the task, signal, drift and LoRA Hessians of any loss over adapted weights as
operators, `decompose_map` those of any other adapter, `gauss_newton` the part of the curvature that the criterion alone
puts there; `decompose_update` splits an update; `eigenvalues`, `extreme_eigenvalues`, `trace`, `estimate_trace` and
`spectral_density` read spectra; `train` records what signal and drift do along a run. Each comes from a package with an
introduction of its own.

>>> import jax, jax.numpy as jnp
>>> import optax
>>> import signal_drift as sd
>>> X, base = jnp.eye(3), {"layer": jnp.ones((2, 3))}
>>> adapters = sd.init_adapters(jax.random.key(0), base, rank=2)
>>> def loss(weights):
...     return jnp.sum((X @ weights["layer"].T) ** 2) / 2
>>> sd.trace(sd.decompose(loss, base, adapters, scaling=1.0).drift)
0.0
>>> run = sd.train(loss, base, adapters, 1.0, optax.sgd(0.1), steps=2)
>>> float(run.drift_norm[0]), bool(run.drift_norm[1] > 0)  # the first step from B = 0 has no drift
(0.0, True)
"""

from signal_drift.errors import InputError
from signal_drift.hessians import Decomposition, GaussNewton, decompose, decompose_layer, gauss_newton
from signal_drift.lora import (
    Adapter,
    UpdateParts,
    adjoint_product,
    alignment,
    alpha_base,
    decompose_update,
    effective_weights,
    empirical_alpha_base,
    init_adapters,
    jacobian_product,
    kaiming_sigma,
    kaiming_uniform,
    normal_fan_in,
)
from signal_drift.losses import composite, mean_over_batches
from signal_drift.maps import decompose_map
from signal_drift.models.attention import exact_attention
from signal_drift.models.bridge import base_and_forward
from signal_drift.models.lora_modules import LoRAModel, lora_and_forward
from signal_drift.models.mlp import MLP
from signal_drift.operators import LinearOperator, SymmetricOperator, shard_columns, shard_data
from signal_drift.optimizers import frozen_A, one_factor_at_a_time, separate_rates
from signal_drift.spectra import (
    Block,
    CriticalSharpness,
    Estimate,
    ExtremeEigenvalues,
    LayerView,
    SpectralDensity,
    critical_sharpness,
    eigenvalues,
    estimate_trace,
    extreme_eigenvalues,
    layer_views,
    spectral_density,
    trace,
)
from signal_drift.training import DriftNoise, RecordedRun, Run, Step, pad_rank, train

__all__ = [
    "MLP",
    "Adapter",
    "Block",
    "CriticalSharpness",
    "Decomposition",
    "DriftNoise",
    "Estimate",
    "ExtremeEigenvalues",
    "GaussNewton",
    "InputError",
    "LayerView",
    "LinearOperator",
    "LoRAModel",
    "RecordedRun",
    "Run",
    "SpectralDensity",
    "Step",
    "SymmetricOperator",
    "UpdateParts",
    "adjoint_product",
    "alignment",
    "alpha_base",
    "base_and_forward",
    "composite",
    "critical_sharpness",
    "decompose",
    "decompose_layer",
    "decompose_map",
    "decompose_update",
    "effective_weights",
    "eigenvalues",
    "empirical_alpha_base",
    "estimate_trace",
    "exact_attention",
    "extreme_eigenvalues",
    "frozen_A",
    "gauss_newton",
    "init_adapters",
    "jacobian_product",
    "kaiming_sigma",
    "kaiming_uniform",
    "layer_views",
    "lora_and_forward",
    "mean_over_batches",
    "normal_fan_in",
    "one_factor_at_a_time",
    "pad_rank",
    "separate_rates",
    "shard_columns",
    "shard_data",
    "spectral_density",
    "trace",
    "train",
]
