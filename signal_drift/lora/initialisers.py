"""Begins adapters from the pretrained weights or their gradient: PiSSA, MiLoRA, OLoRA, LoRA-GA, whose B is not 0.

All move s·BA out of W₀, so that the effective weights at the start are the pretrained ones.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from signal_drift.errors import InputError
from signal_drift.errors.arguments import positive, whole
from signal_drift.lora.adapters import Adapter, Scaling, Weights, check_array, check_matrices, per_layer, scalings


def pissa_adapters(base: Weights, rank: int, scaling: Scaling) -> tuple[dict[str, Array], dict[str, Adapter]]:
    """Return W₀ − s·BA and the adapters B = U_r √(Σ_r/s), A = √(Σ_r/s) V_rᵀ of the SVD W₀ = UΣVᵀ (PiSSA).

    s·BA is the best approximation of W₀ of rank r (arXiv 2404.02948; PEFT divides by s as here). B and A shrink as
    1/√s, so that H_Signal = JᵀH_ℓJ is linear in s, as H_Drift is. Raises `InputError` for a rank above a layer's
    smaller side, or an s that is not positive.

    >>> W0 = {"layer": jnp.diag(jnp.array([4.0, 1.0]))}
    >>> base, adapters = pissa_adapters(W0, rank=1, scaling=4.0)
    >>> abs(base["layer"]).round(3).tolist()
    [[0.0, 0.0], [0.0, 1.0]]
    """
    return _moved_out(_principal, base, base, rank, scaling)


def olora_adapters(base: Weights, rank: int, scaling: Scaling) -> tuple[dict[str, Array], dict[str, Adapter]]:
    """Return W₀ − s·BA and the adapters B = Q_r, A = R_r, the first r columns and rows of W₀ = QR (OLoRA).

    BᵀB = 1 (arXiv 2406.01775; PEFT does not divide by s). Raises `InputError` as `pissa_adapters` does.

    >>> W0 = {"layer": jnp.diag(jnp.array([4.0, 1.0]))}
    >>> base, adapters = olora_adapters(W0, rank=1, scaling=1.0)
    >>> abs(base["layer"]).round(3).tolist()
    [[0.0, 0.0], [0.0, 1.0]]
    """
    return _moved_out(_orthonormal, base, base, rank, scaling)


def milora_adapters(base: Weights, rank: int, scaling: Scaling) -> tuple[dict[str, Array], dict[str, Adapter]]:
    """Return W₀ − s·BA and the adapters of PiSSA with the last r singular values in the place of the first (MiLoRA).

    What is frozen is the best approximation of W₀ by rank min(d_out, d_in) − r (arXiv 2406.09044). Raises `InputError`
    as `pissa_adapters` does.

    >>> W0 = {"layer": jnp.diag(jnp.array([4.0, 1.0]))}
    >>> base, adapters = milora_adapters(W0, rank=1, scaling=4.0)
    >>> abs(base["layer"]).round(3).tolist()
    [[4.0, 0.0], [0.0, 0.0]]
    """
    return _moved_out(_minor, base, base, rank, scaling)


def lora_ga_adapters(
    base: Weights, gradient: Weights, rank: int, scaling: Scaling, gamma: float = 16.0
) -> tuple[dict[str, Array], dict[str, Adapter]]:
    """Return W₀ − s·BA and A = c·V_{1…r}ᵀ, B = c·U_{r+1…2r} of the gradient G = ∇_W ℓ = UΣVᵀ, c⁴ = d_out/γ² (LoRA-GA).

    Then JJᵀG = s²(BBᵀG + GAᵀA) is s²c² times the best approximation of G of rank 2r: so moves W the first step of
    gradient descent (arXiv 2407.05000). Raises `InputError` for a gradient that does not fit the weights, a γ that is
    not positive, a rank above half of a layer's smaller side, or an s that is not positive.

    >>> W0, G = {"layer": jnp.zeros((2, 2))}, {"layer": jnp.diag(jnp.array([4.0, 1.0]))}
    >>> _, adapters = lora_ga_adapters(W0, G, rank=1, scaling=1.0, gamma=2.0**0.5)
    >>> [abs(x).round(3).tolist() for x in adapters["layer"]]
    [[[1.0, 0.0]], [[0.0], [1.0]]]
    """
    check_matrices(base)
    gradient, gamma = per_layer("gradient", gradient, base), positive("gamma", gamma)
    for layer, G in gradient.items():
        if check_array(f"gradient[{layer!r}]", G).shape != base[layer].shape:
            raise InputError(f"gradient[{layer!r}]: shape {G.shape} does not fit the weight {base[layer].shape}")
        if 2 * whole("rank", rank, 1) > min(G.shape):
            raise InputError(f"rank: must be at most half of {min(G.shape)}, the smaller side of {layer!r}, got {rank}")
    return _moved_out(partial(_of_gradient, gamma), base, gradient, rank, scaling)


def _principal(W0: Array, rank: int, s: Any) -> Adapter:
    U, sigma, Vt = jnp.linalg.svd(W0, full_matrices=False)
    root = jnp.sqrt(sigma[:rank] / s)
    return Adapter(root[:, None] * Vt[:rank], U[:, :rank] * root)


def _minor(W0: Array, rank: int, s: Any) -> Adapter:
    U, sigma, Vt = jnp.linalg.svd(W0, full_matrices=False)
    root = jnp.sqrt(sigma[-rank:] / s)
    return Adapter(root[:, None] * Vt[-rank:], U[:, -rank:] * root)


def _of_gradient(gamma: float, G: Array, rank: int, s: Any) -> Adapter:
    U, _, Vt = jnp.linalg.svd(G, full_matrices=False)
    c = len(G) ** 0.25 / gamma**0.5
    return Adapter(c * Vt[:rank], c * U[:, rank : 2 * rank])


def _orthonormal(W0: Array, rank: int, s: Any) -> Adapter:
    Q, R = jnp.linalg.qr(W0)
    return Adapter(R[:rank], Q[:, :rank])


def _moved_out(
    factors: Callable[[Array, int, Any], Adapter], base: Weights, source: Weights, rank: int, scaling: Scaling
) -> tuple[dict[str, Array], dict[str, Adapter]]:
    """Return W₀ less s·BA of the factors of each layer's source, and the factors."""
    check_matrices(base)
    scale, rank = scalings(scaling, base), whole("rank", rank, 1)
    rest, adapters = {}, {}
    for layer, W0 in base.items():
        if rank > min(W0.shape):
            raise InputError(f"rank: must be at most {min(W0.shape)}, the smaller side of {layer!r}, got {rank}")
        s = scale[layer]
        if not s > 0:
            raise InputError(f"scaling: must be positive, got {s} for layer {layer!r}")
        wide = source[layer].astype(jnp.promote_types(source[layer].dtype, jnp.float32))  # LAPACK knows no half floats
        A, B = adapters[layer] = Adapter(*(x.astype(W0.dtype) for x in factors(wide, rank, s)))
        rest[layer] = W0 - s * (B @ A)
    return rest, adapters
