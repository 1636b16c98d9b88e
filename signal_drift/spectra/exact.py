"""Computes all eigenvalues, right on LoRA's degenerate spectra too: exactly zero blocks, r-fold ties, ±λ pairs."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Float

from signal_drift.errors import InputError
from signal_drift.errors.words import shown
from signal_drift.operators.operator import SymmetricOperator
from signal_drift.operators.scale import exponent_of, in_range, restored
from signal_drift.operators.triangle import asymmetry_of_rounding

SymmetricMatrix = Float[np.ndarray, "n n"]


def eigenvalues(op: SymmetricOperator | Float[Array, "n n"] | SymmetricMatrix) -> Float[np.ndarray, "n"]:
    """Return all eigenvalues λ_1 ≤ … ≤ λ_n in float64, with multiplicity.

    The matrix is first split into the blocks that its exact zeros decouple. A zero block therefore gives exact
    zeros, and H_Drift, which splits into Σ_l r_l blocks of size d_in + d_out, costs next to nothing. Error
    O(n·ε·‖H‖), in whatever unit: 2^e·H of size about 1 is solved. Raises `InputError` if the matrix is not symmetric
    or its size leaves the range of float64, `TypeError` below float64.
    """
    H, exponent = symmetrised(*dense_in_range(op))
    blocks = (H if len(b) == len(H) else H[np.ix_(b, b)] for b in decoupled_blocks(H))
    solve = _lapack_eigenvalues if jax.default_backend() == "cpu" else _device_eigenvalues
    values = np.sort(np.concatenate([solve(block) for block in blocks]))
    return restored(values, exponent, float(np.max(np.abs(values))))


def dense_in_range(op: SymmetricOperator | Array | SymmetricMatrix) -> tuple[Array | SymmetricMatrix, int]:
    """Return (2^e·H, e), e = 0 for a matrix and unless numbers within the products may leave the range."""
    if isinstance(op, SymmetricOperator):
        return in_range(op, lambda op: op.dense())
    return _matrix(op), 0


def trace(op: SymmetricOperator | Float[Array, "n n"] | SymmetricMatrix) -> float:
    """Return Tr H, exact to rounding: 0 for H_Drift (X1), from n products without the matrix for another operator."""
    if isinstance(op, SymmetricOperator):
        if op.traceless:
            return 0.0
        diagonal, before = in_range(op, lambda op: op.diagonal())
    else:
        diagonal, before = np.diagonal(_matrix(op)), 0
    if not np.all(np.isfinite(diagonal)):
        raise InputError(f"op: must be finite, but its diagonal has the sum {np.sum(diagonal)}")
    after = exponent_of(diagonal)
    near_one = np.ldexp(np.asarray(diagonal, float), after)
    return restored(float(np.sum(near_one)), before + after, float(np.max(np.abs(near_one))))


def spectral_norm(G: Float[np.ndarray, "d_out d_in"]) -> float:
    """Compute σ₁(G) in float64, the root of the largest eigenvalue of GGᵀ or GᵀG, whichever is smaller.

    Squares halve the digits of small singular values, not of the largest: its error is O(n·ε·σ₁), n the longer side.
    """
    size = float(np.max(np.abs(G), initial=0.0))
    if not size:
        return 0.0
    near_one = np.asarray(G, float) / size
    gram = near_one @ near_one.T if len(G) <= len(G.T) else near_one.T @ near_one
    last = len(gram) - 1
    return size * float(np.sqrt(scipy.linalg.eigvalsh(gram, subset_by_index=[last, last])[0]))


def _matrix(H: Array | SymmetricMatrix) -> Array | SymmetricMatrix:
    if not isinstance(H, jax.Array | np.ndarray) or H.ndim != 2 or H.shape[0] != H.shape[1]:
        kind = f"{type(H).__name__} of shape {getattr(H, 'shape', 'unknown')}"
        raise InputError(f"op: must be a symmetric operator of decompose (parts.lora for one) or a matrix, got {kind}")
    if not H.size or not jnp.issubdtype(H.dtype, jnp.floating):
        raise InputError(f"op: must be a matrix of real numbers, got {shown(H)}")
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


def symmetrised(H: Array | SymmetricMatrix, before: int) -> tuple[SymmetricMatrix, int]:
    """Return 2^e·½(H + Hᵀ), of size about 1, and `before` + e.

    H and Hᵀ have the same zeros, and rounding does not depend on the triangle read. Raises `InputError` where they
    differ by more than `asymmetry_of_rounding`, `TypeError` below float64.
    """
    if H.dtype != np.float64:
        raise TypeError(f"op: dtype is {H.dtype}, but an exact spectrum needs float64")
    H, n = np.asarray(H), len(H)
    exponent = exponent_of(H)
    mean, apart, half = np.empty_like(H), 0.0, np.ldexp(1.0, exponent - 1)
    for rows in (slice(i, i + 256) for i in range(0, n, 256)):  # panels that stay in cache
        here = H[rows] * half
        mean[rows] = here + H[:, rows].T * half
        apart = np.hypot(apart, 2 * np.linalg.norm(2 * here - mean[rows]))
    size = np.linalg.norm(mean)
    if not apart <= n**0.5 * asymmetry_of_rounding(n, np.float64) * size < np.inf:
        apart, size = (float(np.ldexp(x, -before - exponent)) for x in (apart, size))
        raise InputError(f"op: must be symmetric and finite, got ‖H − Hᵀ‖_F = {apart:.3g} where ‖H‖_F is {size:.3g}")
    return mean, before + exponent


def _lapack_eigenvalues(H: SymmetricMatrix) -> Float[np.ndarray, "n"]:
    """LAPACK on the host; H is overwritten (passed as its transpose, which is Fortran-ordered)."""
    return scipy.linalg.eigvalsh(H.T, driver="evd", overwrite_a=True, check_finite=False)


def _device_eigenvalues(H: SymmetricMatrix) -> Float[np.ndarray, "n"]:
    """The eigenvalues of H from the accelerator that JAX found."""
    return np.asarray(jnp.linalg.eigvalsh(H, symmetrize_input=False))
