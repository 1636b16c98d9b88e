"""Computes the outermost eigenvalues, matrix-free, with what is known about their error."""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int, Key

from signal_drift.display import Table, displayed_as, number
from signal_drift.errors import InputError
from signal_drift.errors.arguments import is_real, whole
from signal_drift.errors.words import shown
from signal_drift.operators.operator import SymmetricOperator
from signal_drift.operators.scale import restored
from signal_drift.spectra.lanczos import Lanczos, Ritz
from signal_drift.spectra.matvec import Matvec, generator

End = Literal["largest", "smallest", "both"]
SIGNS = {"largest": (1,), "smallest": (-1,), "both": (-1, 1)}

CAPACITY, LEAST, BASIS_BYTES = 32, 16, 2**32
"""Basis vectors kept beyond four for each eigenvalue asked for: fewer, but 16, where they would take more bytes."""


class ExtremeEigenvalues(NamedTuple):
    """Hold ascending eigenvalues at the end(s) asked for; one of H lies within `residuals[i]` of `values[i]`.

    `missed` says how far beyond the last value at an end a further eigenvalue may lie that is not listed, without the
    rounding of the products. `converged` says that the i-th value is the i-th eigenvalue of H, multiplicity counted,
    to within `missed` and the norm of what all vectors of the search leave, each at most tolerance·‖H‖. Both but for a
    probability of 1e-6 for each run of `extreme_eigenvalues`' search and each end.
    """

    values: Float[np.ndarray, "m"]
    residuals: Float[np.ndarray, "m"]
    converged: bool
    missed: float
    products: int


def extreme_eigenvalues(
    op: SymmetricOperator,
    k: int = 1,
    which: End = "largest",
    *,
    key: Key[Array, ""] | None = None,
    tolerance: float | None = None,
    max_products: int = 4000,
) -> ExtremeEigenvalues:
    """Find the k largest and/or smallest eigenvalues, matrix-free: ‖Hy − θy‖ ≤ tolerance·‖H‖ when converged.

    Runs of Lanczos, each from a random start in the complement of the Ritz vectors Y found so far, until one finds
    nothing that belongs among the k outermost. With R = HY − YΘ and C the rest of H, Weyl and Cauchy give
    θ_i ≤ λ_i ≤ max(θ_i, λ_max(C)) + ‖R‖ for the i-th largest, and the last run bounds λ_max(C) (`lanczos`). A tie
    is therefore counted, a zero block is no obstacle, and a value is missed only if a random vector is as good as
    orthogonal to its eigenvector. The tolerance is 100·√n·ε unless told, ε that of the operator's dtype. All of it is
    done with 2^e·H of size about 1, so that the unit of the loss does not matter.

    Raises `InputError` for a k beyond n, an operator that is not symmetric, one that is not finite and one whose size
    leaves the range of float64, `TypeError` for one of less than float32.
    """
    matvec = Matvec(op)
    n = matvec.n
    k = whole("k", k, 1, f" for n = {n}")
    if k > n:
        raise InputError(f"k: must be between 1 and n = {n}, got {k}")
    if not isinstance(which, str) or which not in SIGNS:
        raise InputError(f"which: must be 'largest', 'smallest' or 'both', got {shown(which)}")
    eps = float(matvec.limits.eps)
    if tolerance is not None and not (is_real(tolerance) and eps <= tolerance < 1):
        raise InputError(f"tolerance: must be at least ε = {eps:.1e} and below 1, got {shown(tolerance)}")
    max_products = whole("max_products", max_products, 0)
    draws = generator(key)
    search = _Search(matvec, k, SIGNS[which], 100 * n**0.5 * eps if tolerance is None else tolerance)
    search.scale = search.matvec.check_symmetry(draws)
    done = search.small()
    while not done and (search.matvec.count < max_products or len(search.Y) < k * len(SIGNS[which])):
        done = search.run(draws.standard_normal(n), max_products)
    return search.result(done)


class _Search:
    """The Ritz pairs of 2^e·H locked so far, rows of `Y` with values `theta`."""

    def __init__(self, matvec: Matvec, k: int, signs: tuple[int, ...], tolerance: float) -> None:
        self.matvec, self.k, self.signs, self.tolerance = matvec, k, signs, tolerance
        self.Y = np.zeros((0, matvec.n), matvec.op.dtype)
        self.theta, self.missed, self.scale = np.zeros(0), np.inf, 0.0

    def small(self) -> bool:
        """All of the spectrum at once where little less is asked for."""
        n = self.matvec.n
        if n > 2 * self.k * len(self.signs) + 8:
            return False
        H = np.stack([self.matvec(row) for row in np.eye(n)])
        self.theta, S = np.linalg.eigh((H + H.T) / 2)
        self.Y, self.missed, self.scale = S.T, 0.0, float(np.max(np.abs(self.theta)))
        return True

    def run(self, start: np.ndarray, max_products: int) -> bool:
        """One run from `start`, whose contribution is locked. True if nothing can be missing any more."""
        ends = self.k * len(self.signs)
        negligible = self.matvec.noise * self.scale
        lanczos = Lanczos(self.matvec.on_device, self.Y, start, capacity(self.matvec.n) + 4 * ends, negligible)
        while True:
            lanczos.step()
            spent = self.matvec.count >= max_products and len(self.Y) + lanczos.size >= ends
            stop = spent or lanczos.invariant
            if not stop and lanczos.size < lanczos.capacity and lanczos.size % 8:
                continue
            ritz = lanczos.ritz()
            self.scale = max(self.scale, float(np.max(np.abs(ritz.values))))
            wanted = [self.wanted(ritz, sign) for sign in self.signs]
            new = np.unique(np.concatenate(wanted))
            self.missed = max(self.beyond(lanczos, ritz, w, sign) for w, sign in zip(wanted, self.signs, strict=True))
            slack = self.tolerance * self.scale
            found = bool(np.all(ritz.residuals[new] <= slack / 2))
            complete = bool(self.missed <= slack)
            if stop or (found and (complete or not np.isfinite(self.missed))):
                self.lock(lanczos.basis.combined(ritz.vectors[:, new]), ritz.values[new])
                return found and complete
            if lanczos.size == lanczos.capacity:
                lanczos.restart(ritz, outermost(lanczos.size, self.signs, lanczos.capacity // 2 // len(self.signs)))

    def wanted(self, ritz: Ritz, sign: int) -> np.ndarray:
        """Positions of the Ritz values that belong among the k outermost, locked ones first among equals."""
        order = np.argsort(-sign * ritz.values, kind="stable")
        slack = self.tolerance * self.scale
        ahead = np.sum(sign * self.theta >= sign * ritz.values[order][:, None] - slack, axis=1)
        return order[np.arange(len(order)) + ahead < self.k]

    def beyond(self, lanczos: Lanczos, ritz: Ritz, wanted: np.ndarray, sign: int) -> float:
        """How far beyond the k-th value an eigenvalue may lie that is neither locked nor about to be.

        Infinite if this run finds more than the last of the k: another of its values might be a tie.
        """
        values = np.sort(sign * np.append(self.theta, ritz.values[wanted]))[::-1]
        outermost_here = float(np.max(sign * ritz.values))
        if len(values) < self.k or (len(wanted) and outermost_here > values[self.k - 1]):
            return np.inf
        return max(0.0, outermost_here + lanczos.reach(ritz, sign) - values[self.k - 1])

    def lock(self, Y: np.ndarray, theta: np.ndarray) -> None:
        self.Y, self.theta = np.vstack([self.Y, Y]), np.append(self.theta, theta)

    def result(self, done: bool) -> ExtremeEigenvalues:
        """In H's own unit; residuals of the Ritz vectors from the operator itself, and the error of computing them."""
        order = np.argsort(self.theta, kind="stable")
        positions = outermost(len(order), self.signs, self.k)
        chosen = order[np.unique(positions) if len(order) == self.matvec.n else positions]
        Y = self.Y[chosen] / np.linalg.norm(self.Y[chosen], axis=1, keepdims=True)
        theta = self.theta[chosen]
        residuals = np.linalg.norm(np.stack([self.matvec(y) for y in Y]) - theta[:, None] * Y, axis=1)
        rounding = self.matvec.rounding * self.scale
        converged = done and bool(np.all(residuals <= self.tolerance * self.scale))
        numbers = np.concatenate([theta, residuals + rounding + self.matvec.floor, [self.missed]])
        there = restored(numbers, self.matvec.exponent, self.scale)
        values, bounds = np.split(there[:-1], 2)
        return ExtremeEigenvalues(values, bounds, converged, float(there[-1]), self.matvec.count)


def capacity(n: int) -> int:
    """Return how many vectors of length n a basis may hold, were they in float64."""
    return min(CAPACITY, max(LEAST, BASIS_BYTES // (8 * n)))


def outermost(m: int, signs: tuple[int, ...], k: int) -> Int[np.ndarray, "_"]:
    """Return the positions, ascending, of the k outermost of m ascending values at each end; one may serve both."""
    ends = {-1: np.arange(min(k, m)), 1: np.arange(max(m - k, 0), m)}
    return np.sort(np.concatenate([ends[sign] for sign in signs]))


def _table(x: ExtremeEigenvalues) -> Table:
    state = "converged" if x.converged else "NOT converged"
    title = f"ExtremeEigenvalues, {state} after {x.products} products, none missed by more than {number(x.missed)}"
    rows = [(f"{value:.10g}", number(r)) for value, r in zip(x.values, x.residuals, strict=True)]
    return Table(title, ("eigenvalue", "residual"), rows)


displayed_as(_table)(ExtremeEigenvalues)
