"""Reads a prompt once for all that is said after it, where all prompts have the same number of tokens."""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import register_dataclass
from jaxtyping import Array, Float, Int

from signal_drift.errors import InputError
from signal_drift.errors.arguments import whole
from signal_drift.lora.adapters import Weights
from signal_drift.models.bridge import Forward
from signal_drift.models.llama.decoder import KeysValues, LlamaConfig


def after_prompts(forward: Forward, config: LlamaConfig, prompts: Int[Array, "n p"], group: int) -> "AfterPrompts":
    """Make the map (w, tokens) ↦ logits of a decoder that has read prompts: the rows iG to iG + G − 1 follow the i-th.

    They are the logits of those rows with their prompt in front, without those of the prompt, which is read once and
    not G = `group` times; the derivative in w has its part through the prompt. Raises `InputError` for prompts without
    tokens, and where it is called for prompts that leave the model no room.
    """
    if not prompts.shape[-1]:
        raise InputError(f"prompts: must have at least one token, got the shape {prompts.shape}")
    return AfterPrompts(**vars(forward), config=config, group=whole("group", group, least=1), prompts=prompts)


@register_dataclass
@dataclass(frozen=True, eq=False, repr=False)
class AfterPrompts(Forward):
    """Holds a decoder with the prompts that everything follows."""

    config: LlamaConfig = field(metadata={"static": True})
    group: int = field(metadata={"static": True})
    prompts: Int[Array, "n p"]

    def __call__(self, weights: Weights, tokens: Int[Array, "m t"]) -> Float[Array, "m t vocabulary"]:
        """Return the logits of tokens after the prompts."""
        return self.at(weights)(weights, tokens)

    def at(self, weights: Weights) -> "Following":
        """Read the prompts with these weights, once for all tokens that come to be said with them."""
        (n, p), config = self.prompts.shape, self.config
        dtype = jax.eval_shape(super().__call__, weights, self.prompts).dtype
        empty = jnp.zeros((n, p, config.num_key_value_heads, config.head_dim), dtype)
        _, known = super().__call__(weights, self.prompts, (KeysValues(empty, empty),) * config.num_hidden_layers, 0)
        before = jax.tree.map(lambda x: jnp.repeat(x, self.group, axis=0), known)
        return Following(self.graphdef, self.layers, self.passed_over, self.state, before)


@register_dataclass
@dataclass(frozen=True, eq=False, repr=False)
class Following(Forward):
    """Holds a decoder with keys and values of what it has read; it is called as a `Llama` that has read nothing."""

    before: tuple[KeysValues, ...]

    def __call__(
        self,
        weights: Weights,
        tokens: Int[Array, "m t"],
        seen: tuple[KeysValues, ...] | None = None,
        first: Int[Array, ""] | int = 0,
    ) -> Any:
        """Return the logits (m, t, vocabulary); with what was `seen` since, that with these tokens too."""
        p, shape = self.before[0].key.shape[1], tokens.shape
        own = jax.tree.map(lambda x: jnp.zeros((*shape, *x.shape[2:]), x.dtype), self.before) if seen is None else seen
        whole = jax.tree.map(lambda x, y: jnp.concatenate([x, y], axis=1), self.before, own)
        logits, known = super().__call__(weights, tokens, whole, p + first)
        return logits if seen is None else (logits, jax.tree.map(lambda x: x[:, p:], known))
