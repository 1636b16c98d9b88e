"""Judges a model's outputs: the criteria of composite losses, with the targets as data."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int


def sum_square(targets: Float[Array, "*n"], outputs: Float[Array, "*n"]) -> Float[Array, ""]:
    """Return ‖outputs − targets‖²_F."""
    return jnp.sum((outputs - targets) ** 2)


def mean_square(targets: Float[Array, "*n"], outputs: Float[Array, "*n"]) -> Float[Array, ""]:
    """Return ‖outputs − targets‖²_F over the number of entries (App. E: MSE)."""
    return sum_square(targets, outputs) / targets.size


def mean_cross_entropy(labels: Int[Array, "n"], logits: Float[Array, "n classes"]) -> Float[Array, ""]:
    """Return −(1/n) Σ_i log softmax(logits_i)[label_i]."""
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))


def masked_cross_entropy(
    labels: Int[Array, "*n"], mask: Bool[Array, "*n"], logits: Float[Array, "*n classes"]
) -> Float[Array, ""]:
    """Return −(1/m) Σ_i log softmax(logits_i)[label_i] over the m entries of the mask."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return jnp.mean(losses, where=mask)
