"""Estimates the whole spectrum at any size from random vectors: trace and density of eigenvalues, with errors."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Key

from signal_drift.display import Table, displayed_as, span
from signal_drift.errors.arguments import whole
from signal_drift.operators.operator import SymmetricOperator
from signal_drift.operators.scale import exponent_of, restored
from signal_drift.spectra.lanczos import Lanczos
from signal_drift.spectra.matvec import Matvec, generator


class Estimate(NamedTuple):
    """Hold a mean over independent probes and its standard error."""

    value: float
    error: float


class SpectralDensity(NamedTuple):
    """Hold for every probe v a quadrature of its spectral measure: ⟨v, f(H)v⟩ = Σ_j weights_j f(nodes_j).

    Exact for polynomials f of degree below twice the number of nodes. The mean over probes is (1/n)·Σ_i f(λ_i), the
    density of eigenvalues, in expectation; the scatter of the probes is its error. A run that ends early has its
    last nodes at weight 0.
    """

    nodes: Float[np.ndarray, "probes steps"]
    weights: Float[np.ndarray, "probes steps"]

    def mean(self, f: Callable[[np.ndarray], np.ndarray]) -> Estimate:
        """Estimate (1/n)·Σ_i f(λ_i)."""
        return _mean(np.sum(self.weights * f(self.nodes), axis=1))

    def smooth(
        self, grid: Float[np.ndarray, "m"], width: float
    ) -> tuple[Float[np.ndarray, "m"], Float[np.ndarray, "m"]]:
        """Convolve the density with a Gaussian of deviation `width`; return it and its error on `grid`."""
        z = (grid[:, None, None] - self.nodes) / width
        values = np.sum(self.weights * np.exp(-(z**2) / 2), axis=2) / (width * np.sqrt(2 * np.pi))
        return np.mean(values, axis=1), np.asarray(_standard_error(values))


def spectral_density(
    op: SymmetricOperator, *, probes: int = 10, steps: int = 80, key: Key[Array, ""] | None = None
) -> SpectralDensity:
    """Estimate φ(λ) = (1/n)·Σ_i δ(λ − λ_i), by stochastic Lanczos quadrature with full reorthogonalisation.

    One run of `steps` products for each of `probes` vectors, uniform on the unit sphere: the Ritz values are the
    nodes, the squares of the first components of their vectors the weights (Golub and Welsch). Needs the memory
    of steps + 1 vectors. Raises `InputError` for fewer than two probes, which have no scatter.
    """
    probes, steps = whole("probes", probes, 2), whole("steps", steps, 1)
    matvec, draws = Matvec(op), generator(key)
    n = matvec.n
    matvec.check_symmetry(draws)
    nodes, weights = np.zeros((2, probes, min(steps, n)))
    scale = 0.0
    for i in range(probes):
        run = Lanczos(matvec.on_device, np.zeros((0, n), op.dtype), draws.standard_normal(n), min(steps, n), 0.0)
        while run.size < run.capacity and run.beta > matvec.noise * run.scale:
            run.step()
        theta, S, _ = run.ritz()
        scale = max(scale, run.scale)
        nodes[i, : run.size], weights[i, : run.size] = theta, S[0] ** 2
    return SpectralDensity(restored(nodes, matvec.exponent, scale), weights)


def estimate_trace(op: SymmetricOperator, *, probes: int = 60, key: Key[Array, ""] | None = None) -> Estimate:
    """Estimate Tr H = Tr QᵀHQ + E⟨z, (I − QQᵀ)H(I − QQᵀ)z⟩, z ∈ {±1}ⁿ.

    This is Hutch++ (Meyer, Musco, Musco and Woodruff 2021). A third of the products go into Q, an orthonormal basis
    of H applied to random signs, a third into its exact part and a third into z. The error is the standard error of
    the last mean. Raises `InputError` for fewer than six probes.
    """
    probes = whole("probes", probes, 6)
    matvec, draws = Matvec(op), generator(key)
    n, third = matvec.n, min(probes // 3, op.shape[0])
    signs = draws.choice([-1.0, 1.0], (2, third, n))
    images = np.stack([matvec(z) for z in signs[0]])
    Q = np.linalg.qr(images.T)[0]
    exact = sum(float(q @ matvec(q)) for q in Q.T)
    rest = signs[1] - (signs[1] @ Q) @ Q.T
    value, error = _mean(np.array([z @ matvec(z) for z in rest]))
    size = float(np.max(np.abs(images)))
    return Estimate(*(restored(x, matvec.exponent, size) for x in (exact + value, error)))


def _mean(x: Float[np.ndarray, "probes"]) -> Estimate:
    return Estimate(float(np.mean(x)), float(_standard_error(x)))


def _standard_error(x: Float[np.ndarray, "*m probes"]) -> Float[np.ndarray, "*m"] | np.floating:
    """The standard error of the mean over the last axis, whose squares are taken near 1."""
    exponent = exponent_of(x)
    return np.ldexp(np.std(np.ldexp(x, exponent), axis=-1, ddof=1) / np.sqrt(x.shape[-1]), -exponent)


def _table(x: SpectralDensity) -> Table:
    probes, steps = x.nodes.shape
    mean = x.mean(lambda nodes: nodes)
    size = f"{probes} probes of {steps} nodes from {span(x.nodes)}"
    return Table(f"SpectralDensity, {size}; mean eigenvalue {mean.value:.3g} ± {mean.error:.1g}")


displayed_as(lambda x: Table(f"Estimate({x.value:.6g} ± {x.error:.2g})"))(Estimate)
displayed_as(_table)(SpectralDensity)
