"""Defines the decoder of the Llama family: RMSNorm, grouped-query attention with rotary positions, SwiGLU."""

from dataclasses import dataclass
from typing import NamedTuple, overload

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from signal_drift.errors import InputError
from signal_drift.errors.arguments import MOST
from signal_drift.models.attention import exact_attention


@dataclass(frozen=True)
class LlamaConfig:
    """Holds the sizes of a decoder, by their names in config.json, and how it turns queries and keys.

    `rope_interleaved` says which features of a head are one pair: i and i + d/2 as Hugging Face stores queries and
    keys, or 2i and 2i + 1 as GGUF files of Llama do. `rope_divisors` divide the frequency of each pair, 1 where empty.
    `max_position_embeddings` is the longest sequence that it takes, where the file states one.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_interleaved: bool = False
    rope_divisors: tuple[float, ...] = ()
    tie_word_embeddings: bool = False
    query_key_value_bias: bool = False
    output_bias: bool = False
    max_position_embeddings: int = MOST

    def __post_init__(self) -> None:
        """Raise `InputError` for sizes that make no decoder."""
        for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"):
            _check_size(name, getattr(self, name))
        for name in ("num_key_value_heads", "head_dim", "max_position_embeddings"):
            _check_size(name, getattr(self, name))
        if self.num_attention_heads % self.num_key_value_heads:
            raise InputError(
                f"num_key_value_heads: must divide num_attention_heads = {self.num_attention_heads}, got "
                f"{self.num_key_value_heads}"
            )
        if self.head_dim % 2:
            raise InputError(f"head_dim: must be even for rotary positions, got {self.head_dim}")
        if len(self.rope_divisors) not in (0, self.head_dim // 2):
            raise InputError(f"rope_divisors: must be {self.head_dim // 2}, one a pair, got {len(self.rope_divisors)}")


class KeysValues(NamedTuple):
    """Holds the turned keys and the values of one layer, of all tokens so far; what comes later is not read."""

    key: Float[Array, "n length heads_kv d"]
    value: Float[Array, "n length heads_kv d"]

    def put(self, first: Int[Array, ""] | int, key: Array, value: Array) -> "KeysValues":
        """Write those of the tokens from position `first` on, for which there has to be room."""
        pairs, at = zip(self, (key, value), strict=True), (0, first, 0, 0)
        return KeysValues(*(jax.lax.dynamic_update_slice(x, y, at) for x, y in pairs))


class LlamaAttention(nnx.Module):
    """Maps x to the causal attention of its tokens; query heads in groups share a head of keys and values.

    With `seen`, x are the tokens from position `first` on, which attend to those before them too.
    """

    def __init__(self, config: LlamaConfig, *, rngs: nnx.Rngs, dtype: DTypeLike) -> None:
        self.config = config
        width, d = config.hidden_size, config.head_dim

        def linear(d_in: int, d_out: int, bias: bool) -> nnx.Linear:
            return nnx.Linear(d_in, d_out, use_bias=bias, param_dtype=dtype, rngs=rngs)

        self.q = linear(width, config.num_attention_heads * d, config.query_key_value_bias)
        self.k = linear(width, config.num_key_value_heads * d, config.query_key_value_bias)
        self.v = linear(width, config.num_key_value_heads * d, config.query_key_value_bias)
        self.o = linear(config.num_attention_heads * d, width, config.output_bias)

    def __call__(
        self, x: Float[Array, "n t width"], seen: KeysValues | None = None, first: Int[Array, ""] | int = 0
    ) -> tuple[Float[Array, "n t width"], KeysValues]:
        n, t, _ = x.shape
        query, key, value = (y(x).reshape(n, t, -1, self.config.head_dim) for y in (self.q, self.k, self.v))
        query, key = (rotated(self.config, y, first) for y in (query, key))
        known = KeysValues(key, value) if seen is None else seen.put(first, key, value)
        causal = jnp.arange(known.key.shape[1]) <= first + jnp.arange(t)[:, None]
        return self.o(exact_attention(query, *known, mask=causal).reshape(n, t, -1)), known


class LlamaFeedForward(nnx.Module):
    """Maps x to W_down(silu(W_gate x) ⊙ W_up x), the SwiGLU."""

    def __init__(self, config: LlamaConfig, *, rngs: nnx.Rngs, dtype: DTypeLike) -> None:
        def linear(d_in: int, d_out: int) -> nnx.Linear:
            return nnx.Linear(d_in, d_out, use_bias=False, param_dtype=dtype, rngs=rngs)

        width, hidden = config.hidden_size, config.intermediate_size
        self.gate, self.up, self.down = linear(width, hidden), linear(width, hidden), linear(hidden, width)

    def __call__(self, x: Float[Array, "n t width"]) -> Float[Array, "n t width"]:
        return self.down(jax.nn.silu(self.gate(x)) * self.up(x))


class LlamaLayer(nnx.Module):
    """Maps x to y + feed_forward(norm(y)) with y = x + attention(norm(x))."""

    def __init__(self, config: LlamaConfig, *, rngs: nnx.Rngs, dtype: DTypeLike) -> None:
        self.attention_norm = _norm(config, rngs, dtype)
        self.attention = LlamaAttention(config, rngs=rngs, dtype=dtype)
        self.norm = _norm(config, rngs, dtype)
        self.feed_forward = LlamaFeedForward(config, rngs=rngs, dtype=dtype)

    def __call__(
        self, x: Float[Array, "n t width"], seen: KeysValues | None = None, first: Int[Array, ""] | int = 0
    ) -> tuple[Float[Array, "n t width"], KeysValues]:
        attended, known = self.attention(self.attention_norm(x), seen, first)
        x = x + attended
        return x + self.feed_forward(self.norm(x)), known

    def matrices(self) -> dict[str, nnx.Linear]:
        """Return the seven linear maps by their names."""
        return {x: getattr(self.attention, x) for x in "qkvo"} | {
            x: getattr(self.feed_forward, x) for x in ("gate", "up", "down")
        }


class Llama(nnx.Module):
    """Maps token ids to logits: those of position t are of the token at t + 1, from the tokens up to t.

    What gets adapters are seven matrices of every layer, attention.q, .k, .v, .o and feed_forward.gate, .up, .down;
    embeddings, norms and head are frozen.

    The layers are a list, one after the other in the trace, and not one scan over stacked weights. Both were measured
    on SmolLM2-135M with 760 tokens, in seconds of CPU, with the factors of rank 8 never merged: a gradient takes 7.9
    (scan: 9.1) and has 2.1 GiB of intermediate values (2.5), a product with H_LoRA 16.7 (18.2) and 3.7 GiB (3.9).
    Tracing and compiling takes 11 (14) for a gradient and 26 (18) for a product: what the scan saves there is spent
    after six products, on copying 106 million weights into its stacks. To rematerialise every layer takes 13.2 for a
    gradient and saves no memory, most of which the logits have.

    >>> config = LlamaConfig(11, 8, 12, 1, num_attention_heads=2, num_key_value_heads=1, head_dim=4)
    >>> Llama(config, rngs=nnx.Rngs(0))(jnp.array([[1, 5, 3]])).shape
    (1, 3, 11)
    """

    def __init__(self, config: LlamaConfig, *, rngs: nnx.Rngs, dtype: DTypeLike = jnp.float32) -> None:
        self.config = config

        def embed() -> nnx.Embed:
            return nnx.Embed(config.vocab_size, config.hidden_size, param_dtype=dtype, rngs=rngs)

        self.words = embed()
        self.layers = nnx.List(LlamaLayer(config, rngs=rngs, dtype=dtype) for _ in range(config.num_hidden_layers))
        self.norm = _norm(config, rngs, dtype)
        self.head = None if config.tie_word_embeddings else embed()

    @overload
    def __call__(self, tokens: Int[Array, "n t"]) -> Float[Array, "n t vocabulary"]: ...

    @overload
    def __call__(
        self, tokens: Int[Array, "n t"], seen: tuple[KeysValues, ...], first: Int[Array, ""] | int
    ) -> tuple[Float[Array, "n t vocabulary"], tuple[KeysValues, ...]]: ...

    def __call__(
        self,
        tokens: Int[Array, "n t"],
        seen: tuple[KeysValues, ...] | None = None,
        first: Int[Array, ""] | int = 0,
    ) -> Float[Array, "n t vocabulary"] | tuple[Float[Array, "n t vocabulary"], tuple[KeysValues, ...]]:
        """Return the logits; with what was `seen` of the tokens before position `first`, that with these tokens too."""
        longest = self.config.max_position_embeddings
        length = tokens.shape[1] if seen is None else seen[0].key.shape[1]
        if length > longest:
            raise InputError(f"tokens: {length} a sequence, more than max_position_embeddings = {longest}")
        # nnx.Embed computes in the dtype that it was made in; the tables may have been cast since
        words, head = (jnp.asarray(table.embedding[...]) for table in (self.words, self.head or self.words))
        x, known = words[tokens], []
        for layer, before in zip(self.layers, seen or (None,) * len(self.layers), strict=True):
            x, now = layer(x, before, first)
            known.append(now)
        logits = self.norm(x) @ head.T
        return logits if seen is None else (logits, tuple(known))


def rotated(
    config: LlamaConfig, x: Float[Array, "n t heads d"], first: Int[Array, ""] | int = 0
) -> Float[Array, "n t heads d"]:
    """Turn the i-th pair of features of the token at t by the angle t·θ^(−2i/d), divided by the i-th divisor.

    The first token is at t = `first`.
    """
    d, dtype = x.shape[-1], jnp.promote_types(x.dtype, jnp.float32)
    frequency = config.rope_theta ** (-jnp.arange(0, d, 2, dtype=dtype) / d)
    if config.rope_divisors:
        frequency = frequency / jnp.asarray(config.rope_divisors, dtype)
    angle = (first + jnp.arange(x.shape[1]))[:, None, None].astype(dtype) * frequency
    cos, sin = jnp.cos(angle).astype(x.dtype), jnp.sin(angle).astype(x.dtype)
    if config.rope_interleaved:
        a, b = x[..., ::2], x[..., 1::2]
        return jnp.stack([a * cos - b * sin, b * cos + a * sin], axis=-1).reshape(x.shape)
    a, b = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def _norm(config: LlamaConfig, rngs: nnx.Rngs, dtype: DTypeLike) -> nnx.RMSNorm:
    return nnx.RMSNorm(config.hidden_size, epsilon=config.rms_norm_eps, param_dtype=dtype, rngs=rngs)


def _check_size(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"{name}: must be a positive integer, got {value!r}")
