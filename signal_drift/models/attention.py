"""Computes attention with a softmax in the precision of its inputs."""

from typing import Any

from flax import nnx
from jaxtyping import Array, Float


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
    return nnx.dot_product_attention(query, key, value, **options | {"dropout_rate": 0.5, "deterministic": True})
