"""Poses InfoNCE (Sec. 5.2): the second text of a pair is to be found by the first, among those of all pairs at hand.

>>> import jax.numpy as jnp
>>> from flax import nnx
>>> from signal_drift.models import Bert, BertConfig, base_and_forward
>>> base, forward = base_and_forward(Bert(BertConfig(9, 4, 1, 1, 4, 3), rngs=nnx.Rngs(0)))
>>> ids = jnp.array([[[1, 2, 0], [2, 1, 0]], [[3, 4, 5], [5, 3, 4]]])  # two pairs of texts
>>> pairs = Texts(ids, ids > 0)
>>> info_nce(forward, pairs, temperature=0.05)(base).shape
()
>>> float(recall(similarities(forward, base, pairs), 1)) in (0.0, 0.5, 1.0)
True
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int

from signal_drift.errors import InputError
from signal_drift.errors.arguments import positive
from signal_drift.lora.adapters import Weights
from signal_drift.losses.composite import composite
from signal_drift.models.bert import mean_pooled
from signal_drift.models.bridge import Forward
from signal_drift.tasks.criteria import mean_cross_entropy


class Texts(NamedTuple):
    """Holds the token ids of texts and the mask of those that count; of n pairs with the axes (n, 2, t)."""

    ids: Int[Array, "*n t"]
    mask: Bool[Array, "*n t"]

    def at(self, rows: Int[Array | np.ndarray, "*k"]) -> "Texts":
        """Take these texts in the shape of `rows`: of (n, 2), pairs; of (steps, n, 2), one batch for every step."""
        return Texts(self.ids[rows], self.mask[rows])


def info_nce(forward: Forward, pairs: Texts, temperature: float | Float[Array, ""]) -> Partial:
    """Make the loss ℓ(w) = −(1/n) Σ_i log( exp(z_i·z'_i/τ) / Σ_j exp(z_i·z'_j/τ) ), j over all n pairs, i among them.

    z_i and z'_i are the two texts of pair i: their mean hidden states, divided by their norms. It is not symmetric: the
    first text asks, the second is found. The outputs of this composite loss are the n×n matrix z_i·z'_j/τ, so that the
    Gauss–Newton matrix is that of cross-entropy with class i for row i. Raises `InputError` for a τ that is not
    positive, and for less than two pairs.
    """
    positive("temperature", temperature)
    return _info_nce(forward, pairs, temperature)


def batch_info_nce(forward: Forward, temperature: float | Float[Array, ""]) -> Partial:
    """Make the map (w, batch of pairs) ↦ `info_nce` on the batch."""
    positive("temperature", temperature)
    return Partial(_on_batch, forward, temperature)


def similarities(forward: Forward, weights: Weights, pairs: Texts) -> Float[Array, "n n"]:
    """Compute z_i·z'_j of every first text with every second one."""
    ids, mask = (x.reshape(-1, x.shape[-1]) for x in pairs)  # the two texts of a pair side by side
    means = mean_pooled(forward(weights, ids, mask), mask)
    z = (means / jnp.linalg.norm(means, axis=1, keepdims=True)).reshape(-1, 2, means.shape[1])
    return z[:, 0] @ z[:, 1].T


def recall(similarities: Float[Array, "n n"], k: int | Int[Array, ""]) -> Float[Array, ""]:
    """Return the share of rows i in which all but k − 1 of the entries j ≠ i, or more, are below that of i: recall@k.

    A tie counts as a loss, and so does NaN: where all entries are equal, or none is a number, nothing is found for any
    k < n.

    >>> float(recall(jnp.array([[1.0, 0.9], [0.8, 0.8]]), 1))
    0.5
    """
    own = jnp.diagonal(similarities)
    below = jnp.sum(similarities < own[:, None], axis=1)
    return jnp.mean(below >= len(own) - k, dtype=similarities.dtype)


def _info_nce(forward: Forward, pairs: Texts, temperature: float | Array) -> Partial:
    if pairs.ids.ndim != 3 or pairs.ids.shape[1] != 2 or len(pairs.ids) < 2:
        raise InputError(f"pairs: must be at least two, with ids (n, 2, t), got ids of shape {pairs.ids.shape}")
    outputs = Partial(_logits, forward, pairs, temperature)
    return composite(outputs, Partial(mean_cross_entropy, jnp.arange(len(pairs.ids))))


def _on_batch(forward: Forward, temperature: float | Array, weights: Weights, batch: Texts) -> Float[Array, ""]:
    return _info_nce(forward, batch, temperature)(weights)


def _logits(forward: Forward, pairs: Texts, temperature: float | Array, weights: Weights) -> Float[Array, "n n"]:
    return similarities(forward, weights, pairs) / temperature
