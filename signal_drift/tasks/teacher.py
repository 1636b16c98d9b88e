"""Makes the paper's regression (App. E): data of a linear teacher with decaying singular values, and its loss."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, Key

from signal_drift.errors import InputError
from signal_drift.losses.composite import composite
from signal_drift.models.bridge import Forward, predictor
from signal_drift.tasks.criteria import mean_square, sum_square

Reduction = Literal["mean", "sum"]


class Regression(NamedTuple):
    """Holds the inputs X and the targets Y, one sample a row."""

    X: Float[Array, "n d_in"]
    Y: Float[Array, "n d_out"]


def teacher_regression(
    key: Key[Array, ""], samples: int, d_out: int, d_in: int, target_scale: float = 1.0
) -> Regression:
    """Draw X ~ N(0, 1) and compute Y = c·X W_trueᵀ (App. E); `target_scale` is c, which the paper leaves open."""
    if samples < 1:
        raise InputError(f"samples: must be at least 1, got {samples}")
    data, teacher = jax.random.split(key)
    X = jax.random.normal(data, (samples, d_in), jnp.float64)
    return Regression(X, target_scale * X @ spectral_teacher(teacher, d_out, d_in).T)


def spectral_teacher(key: Key[Array, ""], d_out: int, d_in: int) -> Float[Array, "d_out d_in"]:
    """Draw W_true = U diag(1, 1/2, 1/3, …) Vᵀ with U, V Haar-distributed (App. E: σ_i = 1/i)."""
    left, right = jax.random.split(key)
    k = min(d_out, d_in)
    U = jax.random.orthogonal(left, d_out, dtype=jnp.float64)[:, :k]
    V = jax.random.orthogonal(right, d_in, dtype=jnp.float64)[:, :k]
    return (U / jnp.arange(1, k + 1)) @ V.T


def squared_error(forward: Forward, data: Regression, reduction: Reduction = "mean") -> Partial:
    """Make the loss ℓ(w) = ‖f(X; w) − Y‖²_F, divided by the entries of Y if the reduction is "mean" (App. E: MSE)."""
    distance = mean_square if reduction == "mean" else sum_square
    return composite(predictor(forward, data.X), Partial(distance, data.Y))
