"""Splits how one finite update of the adapters moves the effective weights: signal, drift, and nothing else."""

from typing import NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from signal_drift.display import Table, displayed_as, dtype, norm, shape
from signal_drift.lora.adapters import Adapters, Scaling, Weights, jacobian_product, per_layer


class UpdateParts(NamedTuple):
    """Hold Δw = signal + drift, each a dict of matrices ΔW (Eq. 4)."""

    signal: dict[str, Array]
    drift: dict[str, Array]


def decompose_update(adapters: Adapters, delta: Adapters, scaling: Scaling) -> UpdateParts:
    """Split Δw = JΔθ + ½∇²w[Δθ, Δθ], exactly: ΔW_Signal = s(BΔA + ΔB A), ΔW_Drift = s ΔB ΔA (Eq. 4, 18–21).

    `delta` is Δθ, shaped like `adapters`. Raises `InputError` where the two do not fit.
    """
    signal = jacobian_product(adapters, delta, scaling)
    s = per_layer("scaling", scaling, adapters)
    drift = {layer: s[layer] * (dB @ dA) for layer, (dA, dB) in delta.items()}
    return UpdateParts(signal, drift)


def alignment(update: Weights | Adapters, gradient: Weights | Adapters) -> Float[Array, ""]:
    """Return ⟨Δw, −g⟩ over all layers (Eq. 22, 31): positive where the update descends, in units of the loss."""
    return -jnp.asarray(optax.tree.vdot(update, gradient))


def _table(x: UpdateParts) -> Table:
    rows = [(k, shape(x.signal[k]), norm(x.signal[k]), norm(x.drift[k])) for k in sorted(x.signal)]
    return Table(f"UpdateParts, {dtype(x)}", ("layer", "ΔW", "‖ΔW_Signal‖", "‖ΔW_Drift‖"), rows)


displayed_as(_table)(UpdateParts)
