"""Predicts by formulas that share no code with the operators they are compared to."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from signal_drift.lora.adapters import Adapters, Scaling, Weights, per_layer

Grams = Mapping[str, Float[Array, "_d_in _d_in"]]


def suppression(rank: int, scaling: float, sigma_a: float) -> float:
    """Return E[Tr H_Signal] / Tr H_ℓ = r s² σ_A² = α² σ_A²/r at B = 0 (P3-trace, Eq. 34–40), s = α/r.

    For A with independent entries of mean 0 and standard deviation `sigma_a`, the same in every layer.
    """
    return rank * scaling**2 * sigma_a**2


def task_grams(task: Float[Array, "D D"], base: Weights) -> dict[str, Array]:
    """Sum M_l = Σ_o H_ℓ[(o,·), (o,·)] of shape (d_in, d_in) for every layer, from the dense H_ℓ (X2)."""
    return {layer: jnp.einsum("oioj->ij", block) for layer, block in _blocks(task, base).items()}


def row_grams(task: Float[Array, "D D"], base: Weights) -> dict[str, Array]:
    """Sum N_l = Σ_i H_ℓ[(·,i), (·,i)] of shape (d_out, d_out) for every layer, from the dense H_ℓ (X10)."""
    return {layer: jnp.einsum("oipi->op", block) for layer, block in _blocks(task, base).items()}


def _blocks(task: Float[Array, "D D"], base: Weights) -> dict[str, Array]:
    """The diagonal block of H_ℓ of every layer, with the axes (d_out, d_in, d_out, d_in)."""
    blocks, start = {}, 0
    for layer, W0 in sorted(base.items()):
        block = task[start : start + W0.size, start : start + W0.size]
        blocks[layer] = block.reshape(W0.shape * 2)
        start += W0.size
    return blocks


def signal_trace(grams: Grams, adapters: Adapters, scaling: Scaling) -> Float[Array, ""]:
    """Compute Tr H_Signal = Σ_l s_l² Tr(A_l M_l A_lᵀ) at B = 0 (X2)."""
    s = per_layer("scaling", scaling, adapters)
    return jnp.sum(jnp.stack([s[k] ** 2 * jnp.vdot(adapters[k].A @ M, adapters[k].A) for k, M in grams.items()]))


def expected_signal_trace(
    grams: Grams, rank: int | Mapping[str, int], scaling: Scaling, sigma_a: float | Mapping[str, float]
) -> float:
    """Compute E[Tr H_Signal] = Σ_l r_l s_l² σ_l² Tr M_l at B = 0: P3-trace with r, s and σ_A of each layer."""
    r, s = per_layer("rank", rank, grams), per_layer("scaling", scaling, grams)
    sigma = per_layer("sigma_a", sigma_a, grams)
    return sum(r[k] * (float(s[k]) * sigma[k]) ** 2 * float(jnp.trace(M)) for k, M in grams.items())


def signal_trace_deviation(
    grams: Grams, rank: int | Mapping[str, int], scaling: Scaling, sigma_a: float | Mapping[str, float]
) -> float:
    """Compute Std[Tr H_Signal] = √(Σ_l 2r_l s_l⁴ σ_l⁴ ‖M_l‖_F²) over Gaussian A at B = 0 (X2)."""
    r, s = per_layer("rank", rank, grams), per_layer("scaling", scaling, grams)
    sigma = per_layer("sigma_a", sigma_a, grams)
    layers = [2 * r[k] * (float(s[k]) * sigma[k]) ** 4 * float(jnp.sum(M**2)) for k, M in grams.items()]
    return float(np.sqrt(sum(layers)))


def first_step_size(rank: int, scaling: float, sigma_a: float, d_in: int) -> float:
    """Return E‖ΔW₁‖_F²/‖ΔW_FFT‖_F² = α²(σ_A²/r)·[1 + 2(r − 1)/(π d_in)] of a first sign step from B = 0 (X8).

    Over Gaussian A at a fixed G without zero rows, beside a sign step of full fine-tuning in which no entry rests.
    """
    return suppression(rank, scaling, sigma_a) * (1 + 2 * (rank - 1) / (np.pi * d_in))


def first_step_descent(
    gradient: Float[Array, "d_out d_in"] | Float[np.ndarray, "d_out d_in"], alpha: float, sigma_a: float
) -> float:
    """Return E⟨ΔW₁, −G⟩/η = α σ_A √(2/π) Σ_o ‖g_o‖₂ of that step, g_o the rows of G: r does not enter (X8)."""
    return alpha * sigma_a * float(np.sqrt(2 / np.pi) * np.sum(np.linalg.norm(np.asarray(gradient, float), axis=1)))


def drift_eigenvalues(gradient: Weights, adapters: Adapters, scaling: Scaling) -> Float[np.ndarray, "p"]:
    """Compute spec(H_Drift) = {±s·σ_i(G_l), each r_l times} ∪ zeros, ascending (X1), from G_l = ∇_{W_l} ℓ."""
    s = per_layer("scaling", scaling, adapters)
    sigma = [
        np.tile(float(s[k]) * np.linalg.svd(np.asarray(G), compute_uv=False), len(adapters[k].A))
        for k, G in gradient.items()
    ]
    pairs = np.concatenate([*sigma, *(-x for x in sigma)])
    p = sum(A.size + B.size for A, B in adapters.values())
    return np.sort(np.concatenate([pairs, np.zeros(p - len(pairs))]))
