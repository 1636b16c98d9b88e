"""Open this for adapters other than LoRA: any map (W₀, θ) ↦ W has signal and drift, and some are written here.

>>> import jax.numpy as jnp
>>> from signal_drift.lora import Adapter
>>> base = {"layer": jnp.ones((2, 3))}
>>> def loss(weights):
...     return jnp.sum(weights["layer"] ** 2)
>>> parts = decompose_map(loss, base, {"layer": Adapter(jnp.ones((1, 3)), jnp.ones((2, 1)))}, lora(0.5))
>>> v = jnp.ones(5)
>>> bool(jnp.allclose(parts.lora @ v, parts.signal @ v + parts.drift @ v))
True
>>> bool(jnp.any(decompose_map(loss, base, {"layer": 2 * jnp.ones(2)}, ia3).drift @ jnp.ones(2)))  # linear in θ
False
"""

from signal_drift.maps.decomposition import decompose_map
from signal_drift.maps.low_rank import Dora, Vera, dora, lora, lora_fa, rslora, vera
from signal_drift.maps.point import LayerMap, MapPoint, Theta
from signal_drift.maps.products import Loha, Lokr, ia3, loha, lokr, mora

__all__ = [
    "Dora",
    "LayerMap",
    "Loha",
    "Lokr",
    "MapPoint",
    "Theta",
    "Vera",
    "decompose_map",
    "dora",
    "ia3",
    "loha",
    "lokr",
    "lora",
    "lora_fa",
    "mora",
    "rslora",
    "vera",
]
