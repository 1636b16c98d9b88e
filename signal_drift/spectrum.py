"""Eigenvalues that stay right on LoRA's degenerate spectra: exactly zero blocks, r-fold ties, ±λ pairs."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Float, Key

from signal_drift.curvature import SymmetricOperator
from signal_drift.errors import InputError

SymmetricMatrix = Float[np.ndarray, "n n"]


def eigenvalues(op: SymmetricOperator | Float[Array, "n n"] | SymmetricMatrix) -> Float[np.ndarray, "n"]:
    """All eigenvalues λ_1 ≤ … ≤ λ_n in float64, with multiplicity.

    The matrix is first split into the blocks that its exact zeros decouple. A zero block therefore gives exact
    zeros, and H_Drift, which splits into Σ_l r_l blocks of size d_in + d_out, costs next to nothing. Error
    O(n·ε·‖H‖). Raises `InputError` if the matrix is not symmetric, `TypeError` below float64.
    """
    H = _symmetrised(op.dense() if isinstance(op, SymmetricOperator) else op)
    blocks = (H if len(b) == len(H) else H[np.ix_(b, b)] for b in decoupled_blocks(H))
    solve = _lapack_eigenvalues if jax.default_backend() == "cpu" else _device_eigenvalues
    return np.sort(np.concatenate([solve(block) for block in blocks]))


def trace(op: SymmetricOperator | Float[Array, "n n"] | SymmetricMatrix) -> float:
    """Tr H, exact to rounding; from n products and without the matrix if `op` is an operator."""
    return float(jnp.sum(op.diagonal()) if isinstance(op, SymmetricOperator) else np.trace(op))


def decoupled_blocks(H: SymmetricMatrix) -> Iterator[np.ndarray]:
    """The index sets of the connected components of {(i, j): H_ij ≠ 0}, each ascending."""
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
    """The same on the accelerator that JAX found."""
    return np.asarray(jnp.linalg.eigvalsh(H, symmetrize_input=False))


class ExtremeEigenvalues(NamedTuple):
    """Ascending eigenvalues at the end(s) asked for; an eigenvalue of H lies within `residuals[i]` of `values[i]`.

    `converged` says that every residual met the tolerance.
    """

    values: Float[np.ndarray, "m"]
    residuals: Float[np.ndarray, "m"]
    converged: bool


def extreme_eigenvalues(
    op: SymmetricOperator,
    k: int = 1,
    which: Literal["largest", "smallest", "both"] = "largest",
    *,
    key: Key[Array, ""] | None = None,
    max_products: int = 4000,
) -> ExtremeEigenvalues:
    """The k largest and/or smallest eigenvalues, matrix-free: ‖Hy − θy‖ ≤ √n·ε·‖H‖·100 when converged.

    Rayleigh–Ritz on a space grown by blocks of residuals and orthogonalised twice against itself. A direction
    that breaks down is replaced by a random one, so invariant subspaces (H_Signal's zero block, tied
    eigenvalues) do not stop the search; a full space is restarted from its best Ritz vectors. The block is four
    wider than what is asked for, and ties up to that width are found with their multiplicity.
    """
    n = op.shape[0]
    if not 1 <= k <= n:
        raise InputError(f"k: must be between 1 and n = {n}, got {k}")
    if which not in ("largest", "smallest", "both"):
        raise InputError(f"which: must be 'largest', 'smallest' or 'both', got {which!r}")
    ends = (2 if which == "both" else 1) * k
    width = min(ends + 4, n)
    capacity = min(n, 20 * width)
    draws = np.random.default_rng(np.asarray(jax.random.key_data(jax.random.key(0) if key is None else key)))
    Q, HQ = np.zeros((n, 0)), np.zeros((n, 0))
    new, products = draws.standard_normal((n, width)), 0
    while True:
        new = _orthonormal_extension(Q, new, draws, min(width, capacity - Q.shape[1]))
        Q, HQ = np.hstack([Q, new]), np.hstack([HQ, _image(op, new)])
        products += new.shape[1]
        T = Q.T @ HQ
        theta, S = np.linalg.eigh((T + T.T) / 2)
        order = _outermost_first(len(theta), which)
        wanted, best = np.sort(order[:ends]), order[:width]
        residual = HQ @ S[:, best] - (Q @ S[:, best]) * theta[best]
        norms = dict(zip(best, np.linalg.norm(residual, axis=0), strict=True))
        bound = 100 * np.sqrt(n) * np.finfo(op.dtype).eps * np.max(np.abs(theta))
        converged = bool(all(norms[i] <= bound for i in wanted))
        if converged or Q.shape[1] == n or products >= max_products:
            return _certified(op, Q @ S[:, wanted], theta[wanted], converged or Q.shape[1] == n)
        if Q.shape[1] >= capacity:
            keep = order[: capacity // 2]
            Q, HQ = Q @ S[:, keep], HQ @ S[:, keep]
        new = residual


def _outermost_first(m: int, which: str) -> np.ndarray:
    """Positions in an ascending list of length m, the most wanted first."""
    ascending, descending = np.arange(m), np.arange(m)[::-1]
    if which == "both":
        return np.stack([ascending, descending], axis=1).ravel()[:m]
    return descending if which == "largest" else ascending


def _orthonormal_extension(Q: np.ndarray, X: np.ndarray, draws: np.random.Generator, width: int) -> np.ndarray:
    """`width` orthonormal columns orthogonal to Q, from X as far as X reaches and from random draws beyond."""
    columns = np.zeros((len(Q), 0))
    candidates = np.hstack([X, draws.standard_normal((len(Q), width))])
    for x in candidates.T:
        if columns.shape[1] == width:
            break
        size = np.linalg.norm(x)
        for _ in range(2):
            x = x - Q @ (Q.T @ x)  # noqa: PLW2901
            x = x - columns @ (columns.T @ x)  # noqa: PLW2901
        if np.linalg.norm(x) > 1e-10 * size > 0:
            columns = np.hstack([columns, (x / np.linalg.norm(x))[:, None]])
    return columns


def _image(op: SymmetricOperator, X: np.ndarray) -> np.ndarray:
    """H X in float64; a Hessian may be infinite where the loss is not."""
    image = np.asarray(op @ jnp.asarray(X, op.dtype), float)
    if not np.all(np.isfinite(image)):
        raise InputError(f"op: must be finite, but a product with it has the entry {image[~np.isfinite(image)][0]}")
    return image


def _certified(op: SymmetricOperator, Y: np.ndarray, theta: np.ndarray, converged: bool) -> ExtremeEigenvalues:
    """Residuals of the normalised Ritz vectors, recomputed from the operator itself."""
    Y = Y / np.linalg.norm(Y, axis=0)
    residuals = np.linalg.norm(_image(op, Y) - Y * theta, axis=0)
    return ExtremeEigenvalues(theta, residuals, converged)
