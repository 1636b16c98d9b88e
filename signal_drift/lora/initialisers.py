"""Begins adapters from the pretrained weights themselves: PiSSA and OLoRA, whose B is not 0.

Both move s·BA out of W₀, so that the effective weights at the start are the pretrained ones.
"""

import jax.numpy as jnp
from jaxtyping import Array

from signal_drift.errors import InputError
from signal_drift.lora.adapters import Adapter, Scaling, Weights, check_matrices, scalings


def pissa_adapters(base: Weights, rank: int, scaling: Scaling) -> tuple[dict[str, Array], dict[str, Adapter]]:
    """Return W₀ − s·BA and the adapters B = U_r √(Σ_r/s), A = √(Σ_r/s) V_rᵀ of the SVD W₀ = UΣVᵀ (PiSSA).

    s·BA is the best approximation of W₀ of rank r (arXiv 2404.02948; PEFT divides by s as here). B and A shrink as
    1/√s, so that s·JᵀH_ℓJ is linear in s, as H_Drift is. Raises `InputError` for a rank above a layer's smaller side,
    or an s that is not positive.

    >>> W0 = {"layer": jnp.diag(jnp.array([4.0, 1.0]))}
    >>> base, adapters = pissa_adapters(W0, rank=1, scaling=4.0)
    >>> abs(base["layer"]).round(3).tolist()
    [[0.0, 0.0], [0.0, 1.0]]
    """
    scale = _checked(base, rank, scaling)
    adapters = {}
    for layer, W0 in base.items():
        U, sigma, Vt = jnp.linalg.svd(W0, full_matrices=False)
        root = jnp.sqrt(sigma[:rank] / scale[layer])
        adapters[layer] = Adapter(root[:, None] * Vt[:rank], U[:, :rank] * root)
    return _residual(base, adapters, scale), adapters


def olora_adapters(base: Weights, rank: int, scaling: Scaling) -> tuple[dict[str, Array], dict[str, Adapter]]:
    """Return W₀ − s·BA and the adapters B = Q_r, A = R_r, the first r columns and rows of W₀ = QR (OLoRA).

    BᵀB = 1 (arXiv 2406.01775; PEFT does not divide by s). Raises `InputError` as `pissa_adapters` does.

    >>> W0 = {"layer": jnp.diag(jnp.array([4.0, 1.0]))}
    >>> base, adapters = olora_adapters(W0, rank=1, scaling=1.0)
    >>> abs(base["layer"]).round(3).tolist()
    [[0.0, 0.0], [0.0, 1.0]]
    """
    scale = _checked(base, rank, scaling)
    adapters = {}
    for layer, W0 in base.items():
        Q, R = jnp.linalg.qr(W0)
        adapters[layer] = Adapter(R[:rank], Q[:, :rank])
    return _residual(base, adapters, scale), adapters


def _checked(base: Weights, rank: int, scaling: Scaling) -> dict[str, float | Array]:
    check_matrices(base)
    scale = scalings(scaling, base)
    for layer, W0 in base.items():
        if not isinstance(rank, int) or not 1 <= rank <= min(W0.shape):
            raise InputError(f"rank: must be between 1 and the smaller side of {layer!r}, {min(W0.shape)}, got {rank}")
        if not scale[layer] > 0:
            raise InputError(f"scaling: must be positive, got {scale[layer]} for layer {layer!r}")
    return scale


def _residual(base: Weights, adapters: dict[str, Adapter], scale: dict[str, float | Array]) -> dict[str, Array]:
    return {layer: base[layer] - scale[layer] * (B @ A) for layer, (A, B) in adapters.items()}
