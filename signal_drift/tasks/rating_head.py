"""Regression of a text's rating on its embedding: mean-pooled hidden states and a linear head that stays frozen."""

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

PENALTIES = np.logspace(-3, 3, 13)
"""What the ridge head's penalty is chosen from, by the error on left-out texts (sklearn's `RidgeCV`)."""
CHUNK = 32
"""Texts embedded at a time where no derivative is taken."""


class Examples(NamedTuple):
    """Token ids, the mask of those that count, and the rating of every text."""

    ids: Int[Array, "*n t"]
    mask: Bool[Array, "*n t"]
    ratings: Float[Array, "*n"]

    def at(self, rows: Int[Array | np.ndarray, "*k"]) -> "Examples":
        """These texts, in the shape of `rows`: of (steps, batch), one batch for every step."""
        return Examples(*(x[rows] for x in self))


class Head(NamedTuple):
    """The rating ⟨e, weight⟩ + bias of a text with the embedding e."""

    weight: Float[Array, "d"]
    bias: Float[Array, ""]


def embeddings(forward: Forward, weights: Weights, texts: Examples) -> Float[Array, "n d"]:
    """The mean hidden state of every text, a few texts at a time."""
    return _embeddings(forward, dict(weights), texts)


@jax.jit
def _embeddings(forward: Forward, weights: Weights, texts: Examples) -> Float[Array, "n d"]:
    def one(text: tuple[Array, Array]) -> Array:
        ids, mask = (x[None] for x in text)
        return mean_pooled(forward(weights, ids, mask), mask)[0]

    return jax.lax.map(one, (texts.ids, texts.mask), batch_size=CHUNK)


def ridge_head(features: Float[Array, "n d"], ratings: Float[Array, "n"]) -> Head:
    """Minimises ‖F h + b − y‖² + c‖h‖², c of `PENALTIES` by leave-one-out."""
    from sklearn.linear_model import RidgeCV  # half a second that other users of the package need not pay

    fitted = RidgeCV(PENALTIES).fit(np.asarray(features, float), np.asarray(ratings, float))
    return Head(jnp.asarray(fitted.coef_, features.dtype), jnp.asarray(fitted.intercept_, features.dtype))


def squared_error(forward: Forward, head: Head, texts: Examples) -> Partial:
    """ℓ(w) = (1/n) Σ_i (⟨e_i(w), weight⟩ + bias − y_i)², e_i the embedding of text i at the weights w."""
    outputs = Partial(_rated, forward, head, texts.ids, texts.mask)
    return composite(outputs, Partial(_mean_square, texts.ratings))


def batch_error(forward: Forward, head: Head) -> Partial:
    """(w, batch) ↦ `squared_error` on the batch."""
    return Partial(_on_batch, forward, head)


def _on_batch(forward: Forward, head: Head, weights: Weights, batch: Examples) -> Float[Array, ""]:
    return squared_error(forward, head, batch)(weights)


def _rated(forward: Forward, head: Head, ids: Array, mask: Array, weights: Weights) -> Float[Array, "n"]:
    return mean_pooled(forward(weights, ids, mask), mask) @ head.weight + head.bias


def _mean_square(ratings: Float[Array, "n"], outputs: Float[Array, "n"]) -> Float[Array, ""]:
    return jnp.mean((outputs - ratings) ** 2)
