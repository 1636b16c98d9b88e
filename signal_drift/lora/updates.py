"""Splits how one finite update of the adapters moves the effective weights: signal, drift, and nothing else."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from signal_drift.display import Table, displayed_as, dtype, norm, shape
from signal_drift.errors import InputError
from signal_drift.errors.arguments import named_layers
from signal_drift.lora.adapters import Adapters, Scaling, Weights, check_array, jacobian_product, scalings


class UpdateParts(NamedTuple):
    """Hold Δw = signal + drift, each a dict of matrices ΔW (Eq. 4)."""

    signal: dict[str, Array]
    drift: dict[str, Array]


def decompose_update(adapters: Adapters, delta: Adapters, scaling: Scaling) -> UpdateParts:
    """Split Δw = JΔθ + ½∇²w[Δθ, Δθ], exactly: ΔW_Signal = s(BΔA + ΔB A), ΔW_Drift = s ΔB ΔA (Eq. 4, 18–21).

    `delta` is Δθ, shaped like `adapters`. Raises `InputError` where the two do not fit.
    """
    signal = jacobian_product(adapters, delta, scaling)
    s = scalings(scaling, adapters)
    drift = {layer: s[layer] * (dB @ dA) for layer, (dA, dB) in delta.items()}
    return UpdateParts(signal, drift)


def alignment(update: Weights | Adapters, gradient: Weights | Adapters) -> Float[Array, ""]:
    """Return ⟨Δw, −g⟩ over all layers (Eq. 22, 31): positive where the update descends, in units of the loss."""
    for name, tree in (("update", update), ("gradient", gradient)):
        named_layers(name, tree, "matrices or of Adapter(A, B)")
        for path, x in jax.tree_util.tree_leaves_with_path(dict(tree), is_leaf=lambda x: x is None):
            check_array(name + jax.tree_util.keystr(path), x)
    if jax.tree.map(jnp.shape, dict(update)) != jax.tree.map(jnp.shape, dict(gradient)):
        raise InputError("gradient: its shapes must be those of the update")
    return -jnp.asarray(optax.tree.vdot(dict(update), dict(gradient)))


def _table(x: UpdateParts) -> Table:
    rows = [(k, shape(x.signal[k]), norm(x.signal[k]), norm(x.drift[k])) for k in sorted(x.signal)]
    return Table(f"UpdateParts, {dtype(x)}", ("layer", "ΔW", "‖ΔW_Signal‖", "‖ΔW_Drift‖"), rows)


displayed_as(_table)(UpdateParts)
