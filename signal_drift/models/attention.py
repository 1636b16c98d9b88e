"""Computes attention with a softmax in the precision of its inputs."""

from typing import Any

from flax import nnx
from jaxtyping import Array, Float

from signal_drift.errors import InputError
from signal_drift.lora.adapters import check_array


def exact_attention(
    query: Float[Array, "*n t heads d"],
    key: Float[Array, "*n s heads_kv d"],
    value: Float[Array, "*n s heads_kv e"],
    **options: Any,
) -> Float[Array, "*n t heads e"]:
    """Compute softmax(QKᵀ/√d)V in the dtype of Q, as the `attention_fn` of an `nnx.MultiHeadAttention`.

    Flax's shortcut for attention without dropout takes the softmax in float32 whatever the dtype, which leaves
    errors of 1e-8 in a float64 Hessian. A dropout rate that `deterministic` switches off avoids the shortcut.
    """
    for name, x in (("query", query), ("key", key), ("value", value)):
        if check_array(name, x).ndim != query.ndim or x.ndim < 3:
            raise InputError(f"{name}: must have the axes (…, t, heads, d), as many as the query, got shape {x.shape}")
    if query.shape[-1] != key.shape[-1] or key.shape[:-1] != value.shape[:-1] or query.shape[:-3] != key.shape[:-3]:
        raise InputError(f"key: shapes {query.shape}, {key.shape} and {value.shape} of Q, K and V do not fit")
    return nnx.dot_product_attention(query, key, value, **options | {"dropout_rate": 0.5, "deterministic": True})
