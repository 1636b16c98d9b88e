"""Runs Lanczos with full reorthogonalisation, thick restarts and a bound in probability on what it missed.

From a start v, uniform on the unit sphere, j steps for a symmetric C give an orthonormal basis of polynomials of C
applied to v, the Ritz values θ of C on it, and a next vector q = p(C)v. Every Ritz value is a root of p, every one
dropped at a restart was and stays one, and each step divides the leading coefficient by its β:

    p(x) = Π_roots (x − θ) / Π_steps β.

A unit eigenvector y with Cy = λy has p(λ)⟨y, v⟩ = ⟨y, q⟩, at most 1. But for a probability of δ, |⟨y, v⟩| ≥ δ√(π/2n);
then no eigenvalue lies beyond the point outside the Ritz values at which |p| reaches √(2n/π)/δ (van Dorsselaer,
Hochstenbach and van der Vorst, SIAM J. Matrix Anal. Appl. 22, 2000; here with restarts, at which roots are kept).
This holds in exact arithmetic, to which a basis kept orthogonal to rounding comes as close as floating point can.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

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
        matvec: Callable[[np.ndarray], np.ndarray],
        locked: Float[np.ndarray, "l n"],
        start: Float[np.ndarray, "n"],
        capacity: int,
        negligible: float,
    ) -> None:
        """Begin at `start`; `matvec` is v ↦ Hv and errs by `negligible`; at dimension `capacity` a restart is due."""
        self.matvec = matvec
        self.locked, n = locked.shape
        self.capacity, self.negligible = min(capacity, n - self.locked), negligible
        self.rows = np.zeros((self.locked + self.capacity + 1, n))
        self.rows[: self.locked] = locked
        self.T = np.zeros((self.capacity, self.capacity))
        self.size, self.beta, self.scale = 0, np.inf, 0.0
        self.dropped, self.log_betas = np.zeros(0), 0.0
        start, _ = orthogonalised(start, locked)
        self.rows[self.locked] = start / np.linalg.norm(start)

    @property
    def basis(self) -> Float[np.ndarray, "m n"]:
        """Return the orthonormal basis, one vector a row."""
        return self.rows[self.locked : self.locked + self.size]

    @property
    def invariant(self) -> bool:
        """Tell whether the basis spans an invariant subspace to rounding: in exact arithmetic all that v can see."""
        return self.beta <= self.negligible or self.locked + self.size == self.rows.shape[1]

    def step(self) -> None:
        """Take one step C q = Q h + β q⁺, at the cost of one product."""
        here = self.locked + self.size
        image = self.matvec(self.rows[here])
        self.scale = max(self.scale, float(np.linalg.norm(image)))
        rest, h = orthogonalised(image, self.rows[: here + 1])
        self.T[: self.size + 1, self.size] = self.T[self.size, : self.size + 1] = h[self.locked :]
        self.size += 1
        self.beta = float(np.linalg.norm(rest))
        with np.errstate(divide="ignore"):
            self.log_betas += np.log(self.beta)
        if not self.invariant:
            self.rows[here + 1] = rest / self.beta

    def ritz(self) -> Ritz:
        """Return the eigenpairs of C projected on the basis, their residuals β|s_last|."""
        theta, S = np.linalg.eigh(self.T[: self.size, : self.size])
        return Ritz(theta, S, self.beta * np.abs(S[-1]))

    def restart(self, ritz: Ritz, keep: Int[np.ndarray, "k"]) -> None:
        """Restart from the Ritz vectors at the positions `keep`, which the next vector follows."""
        self.dropped = np.append(self.dropped, np.delete(ritz.values, keep))
        following = self.rows[self.locked + self.size].copy()
        self.rows[self.locked : self.locked + len(keep)] = ritz.vectors[:, keep].T @ self.basis
        self.rows[self.locked + len(keep)] = following
        self.size = len(keep)
        self.T[:] = 0
        self.T[range(self.size), range(self.size)] = ritz.values[keep]

    def reach(self, ritz: Ritz, sign: int) -> float:
        """Bound how far beyond the outermost Ritz value (the largest for sign 1) one of C may lie, but for δ."""
        roots = sign * np.append(self.dropped, ritz.values)
        top = float(np.max(sign * ritz.values))
        if self.invariant:
            return 0.0
        limit = np.log(np.sqrt(2 * self.rows.shape[1] / np.pi) / FAILURE) + self.log_betas
        low, high = np.log(self.scale) - 50, np.log(self.scale) + 2
        while high - low > 0.01:  # the logarithm of the distance, by bisection; |p| increases with it
            middle = (low + high) / 2
            low, high = (middle, high) if _log_product(top + np.exp(middle), roots) < limit else (low, middle)
        return float(np.exp(high))


def _log_product(x: float, roots: np.ndarray) -> float:
    with np.errstate(divide="ignore"):
        return float(np.sum(np.log(np.abs(x - roots))))


def orthogonalised(x: np.ndarray, rows: Float[np.ndarray, "m n"]) -> tuple[np.ndarray, np.ndarray]:
    """Return (x − QᵀQx, Qx), Q the orthonormal rows, twice where the first pass leaves less than half (is enough)."""
    h = rows @ x
    rest = x - h @ rows
    if np.linalg.norm(rest) < np.linalg.norm(x) / 2:
        again = rows @ rest
        rest, h = rest - again @ rows, h + again
    return rest, h
