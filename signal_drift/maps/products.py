"""Writes the maps that are no product of two thin factors: LoHa, LoKr, MoRA and (IA)³."""

from typing import NamedTuple

import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float

from signal_drift.lora.adapters import Adapter
from signal_drift.maps.low_rank import Matrix, Number, real


class Loha(NamedTuple):
    """Hold LoHa's θ: two pairs of factors, as of two LoRAs."""

    first: Adapter
    second: Adapter


class Lokr(NamedTuple):
    """Hold LoKr's θ: the small matrix C, and the factors of the large one."""

    C: Float[Array, "m n"]
    A: Float[Array, "r k"]
    B: Float[Array, "l r"]


def loha(scaling: Number) -> Partial:
    """Return LoHa's map of θ = `Loha(first, second)`: W = W₀ + s·(B₁A₁) ⊙ (B₂A₂) (arXiv 2108.06098, 2309.14859)."""
    return Partial(_loha, real("scaling", scaling))


def lokr(scaling: Number) -> Partial:
    """Return LoKr's map of θ = `Lokr(C, A, B)`: W = W₀ + s·C ⊗ (BA), d_out = m·l, d_in = n·k (arXiv 2309.14859)."""
    return Partial(_lokr, real("scaling", scaling))


def mora(W0: Matrix, M: Float[Array, "r r"]) -> Matrix:
    """Return MoRA's W of a square M that rows and columns share: W_oi = W₀_oi + M_{o mod r, i mod r}.

    It is W₀ + PMQ of rank r: inputs are summed in r groups, outputs repeat r numbers (arXiv 2405.12130, by sharing).
    """
    rows, columns = (jnp.arange(d) % len(M) for d in W0.shape)
    return W0 + M[rows][:, columns]


def ia3(W0: Matrix, scale: Float[Array, "d_out"]) -> Matrix:
    """Return (IA)³'s W, every output times its own number: W = diag(l) W₀ (arXiv 2205.05638)."""
    return scale[:, None] * W0


def _loha(s: Number, W0: Matrix, theta: Loha) -> Matrix:
    one, other = (x.B @ x.A for x in theta)
    return W0 + s * (one * other)


def _lokr(s: Number, W0: Matrix, theta: Lokr) -> Matrix:
    return W0 + s * jnp.kron(theta.C, theta.B @ theta.A)
