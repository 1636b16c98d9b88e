"""Computes all eigenvalues, right on LoRA's degenerate spectra too: exactly zero blocks, r-fold ties, ±λ pairs."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Float

from signal_drift.errors import InputError
from signal_drift.operators.operator import SymmetricOperator

SymmetricMatrix = Float[np.ndarray, "n n"]


def eigenvalues(op: SymmetricOperator | Float[Array, "n n"] | SymmetricMatrix) -> Float[np.ndarray, "n"]:
    """Return all eigenvalues λ_1 ≤ … ≤ λ_n in float64, with multiplicity.

    The matrix is first split into the blocks that its exact zeros decouple. A zero block therefore gives exact
    zeros, and H_Drift, which splits into Σ_l r_l blocks of size d_in + d_out, costs next to nothing. Error
    O(n·ε·‖H‖). Raises `InputError` if the matrix is not symmetric, `TypeError` below float64.
    """
    H = _symmetrised(op.dense() if isinstance(op, SymmetricOperator) else _matrix(op))
    blocks = (H if len(b) == len(H) else H[np.ix_(b, b)] for b in decoupled_blocks(H))
    solve = _lapack_eigenvalues if jax.default_backend() == "cpu" else _device_eigenvalues
    return np.sort(np.concatenate([solve(block) for block in blocks]))


def trace(op: SymmetricOperator | Float[Array, "n n"] | SymmetricMatrix) -> float:
    """Return Tr H, exact to rounding: 0 for H_Drift (X1), from n products without the matrix for another operator."""
    if isinstance(op, SymmetricOperator) and op.traceless:
        return 0.0
    return float(jnp.sum(op.diagonal()) if isinstance(op, SymmetricOperator) else np.trace(_matrix(op)))


def _matrix(H: Array | SymmetricMatrix) -> Array | SymmetricMatrix:
    if not isinstance(H, jax.Array | np.ndarray) or H.ndim != 2 or H.shape[0] != H.shape[1]:
        kind = f"{type(H).__name__} of shape {getattr(H, 'shape', 'unknown')}"
        raise InputError(f"op: must be a symmetric operator of decompose (parts.lora for one) or a matrix, got {kind}")
    return H


def decoupled_blocks(H: SymmetricMatrix) -> Iterator[np.ndarray]:
    """Yield the index sets of the connected components of {(i, j): H_ij ≠ 0}, each ascending."""
    unseen = np.ones(len(H), bool)
    while unseen.any():
        block = frontier = np.flatnonzero(unseen)[:1]
        unseen[frontier] = False
        while unseen.any() and len(frontier):
            frontier = np.flatnonzero(unseen & np.any(H[frontier] != 0, axis=0))
            unseen[frontier] = False
            block = np.concatenate([block, frontier])
        yield np.sort(block)


def _symmetrised(H: Array | SymmetricMatrix) -> SymmetricMatrix:
    """½(H + Hᵀ), so that H and Hᵀ have the same zeros and rounding does not depend on the triangle read."""
    if H.dtype != np.float64:
        raise TypeError(f"op: dtype is {H.dtype}, but an exact spectrum needs float64")
    H = np.asarray(H)
    mean, asymmetry = np.empty_like(H), 0.0
    for rows in (slice(i, i + 256) for i in range(0, len(H), 256)):  # panels that stay in cache
        mean[rows] = (H[rows] + H[:, rows].T) / 2
        asymmetry = np.maximum(asymmetry, np.max(np.abs(H[rows] - mean[rows])))
    size = np.max(np.abs(H))
    if not asymmetry <= np.sqrt(np.finfo(float).eps) * size < np.inf:
        raise InputError(f"op: must be symmetric and finite, got max|H − Hᵀ|/2 = {asymmetry} at max|H| = {size}")
    return mean


def _lapack_eigenvalues(H: SymmetricMatrix) -> Float[np.ndarray, "n"]:
    """LAPACK on the host; H is overwritten (passed as its transpose, which is Fortran-ordered)."""
    return scipy.linalg.eigvalsh(H.T, driver="evd", overwrite_a=True, check_finite=False)


def _device_eigenvalues(H: SymmetricMatrix) -> Float[np.ndarray, "n"]:
    """The eigenvalues of H from the accelerator that JAX found."""
    return np.asarray(jnp.linalg.eigvalsh(H, symmetrize_input=False))
