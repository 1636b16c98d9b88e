"""Open this for a matrix that is known by its products, and for spreading it over devices.

The operators themselves come from `signal_drift.hessians`.

>>> import jax, jax.numpy as jnp
>>> from signal_drift.hessians import decompose
>>> from signal_drift.lora import init_adapters
>>> base = {"layer": jnp.eye(2)}
>>> adapters = init_adapters(jax.random.key(0), base, rank=1)
>>> H = decompose(lambda weights: jnp.sum(weights["layer"] ** 2), base, adapters, scaling=1.0).task
>>> H.shape
(4, 4)
>>> (H @ jnp.ones(4)).tolist()
[2.0, 2.0, 2.0, 2.0]
>>> H.diagonal().tolist()
[2.0, 2.0, 2.0, 2.0]
>>> shard_columns(H, jax.make_mesh((1,), ("columns",))).dense().shape
(4, 4)
"""

from signal_drift.operators.operator import LinearMap, LinearOperator, Point, SymmetricOperator
from signal_drift.operators.sharding import shard_columns, shard_data

__all__ = ["LinearMap", "LinearOperator", "Point", "SymmetricOperator", "shard_columns", "shard_data"]
