"""Runs Lanczos with full reorthogonalisation, thick restarts and a bound in probability on what it missed.

From a start v, uniform on the unit sphere, j steps for a symmetric C give an orthonormal basis of polynomials of C
applied to v, the Ritz values θ of C on it, and a next vector q = p(C)v. Every Ritz value is a root of p, every one
dropped at a restart was and stays one, and each step divides the leading coefficient by its β:

    p(x) = Π_roots (x − θ) / Π_steps β.

A unit eigenvector y with Cy = λy has p(λ)⟨y, v⟩ = ⟨y, q⟩, at most 1. But for a probability of δ, |⟨y, v⟩| ≥ δ√(π/2n);
then no eigenvalue lies beyond the point outside the Ritz values at which |p| reaches √(2n/π)/δ (van Dorsselaer,
Hochstenbach and van der Vorst, SIAM J. Matrix Anal. Appl. 22, 2000; here with restarts, at which roots are kept).
This holds in exact arithmetic; what is assumed of rounding in the dtype of the basis is in README.md.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from signal_drift.spectra.basis import Basis, orthogonalised

FAILURE = 1e-6
"""δ, the probability with which the bound of one run may fail."""


class Ritz(NamedTuple):
    """Hold ascending Ritz values, their vectors in the basis (columns) and their residual norms."""

    values: Float[np.ndarray, "m"]
    vectors: Float[np.ndarray, "m m"]
    residuals: Float[np.ndarray, "m"]


class Lanczos:
    """Run on C = P H P, P the projection onto the orthogonal complement of the orthonormal rows `locked`."""

    def __init__(
        self,
        matvec: Callable[[Array], Array],
        locked: Float[np.ndarray, "l n"],
        start: Float[np.ndarray, "n"],
        capacity: int,
        negligible: float,
    ) -> None:
        """Begin at `start`; `matvec` is v ↦ Hv and errs by `negligible`; at dimension `capacity` a restart is due.

        The dtype of `locked` is that of the basis.
        """
        self.matvec, self.n = matvec, locked.shape[1]
        self.capacity, self.negligible = min(capacity, self.n - len(locked)), negligible
        self.locked, self.basis = Basis(self.n, locked.dtype), Basis(self.n, locked.dtype)
        for row in locked:
            self.locked.append(jnp.asarray(row), 1.0)
        self.T = np.zeros((self.capacity, self.capacity))
        self.beta, self.scale = np.inf, 0.0
        self.dropped, self.log_betas = np.zeros(0), 0.0
        self.following, self.norm = jnp.asarray(start / np.linalg.norm(start), locked.dtype), 1.0
        if len(locked):
            self.following, _, self.norm = orthogonalised(self.following, self.locked)

    @property
    def size(self) -> int:
        """Return the dimension of the basis."""
        return self.basis.size

    @property
    def rows(self) -> Float[np.ndarray, "m n"]:
        """Return the orthonormal rows on the host: the locked ones, the basis and the vector that is next, if any."""
        following = np.asarray(self.following)[None] / self.norm
        known = np.concatenate([self.locked.rows(), self.basis.rows()])
        return known if self.invariant else np.concatenate([known, following])

    @property
    def invariant(self) -> bool:
        """Tell whether the basis spans an invariant subspace to rounding: in exact arithmetic all that v can see."""
        return self.beta <= self.negligible or self.locked.size + self.size == self.n

    def step(self) -> None:
        """Take one step C q = Q h + β q⁺, at the cost of one product."""
        image = self.matvec(self.basis.append(self.following, self.norm))
        self.following, (outside, h), self.norm = orthogonalised(image, self.locked, self.basis)
        here, self.beta = self.size - 1, self.norm
        self.scale = max(self.scale, float(np.linalg.norm([*outside, *h, self.beta])))
        self.T[: self.size, here] = self.T[here, : self.size] = h
        with np.errstate(divide="ignore"):
            self.log_betas += np.log(self.beta)

    def ritz(self) -> Ritz:
        """Return the eigenpairs of C projected on the basis, their residuals β|s_last|."""
        theta, S = np.linalg.eigh(self.T[: self.size, : self.size])
        return Ritz(theta, S, self.beta * np.abs(S[-1]))

    def restart(self, ritz: Ritz, keep: Int[np.ndarray, "k"]) -> None:
        """Restart from the Ritz vectors at the positions `keep`, which the next vector follows, orthogonal once more.

        Its rounding would otherwise be carried from restart to restart, and grow.
        """
        self.dropped = np.append(self.dropped, np.delete(ritz.values, keep))
        self.basis.recombine(ritz.vectors[:, keep])
        self.following, _, self.norm = orthogonalised(self.following, self.locked, self.basis)
        self.T[:] = 0
        self.T[range(self.size), range(self.size)] = ritz.values[keep]

    def reach(self, ritz: Ritz, sign: int) -> float:
        """Bound how far beyond the outermost Ritz value (the largest for sign 1) one of C may lie, but for δ."""
        roots = sign * np.append(self.dropped, ritz.values)
        top = float(np.max(sign * ritz.values))
        if self.invariant:
            return 0.0
        limit = np.log(np.sqrt(2 * self.n / np.pi) / FAILURE) + self.log_betas
        low, high = np.log(self.scale) - 50, np.log(self.scale) + 2
        while high - low > 0.01:  # the logarithm of the distance, by bisection; |p| increases with it
            middle = (low + high) / 2
            low, high = (middle, high) if _log_product(top + np.exp(middle), roots) < limit else (low, middle)
        return float(np.exp(high))


def _log_product(x: float, roots: np.ndarray) -> float:
    with np.errstate(divide="ignore"):
        return float(np.sum(np.log(np.abs(x - roots))))
