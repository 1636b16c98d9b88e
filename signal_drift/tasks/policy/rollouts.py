"""Lets a decoder answer every question several times, and says how likely what it said is."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from signal_drift.errors.arguments import random_key, whole
from signal_drift.lora.adapters import Weights
from signal_drift.models.bridge import Forward
from signal_drift.models.llama import LlamaConfig
from signal_drift.tasks.answers.chats import Chats
from signal_drift.tasks.answers.replies import replied


def rolled_out(
    forward: Forward,
    config: LlamaConfig,
    weights: Weights,
    questions: Chats,
    group: int,
    end: int,
    key: Key[Array, ""],
) -> Chats:
    """Draw G = `group` completions of every question from the policy: those of the i-th are the rows iG to iG + G − 1.

    What a question is, and what is returned of each, is as in `replied`. One key gives the same completions. Raises
    `InputError` for a group of less than two, for questions that leave no room for an answer, and for more tokens than
    the model takes.
    """
    group, key = whole("group", group, least=2), random_key("key", key)
    several = Chats(*(jnp.repeat(x, group, axis=0) for x in questions))
    return replied(forward, config, weights, several, end, key)


def log_probabilities(tokens: Int[Array, "*n t"], logits: Float[Array, "*n t vocabulary"]) -> Float[Array, "*n u"]:
    """Return log π(token_t | the tokens before) of every token but the first, u = t − 1."""
    each = jax.nn.log_softmax(logits[..., :-1, :])
    return jnp.take_along_axis(each, tokens[..., 1:, None], axis=-1)[..., 0]


def completion_probabilities(forward: Forward, chats: Chats, weights: Weights) -> Float[Array, "n"]:
    """Return π(answer | question), Π_t π(token_t | the tokens before) over the tokens of every answer.

    Where one answer alone is rewarded, by 1, it is the expected reward: no completion need be drawn.
    """
    found = log_probabilities(chats.tokens, forward(weights, chats.tokens))
    return jnp.exp(jnp.sum(found, axis=-1, where=chats.answered[:, 1:]))
