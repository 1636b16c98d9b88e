"""Gives the curvature in one layer alone, matrix-free."""

import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float

from signal_drift.errors import InputError
from signal_drift.hessians.decomposition import Decomposition, decompose
from signal_drift.lora.adapters import Adapters, Scaling, Weights, effective_weights, scalings
from signal_drift.losses.arguments import Loss, traceable


def decompose_layer(loss: Loss, base: Weights, adapters: Adapters, scaling: Scaling, layer: str) -> Decomposition:
    """Decompose ℓ as a function of one layer's weights alone (Eq. 4): the diagonal blocks of that layer.

    Matrix-free like `decompose`, at any size; the other layers are held at their effective weights. Which layer it is
    is a value and no part of the code, so that layers of one shape and rank share what is compiled.
    Raises `InputError` for an unknown layer, and where `decompose` does.
    """
    fixed = effective_weights(base, adapters, scaling)
    if not isinstance(layer, str) or layer not in fixed:
        raise InputError(f"layer: unknown layer {layer!r}; the layers are {sorted(fixed)}")
    alike = {k: jnp.asarray(k == layer) for k, W in fixed.items() if W.shape == fixed[layer].shape}
    alone = Partial(_with_one, traceable("loss", loss), fixed, alike)
    s = scalings(scaling, base)
    return decompose(alone, {"layer": base[layer]}, {"layer": adapters[layer]}, {"layer": s[layer]})


def _with_one(loss: Loss, fixed: Weights, chosen: dict[str, Array], weights: Weights) -> Float[Array, ""]:
    """The loss at the fixed weights, with the weights given in the place of the layer chosen."""
    one = {k: jnp.where(here, weights["layer"], fixed[k]) for k, here in chosen.items()}
    return loss({**fixed, **one})
