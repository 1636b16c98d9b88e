"""Writes the maps W₀ + s·BA and what is made of them: LoRA, rsLoRA, LoRA-FA, VeRA and DoRA."""

from typing import NamedTuple

import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float

from signal_drift.errors import InputError
from signal_drift.errors.arguments import is_real
from signal_drift.errors.words import shown
from signal_drift.lora.adapters import Adapter, check_array

Matrix = Float[Array, "d_out d_in"]
Number = float | Array


class Dora(NamedTuple):
    """Hold DoRA's θ: the factors of the direction, and the length of every row of W."""

    A: Float[Array, "r d_in"]
    B: Float[Array, "d_out r"]
    m: Float[Array, "d_out"]


class Vera(NamedTuple):
    """Hold VeRA's θ: the scales of the d_out rows of B and of the r rows of A."""

    b: Float[Array, "d_out"]
    d: Float[Array, "r"]


def lora(scaling: Number) -> Partial:
    """Return LoRA's map of θ = `Adapter(A, B)`: W = W₀ + s·BA (arXiv 2106.09685)."""
    return Partial(_lora, real("scaling", scaling))


def rslora(alpha: Number) -> Partial:
    """Return rsLoRA's map of θ = `Adapter(A, B)`: W = W₀ + (α/√r)·BA, r the rows of A (arXiv 2312.03732)."""
    return Partial(_rslora, real("alpha", alpha))


def lora_fa(A: Float[Array, "r d_in"], scaling: Number) -> Partial:
    """Return LoRA-FA's map of θ = B alone, A frozen: W = W₀ + s·BA, linear in B (arXiv 2308.03303)."""
    return Partial(_lora_fa, matrix("A", A), real("scaling", scaling))


def vera(A: Float[Array, "r d_in"], B: Float[Array, "d_out r"]) -> Partial:
    """Return VeRA's map of θ = `Vera(b, d)`, A and B frozen: W = W₀ + diag(b) B diag(d) A (arXiv 2310.11454)."""
    return Partial(_vera, matrix("A", A), matrix("B", B))


def dora(scaling: Number) -> Partial:
    """Return DoRA's map of θ = `Dora(A, B, m)`: W = diag(m) diag(‖V_i‖)⁻¹ V, V = W₀ + s·BA (arXiv 2402.09353).

    V_i are the rows of V, one for each output; m = ‖W₀_i‖ at the start. This is the map itself: the paper's and PEFT's
    training holds ‖V_i‖ fixed in the gradient, which is then that of no function.
    """
    return Partial(_dora, real("scaling", scaling))


def _lora(s: Number, W0: Matrix, theta: Adapter) -> Matrix:
    return W0 + s * (theta.B @ theta.A)


def _rslora(alpha: Number, W0: Matrix, theta: Adapter) -> Matrix:
    return _lora(alpha / len(theta.A) ** 0.5, W0, theta)


def _lora_fa(A: Array, s: Number, W0: Matrix, B: Array) -> Matrix:
    return _lora(s, W0, Adapter(A, B))


def _vera(A: Array, B: Array, W0: Matrix, theta: Vera) -> Matrix:
    return W0 + (theta.b[:, None] * B) @ (theta.d[:, None] * A)


def _dora(s: Number, W0: Matrix, theta: Dora) -> Matrix:
    V = _lora(s, W0, Adapter(theta.A, theta.B))
    return (theta.m / jnp.linalg.norm(V, axis=1))[:, None] * V


def real(name: str, value: Number) -> Number:
    """Return the argument `name`. Raises `InputError` unless it is a real number."""
    if not is_real(value):
        raise InputError(f"{name}: must be a real number, got {shown(value)}")
    return float(value) if isinstance(value, int) else value


def matrix(name: str, value: Array) -> Array:
    """Return the argument `name`. Raises `InputError` unless it is a matrix of a floating dtype."""
    if check_array(name, value).ndim != 2:
        raise InputError(f"{name}: must be a matrix, got shape {value.shape}")
    return jnp.asarray(value)
