"""Loads a BERT-family encoder into flax.nnx from an ordinary Hugging Face directory."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from signal_drift.errors import InputError
from signal_drift.files import find_weights, read_config, read_stored
from signal_drift.files.hugging_face import CONFIG, WEIGHTS, settings_of
from signal_drift.models.attention import exact_attention
from signal_drift.models.fill import Place, Source, fill, places


@dataclass(frozen=True)
class BertConfig:
    """Holds the sizes of an encoder, by their names in config.json."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12


class BertLayer(nnx.Module):
    """Maps x to LN(y + φ(y W_inᵀ) W_outᵀ) with y = LN(x + attention(x)), φ the exact GELU, biases everywhere."""

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs, dtype: DTypeLike) -> None:
        width, hidden = config.hidden_size, config.intermediate_size
        self.attention = nnx.MultiHeadAttention(
            config.num_attention_heads,
            width,
            decode=False,
            attention_fn=exact_attention,
            param_dtype=dtype,
            rngs=rngs,
        )
        self.attention_norm = _norm(config, rngs, dtype)
        self.expand = nnx.Linear(width, hidden, param_dtype=dtype, rngs=rngs)
        self.contract = nnx.Linear(hidden, width, param_dtype=dtype, rngs=rngs)
        self.norm = _norm(config, rngs, dtype)

    def __call__(self, x: Float[Array, "n t d"], mask: Bool[Array, "n t"]) -> Float[Array, "n t d"]:
        y = self.attention_norm(x + self.attention(x, mask=mask[:, None, None, :]))
        return self.norm(y + self.contract(jax.nn.gelu(self.expand(y), approximate=False)))


class Bert(nnx.Module):
    """Maps token ids and the mask of those that count to the last hidden states.

    It has no dropout, one token type and no pooler.
    """

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs, dtype: DTypeLike = jnp.float32) -> None:
        def embed(count: int) -> nnx.Embed:
            return nnx.Embed(count, config.hidden_size, param_dtype=dtype, rngs=rngs)

        self.words = embed(config.vocab_size)
        self.positions = embed(config.max_position_embeddings)
        self.types = embed(config.type_vocab_size)
        self.norm = _norm(config, rngs, dtype)
        self.layers = nnx.List(BertLayer(config, rngs=rngs, dtype=dtype) for _ in range(config.num_hidden_layers))

    def __call__(self, tokens: Int[Array, "n t"], mask: Bool[Array, "n t"]) -> Float[Array, "n t d"]:
        positions = self.positions(jnp.arange(tokens.shape[1]))
        x = self.norm(self.words(tokens) + positions + self.types(jnp.zeros_like(tokens)))
        for layer in self.layers:
            x = layer(x, mask)
        return x


def mean_pooled(states: Float[Array, "n t d"], mask: Bool[Array, "n t"]) -> Float[Array, "n d"]:
    """Compute the mean of the hidden states over the tokens that count."""
    return jnp.einsum("ntd,nt->nd", states, mask.astype(states.dtype)) / jnp.sum(mask, axis=1, keepdims=True)


def load_bert(folder: str | Path, dtype: DTypeLike = jnp.float32) -> Bert:
    """Load the encoder that `config.json` and `model.safetensors` describe, its hidden states those of `transformers`.

    Names in the file may begin with "bert.". Raises `InputError` for a folder without them, for another architecture,
    and for weights that are missing, damaged or of another shape.
    """
    folder = Path(folder)
    config = _config(read_config(folder))
    stored = {name.removeprefix("bert."): x for name, x in find_weights(folder).items()}
    model = nnx.eval_shape(lambda: Bert(config, rngs=nnx.Rngs(0), dtype=dtype))
    shapes = {name: x.shape for name, x in stored.items()}
    fill(_places(model), Source(WEIGHTS, shapes, lambda name: read_stored(name, stored[name])))
    return model


def _norm(config: BertConfig, rngs: nnx.Rngs, dtype: DTypeLike) -> nnx.LayerNorm:
    size, eps = config.hidden_size, config.layer_norm_eps
    return nnx.LayerNorm(size, epsilon=eps, use_fast_variance=False, param_dtype=dtype, rngs=rngs)


def _config(found: dict[str, Any]) -> BertConfig:
    kind, activation = found.get("model_type"), found.get("hidden_act", "gelu")
    if kind != "bert" or activation != "gelu" or found.get("position_embedding_type", "absolute") != "absolute":
        raise InputError(f"{CONFIG}: must be of a BERT with absolute positions and GELU, got {kind!r}, {activation!r}")
    config = BertConfig(**settings_of(BertConfig, found))
    for name, value in vars(config).items():
        if name != "layer_norm_eps" and (not isinstance(value, int) or value < 1):
            raise InputError(f"{CONFIG}: {name} must be a positive integer, got {value!r}")
    if config.hidden_size % config.num_attention_heads:
        raise InputError(
            f"{CONFIG}: num_attention_heads must divide {config.hidden_size}, got {config.num_attention_heads}"
        )
    return config


def _places(model: Bert) -> dict[str, Place]:
    """Names in the file and the variables they belong to."""
    embeddings = {"word": model.words, "position": model.positions, "token_type": model.types}
    modules: dict[str, Any] = {f"embeddings.{k}_embeddings": module for k, module in embeddings.items()}
    modules |= {"embeddings.LayerNorm": model.norm}
    for i, layer in enumerate(model.layers):
        at = f"encoder.layer.{i}"
        modules |= {f"{at}.attention.self.{k}": getattr(layer.attention, k) for k in ("query", "key", "value")}
        modules |= {f"{at}.attention.output.dense": layer.attention.out, f"{at}.intermediate.dense": layer.expand}
        modules |= {f"{at}.attention.output.LayerNorm": layer.attention_norm, f"{at}.output.dense": layer.contract}
        modules |= {f"{at}.output.LayerNorm": layer.norm}
    return {key: place for name, module in modules.items() for key, place in places(name, module).items()}
