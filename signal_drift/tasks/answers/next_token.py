"""Judges a language model by the next tokens of answers, each given what comes before it."""

from jax.tree_util import Partial
from jaxtyping import Array, Float, Int

from signal_drift.lora.adapters import Weights
from signal_drift.losses.composite import composite
from signal_drift.models.bridge import Forward
from signal_drift.tasks.answers.chats import Chats
from signal_drift.tasks.criteria import masked_cross_entropy


def next_token_loss(forward: Forward, chats: Chats) -> Partial:
    """Make the loss ℓ(w) = −(1/m) Σ log softmax(logits_{i,t−1}(w))[token_{i,t}], over the m tokens (i, t) of answers.

    `forward` maps (w, tokens) to logits (n, t, vocabulary), those at t from the tokens up to t. Nothing depends on the
    tokens after the end of a chat, and chats of one length share what is compiled.
    """
    outputs = Partial(_predictions, forward, chats.tokens)
    return composite(outputs, Partial(masked_cross_entropy, chats.tokens[:, 1:], chats.answered[:, 1:]))


def batch_next_token_loss(forward: Forward) -> Partial:
    """Make the map (w, batch) ↦ `next_token_loss` on the batch."""
    return Partial(_on_batch, forward)


def _on_batch(forward: Forward, weights: Weights, batch: Chats) -> Float[Array, ""]:
    return next_token_loss(forward, batch)(weights)


def _predictions(forward: Forward, tokens: Int[Array, "n t"], weights: Weights) -> Float[Array, "n u vocabulary"]:
    """The logits of every token but the first, u = t − 1."""
    return forward(weights, tokens)[:, :-1]
