"""Embeds texts: the mean of an encoder's hidden states over the tokens that count."""

import jax
from jaxtyping import Array, Bool, Float, Int

from signal_drift.lora.adapters import Weights
from signal_drift.models.bert import mean_pooled
from signal_drift.models.bridge import Forward

CHUNK = 32
"""Texts embedded at a time where no derivative is taken."""


def embeddings(
    forward: Forward, weights: Weights, ids: Int[Array, "n t"], mask: Bool[Array, "n t"]
) -> Float[Array, "n d"]:
    """Compute the mean hidden state of every text, a few texts at a time."""
    return _embeddings(forward, dict(weights), ids, mask)


@jax.jit
def _embeddings(
    forward: Forward, weights: Weights, ids: Int[Array, "n t"], mask: Bool[Array, "n t"]
) -> Float[Array, "n d"]:
    def one(text: tuple[Array, Array]) -> Array:
        ids, mask = (x[None] for x in text)
        return mean_pooled(forward(weights, ids, mask), mask)[0]

    return jax.lax.map(one, (ids, mask), batch_size=CHUNK)
