"""Begins adapters from the pretrained weights themselves: PiSSA and OLoRA, whose B is not 0.

Both move s·BA out of W₀, so that the effective weights at the start are the pretrained ones.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from signal_drift.errors import InputError
from signal_drift.errors.arguments import whole
from signal_drift.lora.adapters import Adapter, Scaling, Weights, check_matrices, scalings


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
    return _moved_out(_principal, base, rank, scaling)


def olora_adapters(base: Weights, rank: int, scaling: Scaling) -> tuple[dict[str, Array], dict[str, Adapter]]:
    """Return W₀ − s·BA and the adapters B = Q_r, A = R_r, the first r columns and rows of W₀ = QR (OLoRA).

    BᵀB = 1 (arXiv 2406.01775; PEFT does not divide by s). Raises `InputError` as `pissa_adapters` does.

    >>> W0 = {"layer": jnp.diag(jnp.array([4.0, 1.0]))}
    >>> base, adapters = olora_adapters(W0, rank=1, scaling=1.0)
    >>> abs(base["layer"]).round(3).tolist()
    [[0.0, 0.0], [0.0, 1.0]]
    """
    return _moved_out(_orthonormal, base, rank, scaling)


def _principal(W0: Array, rank: int, s: Any) -> Adapter:
    U, sigma, Vt = jnp.linalg.svd(W0, full_matrices=False)
    root = jnp.sqrt(sigma[:rank] / s)
    return Adapter(root[:, None] * Vt[:rank], U[:, :rank] * root)


def _orthonormal(W0: Array, rank: int, s: Any) -> Adapter:
    Q, R = jnp.linalg.qr(W0)
    return Adapter(R[:rank], Q[:, :rank])


def _moved_out(
    factors: Callable[[Array, int, Any], Adapter], base: Weights, rank: int, scaling: Scaling
) -> tuple[dict[str, Array], dict[str, Adapter]]:
    """Return W₀ less s·BA of the factors of each layer, and the factors."""
    check_matrices(base)
    scale, rank = scalings(scaling, base), whole("rank", rank, 1)
    rest, adapters = {}, {}
    for layer, W0 in base.items():
        if rank > min(W0.shape):
            raise InputError(f"rank: must be at most {min(W0.shape)}, the smaller side of {layer!r}, got {rank}")
        s = scale[layer]
        if not s > 0:
            raise InputError(f"scaling: must be positive, got {s} for layer {layer!r}")
        A, B = adapters[layer] = factors(W0, rank, s)
        rest[layer] = W0 - s * (B @ A)
    return rest, adapters
