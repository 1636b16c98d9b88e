"""Gives the curvature in one layer alone, matrix-free."""

from jax.tree_util import Partial
from jaxtyping import Array, Float

from signal_drift.errors import InputError
from signal_drift.hessians.decomposition import Decomposition, decompose
from signal_drift.lora.adapters import Adapters, Scaling, Weights, effective_weights, per_layer
from signal_drift.losses.arguments import Loss, traceable


def decompose_layer(loss: Loss, base: Weights, adapters: Adapters, scaling: Scaling, layer: str) -> Decomposition:
    """Decompose ℓ as a function of one layer's weights alone (Eq. 4): the diagonal blocks of that layer.

    Matrix-free like `decompose`, at any size; the other layers are held at their effective weights.
    Raises `InputError` for an unknown layer, and where `decompose` does.
    """
    fixed = effective_weights(base, adapters, scaling)
    if layer not in fixed:
        raise InputError(f"layer: unknown layer {layer!r}; the layers are {sorted(fixed)}")
    alone = Partial(_with_fixed, traceable("loss", loss), fixed)
    s = per_layer("scaling", scaling, base)
    return decompose(alone, {layer: base[layer]}, {layer: adapters[layer]}, {layer: s[layer]})


def _with_fixed(loss: Loss, fixed: Weights, weights: Weights) -> Float[Array, ""]:
    return loss({**fixed, **weights})
