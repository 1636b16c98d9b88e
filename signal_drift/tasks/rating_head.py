"""Predicts a text's rating from its embedding: mean-pooled hidden states and a linear head that stays frozen."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int

from signal_drift.lora.adapters import Weights
from signal_drift.losses.composite import composite
from signal_drift.models.bert import mean_pooled
from signal_drift.models.bridge import Forward
from signal_drift.tasks.criteria import mean_square

PENALTIES = np.logspace(-3, 3, 13)
"""What the ridge head's penalty is chosen from, by the error on left-out texts (sklearn's `RidgeCV`)."""
CHUNK = 32
"""Texts embedded at a time where no derivative is taken."""


class Examples(NamedTuple):
    """Holds the token ids, the mask of those that count, and the rating of every text."""

    ids: Int[Array, "*n t"]
    mask: Bool[Array, "*n t"]
    ratings: Float[Array, "*n"]

    def at(self, rows: Int[Array | np.ndarray, "*k"]) -> "Examples":
        """Take these texts in the shape of `rows`: of (steps, batch), one batch for every step."""
        return Examples(*(x[rows] for x in self))


class Head(NamedTuple):
    """Gives a text with the embedding e the rating ⟨e, weight⟩ + bias."""

    weight: Float[Array, "d"]
    bias: Float[Array, ""]


def embeddings(forward: Forward, weights: Weights, texts: Examples) -> Float[Array, "n d"]:
    """Compute the mean hidden state of every text, a few texts at a time."""
    return _embeddings(forward, dict(weights), texts)


@jax.jit
def _embeddings(forward: Forward, weights: Weights, texts: Examples) -> Float[Array, "n d"]:
    def one(text: tuple[Array, Array]) -> Array:
        ids, mask = (x[None] for x in text)
        return mean_pooled(forward(weights, ids, mask), mask)[0]

    return jax.lax.map(one, (texts.ids, texts.mask), batch_size=CHUNK)


def ridge_head(features: Float[Array, "n d"], ratings: Float[Array, "n"]) -> Head:
    """Minimise ‖F h + b − y‖² + c‖h‖², c of `PENALTIES` by leave-one-out."""
    from sklearn.linear_model import RidgeCV  # half a second that other users of the package need not pay

    fitted = RidgeCV(PENALTIES).fit(np.asarray(features, float), np.asarray(ratings, float))
    return Head(jnp.asarray(fitted.coef_, features.dtype), jnp.asarray(fitted.intercept_, features.dtype))


def rating_error(forward: Forward, head: Head, texts: Examples) -> Partial:
    """Make the loss ℓ(w) = (1/n) Σ_i (⟨e_i(w), weight⟩ + bias − y_i)², e_i(w) the embedding of text i."""
    outputs = Partial(_predicted, forward, head, texts.ids, texts.mask)
    return composite(outputs, Partial(mean_square, texts.ratings))


def batch_error(forward: Forward, head: Head) -> Partial:
    """Make the map (w, batch) ↦ `rating_error` on the batch."""
    return Partial(_on_batch, forward, head)


def _on_batch(forward: Forward, head: Head, weights: Weights, batch: Examples) -> Float[Array, ""]:
    return rating_error(forward, head, batch)(weights)


def _predicted(forward: Forward, head: Head, ids: Array, mask: Array, weights: Weights) -> Float[Array, "n"]:
    return mean_pooled(forward(weights, ids, mask), mask) @ head.weight + head.bias
