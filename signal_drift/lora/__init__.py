"""Open this for the map θ ↦ w(θ) = W₀ + s·BA itself: adapters, effective weights, J and Jᵀ, updates, values of α.

>>> import jax, jax.numpy as jnp
>>> base = {"layer": jnp.ones((4, 3))}
>>> adapters = init_adapters(jax.random.key(0), base, rank=2)
>>> {factor: x.shape for factor, x in adapters["layer"]._asdict().items()}
{'A': (2, 3), 'B': (4, 2)}
>>> bool(jnp.all(effective_weights(base, adapters, scaling=8.0)["layer"] == base["layer"]))  # B = 0
True
>>> delta = {"layer": Adapter(A=0.1 * jnp.ones((2, 3)), B=jnp.ones((4, 2)))}
>>> parts = decompose_update(adapters, delta, scaling=8.0)
>>> bool(jnp.allclose(parts.drift["layer"], 8 * 2 * 0.1))  # s ΔB ΔA
True
>>> alpha_base(rank=16, sigma_a=0.5)
8.0
"""

from signal_drift.lora.adapters import (
    Adapter,
    Adapters,
    Scaling,
    Weights,
    adjoint_product,
    effective_weights,
    init_adapters,
    jacobian_product,
    kaiming_uniform,
    normal_fan_in,
)
from signal_drift.lora.initialisers import lora_ga_adapters, milora_adapters, olora_adapters, pissa_adapters
from signal_drift.lora.scaling_rules import alpha_base, empirical_alpha_base, kaiming_sigma
from signal_drift.lora.updates import UpdateParts, alignment, decompose_update

__all__ = [
    "Adapter",
    "Adapters",
    "Scaling",
    "UpdateParts",
    "Weights",
    "adjoint_product",
    "alignment",
    "alpha_base",
    "decompose_update",
    "effective_weights",
    "empirical_alpha_base",
    "init_adapters",
    "jacobian_product",
    "kaiming_sigma",
    "kaiming_uniform",
    "lora_ga_adapters",
    "milora_adapters",
    "normal_fan_in",
    "olora_adapters",
    "pissa_adapters",
]
