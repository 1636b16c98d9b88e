"""Lets a decoder go on from prompts, greedily or by drawing tokens; keys and values of what it has seen are kept."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, Key

from signal_drift.errors import InputError
from signal_drift.errors.arguments import is_real, whole
from signal_drift.errors.words import shown
from signal_drift.lora.adapters import Weights
from signal_drift.models.bridge import Forward
from signal_drift.models.llama.decoder import KeysValues, LlamaConfig

State = tuple[tuple[KeysValues, ...], Int[Array, "n"], Bool[Array, "n"]]
"""What was seen, the token that comes next, and whether the continuation has ended."""


def continued(
    forward: Forward,
    config: LlamaConfig,
    weights: Weights,
    prompts: Int[Array, "n t"],
    lengths: Int[Array, "n"],
    length: int,
    end: int,
    key: Key[Array, ""] | None = None,
    temperature: float = 1.0,
) -> tuple[Int[Array, "n length"], Bool[Array, "n length"]]:
    """Return every prompt with its continuation, to `length` tokens in all, and which tokens are the continuation's.

    The i-th prompt has `lengths[i]` tokens; what `prompts` holds after them is not read. The next token is the most
    likely one, or drawn with p ∝ exp(logit/`temperature`) where there is a `key`: one key gives the same tokens. A
    continuation stops with the token `end`, which belongs to it; all that comes after is 0.

    The model sees one token of every row after another, the prompt's where it has one. `forward` is that of a `Llama`
    of this `config`, as `base_and_forward` gives it. Raises `InputError` for prompts that leave no room, lengths out of
    range and a temperature that is not positive.
    """
    length = whole("length", length, least=2)
    if prompts.shape[1] >= length:
        raise InputError(f"length: must be more than the {prompts.shape[1]} tokens of the prompts, got {length}")
    if not isinstance(lengths, Tracer) and not bool(jnp.all((lengths > 0) & (lengths <= prompts.shape[1]))):
        raise InputError(f"lengths: must be from 1 to {prompts.shape[1]}, got {shown(lengths)}")
    if not is_real(temperature) or not temperature > 0:
        raise InputError(f"temperature: must be a positive number, got {shown(temperature)}")
    return _continued(forward, weights, prompts, lengths, end, key, temperature, config=config, length=length)


@partial(jax.jit, static_argnames=("config", "length"))
def _continued(
    forward: Forward,
    weights: Weights,
    prompts: Int[Array, "n t"],
    lengths: Int[Array, "n"],
    end: int | Array,
    key: Key[Array, ""] | None,
    temperature: float | Array,
    *,
    config: LlamaConfig,
    length: int,
) -> tuple[Int[Array, "n length"], Bool[Array, "n length"]]:
    n, t = prompts.shape
    given = jnp.pad(prompts, ((0, 0), (0, length - t)))
    dtype = jax.eval_shape(forward, weights, prompts).dtype
    empty = jnp.zeros((n, length, config.num_key_value_heads, config.head_dim), dtype)

    def step(state: State, at: Int[Array, ""]) -> tuple[State, tuple[Array, Array]]:
        """Take the tokens at position `at` to those at the next."""
        seen, tokens, done = state
        logits, seen = forward(weights, tokens[:, None], seen, at)
        chosen = _chosen(logits[:, 0], None if key is None else jax.random.fold_in(key, at), temperature)
        own = at + 1 >= lengths
        then = jnp.where(own, jnp.where(done, 0, chosen), given[:, at + 1])
        return (seen, then, done | (own & (then == end))), (then, own & ~done)

    start: State = ((KeysValues(empty, empty),) * config.num_hidden_layers, given[:, 0], jnp.zeros(n, bool))
    _, (tokens, own) = jax.lax.scan(step, start, jnp.arange(length - 1))
    return jnp.concatenate([given[:, :1], tokens.T], axis=1), jnp.pad(own.T, ((0, 0), (1, 0)))


def _chosen(
    logits: Float[Array, "n vocabulary"], key: Key[Array, ""] | None, temperature: float | Array
) -> Int[Array, "n"]:
    if key is None:
        return logits.argmax(-1).astype(jnp.int32)
    return jax.random.categorical(key, logits / temperature).astype(jnp.int32)
