"""Defines a small transformer that classifies a sample read as a few tokens."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from signal_drift.errors import InputError
from signal_drift.models.attention import exact_attention


class TransformerBlock(nnx.Module):
    """Maps x to y + φ(LN(y) W_inᵀ) W_outᵀ with y = x + attention(LN(x)), φ = GELU."""

    def __init__(self, width: int, heads: int, hidden: int, *, rngs: nnx.Rngs, dtype: DTypeLike) -> None:
        self.attention_norm = nnx.LayerNorm(width, param_dtype=dtype, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(
            heads, width, decode=False, attention_fn=exact_attention, param_dtype=dtype, rngs=rngs
        )
        self.norm = nnx.LayerNorm(width, param_dtype=dtype, rngs=rngs)
        self.expand = nnx.Linear(width, hidden, param_dtype=dtype, rngs=rngs)
        self.contract = nnx.Linear(hidden, width, param_dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "n tokens width"]) -> Float[Array, "n tokens width"]:
        x = x + self.attention(self.attention_norm(x))
        return x + self.contract(jax.nn.gelu(self.expand(self.norm(x))))


class TransformerClassifier(nnx.Module):
    """Classifies a sample: its features in `tokens` parts → embedding + position → blocks → mean over tokens → head."""

    def __init__(
        self,
        features: int,
        classes: int,
        *,
        tokens: int,
        width: int,
        heads: int,
        blocks: int,
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float64,
    ) -> None:
        if min(features, classes, tokens, width, heads, blocks) < 1 or features % tokens or width % heads:
            raise InputError(
                f"tokens: must divide the features, and heads the width, all of them positive, got {tokens} tokens of "
                f"{features} features, {heads} heads of width {width}, {classes} classes, {blocks} blocks"
            )
        self.tokens = tokens
        self.embed = nnx.Linear(features // tokens, width, param_dtype=dtype, rngs=rngs)
        self.position = nnx.Param(jax.random.normal(rngs.params(), (tokens, width), dtype) / width**0.5)
        self.blocks = nnx.List(TransformerBlock(width, heads, 2 * width, rngs=rngs, dtype=dtype) for _ in range(blocks))
        self.norm = nnx.LayerNorm(width, param_dtype=dtype, rngs=rngs)
        self.head = nnx.Linear(width, classes, param_dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "n features"]) -> Float[Array, "n classes"]:
        x = self.embed(x.reshape(len(x), self.tokens, -1)) + self.position[...]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(axis=1))
