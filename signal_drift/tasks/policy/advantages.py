"""Judges each completion of a question by the others of its group (GRPO, arXiv 2402.03300)."""

import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float

from signal_drift.errors import InputError

FLOOR = 1e-4
"""ε beside the standard deviation of a group's rewards."""


def group_advantages(rewards: Float[Array, "*groups G"]) -> Float[Array, "*groups G"]:
    """Return A_i = (R_i − mean R)/(std R + ε) within each group, zero where all its rewards are equal.

    std is that of the G rewards themselves, √(mean (R − mean R)²), and ε = `FLOOR`.

    >>> group_advantages(jnp.array([0.0, 0.0, 0.0, 4.0])).round(2).tolist()
    [-0.58, -0.58, -0.58, 1.73]

    Raises `InputError` for groups of less than two, and for a reward that is not finite; in a trace of JAX, where no
    value is known, the advantages of its group are then NaN.
    """
    check_rewards(rewards)
    off = rewards - jnp.mean(rewards, axis=-1, keepdims=True)
    normalised = off / (jnp.std(rewards, axis=-1, keepdims=True) + FLOOR)
    return jnp.where(_equal(rewards)[..., None], 0, normalised)


def unequal_groups(rewards: Float[Array, "*groups G"]) -> Float[Array, ""]:
    """Return the share of groups that have a gradient: those whose rewards are not all equal."""
    check_rewards(rewards)
    return jnp.mean(~_equal(rewards), dtype=rewards.dtype)


def check_rewards(rewards: Float[Array, "*groups G"]) -> None:
    """Raise `InputError` for groups of less than two, and for a reward that is not finite."""
    if rewards.ndim < 1 or rewards.shape[-1] < 2:
        raise InputError(f"rewards: a group needs at least two completions, got the shape {rewards.shape}")
    if not isinstance(rewards, Tracer) and not bool(jnp.all(jnp.isfinite(rewards))):
        bad = rewards[~jnp.isfinite(rewards)]
        raise InputError(f"rewards: must be finite, got {float(bad[0])} for {bad.size} of {rewards.size} completions")


def _equal(rewards: Float[Array, "*groups G"]) -> Array:
    return jnp.max(rewards, axis=-1) == jnp.min(rewards, axis=-1)
