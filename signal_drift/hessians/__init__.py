"""Open this for curvature: H_LoRA = H_Signal + H_Drift at one point, one layer of it, and its Gauss–Newton part.

>>> import jax, jax.numpy as jnp
>>> from signal_drift.lora import init_adapters
>>> from signal_drift.losses import composite
>>> X, base = jnp.arange(6.0).reshape(2, 3), {"layer": jnp.ones((2, 3))}
>>> adapters = init_adapters(jax.random.key(0), base, rank=2)
>>> loss = composite(lambda weights: X @ weights["layer"].T, lambda y: jnp.mean(y**2))
>>> parts = decompose(loss, base, adapters, scaling=0.5)
>>> {name: operator.shape for name, operator in parts._asdict().items()}
{'jacobian': (6, 10), 'task': (6, 6), 'signal': (10, 10), 'drift': (10, 10), 'lora': (10, 10)}
>>> v = jnp.ones(10)
>>> bool(jnp.allclose(parts.lora @ v, parts.signal @ v + parts.drift @ v))
True
>>> bool(jnp.allclose(gauss_newton(loss, base, adapters, 0.5).task @ jnp.ones(6), parts.task @ jnp.ones(6)))
True
"""

from signal_drift.hessians.decomposition import Decomposition, decompose
from signal_drift.hessians.factored import composed_loss
from signal_drift.hessians.gauss_newton import GaussNewton, criterion_curvature, gauss_newton
from signal_drift.hessians.one_layer import decompose_layer

__all__ = [
    "Decomposition",
    "GaussNewton",
    "composed_loss",
    "criterion_curvature",
    "decompose",
    "decompose_layer",
    "gauss_newton",
]
