"""Checks one update: P1-update, P2-descent, P2-drift-alignment, P4-update."""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from signal_drift.lora.adapters import Adapter, adjoint_product
from signal_drift.lora.updates import alignment, decompose_update
from signal_drift.propositions.check import TOWARDS, Check, exact, largest, relative, rounding, spoiled, worst
from signal_drift.propositions.subject import Instance, flat

VANISHING_EPSILON = 1e-200
"""The ε of Adam where the theory has none: lost to rounding beside any √v̂, yet 0/(0 + ε) = 0 for an exact zero."""


def update_has_no_remainder(x: Instance) -> Check:
    """Check that w(θ+Δθ) − w(θ) = Δw_Signal + Δw_Drift (P1-update, Eq. 4, 18–21)."""
    moved = {k: Adapter(A + x.delta[k].A, B + x.delta[k].B) for k, (A, B) in x.adapters.items()}
    before, after = (flat(x.weights_of(x.base, theta, x.scaling)) for theta in (x.adapters, moved))
    signal, drift = (flat(part) for part in decompose_update(x.adapters, x.delta, x.scaling))
    rank = max(len(A) for A, _ in x.adapters.values())
    products = [largest(x.s[k] * (abs(B) @ abs(A))) for k, (A, B) in moved.items()]
    return Check.equality(
        "P1-update",
        "Δw = JΔθ + ½∇²w[Δθ, Δθ] with no remainder",
        after - before,
        signal + drift,
        rounding(rank + 4, largest(before) + largest(after) + largest(products) + largest(signal) + largest(drift)),
        control=("Δw = JΔθ", signal),
    )


UPDATE_RULES: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], Any]]] = {
    "gradient descent": ("‖∇‖₂²", lambda g: g, lambda g: np.sum(g**2)),
    "sign descent": ("‖∇‖₁", np.sign, lambda g: np.sum(abs(g))),
    "Muon": (
        "(‖G_A‖_* + ‖G_B‖_*)",
        lambda g: np.matmul(*np.linalg.svd(g, full_matrices=False)[::2]),
        lambda g: np.sum(np.linalg.svd(g, compute_uv=False)),
    ),
}
"""The rules of P2-descent: the norm that it states, the direction, and the norm as a function."""


def signal_descends(x: Instance, rule: str) -> Check:
    """Check that ⟨Δw_Signal, −g⟩ = η‖∇_θℓ‖ in the norm of the rule (P2-descent, Eq. 22–28), here with η = 1."""
    name, direction, norm = UPDATE_RULES[rule]
    gradient = jax.tree.map(np.asarray, adjoint_product(x.adapters, x.gradient, x.scaling))
    delta = jax.tree.map(lambda g: jnp.asarray(-direction(g)), gradient)
    signal = decompose_update(x.adapters, delta, x.scaling).signal
    predicted = float(sum(norm(g) for g in jax.tree.leaves(gradient)))
    D, entries = len(flat(x.base)), largest(flat(signal)) * largest(flat(x.gradient))
    return Check.equality(
        "P2-descent",
        f"{rule}: ⟨Δw_Signal, −g⟩ = η{name} ≥ 0",
        float(alignment(signal, x.gradient)),
        predicted,
        rounding(D, D * entries + predicted),
        control=("half of it", predicted / 2),
        assumptions=x.descending,
    )


def drift_alignment(x: Instance) -> Check:
    """Check that ⟨Δw_Drift, −g⟩ = −½ΔθᵀH_DriftΔθ (P2-drift-alignment, Eq. 31–33)."""
    drift, step = decompose_update(x.adapters, x.delta, x.scaling).drift, flat(x.delta)
    quadratic = float(step @ x.dense["drift"] @ step)
    entries = largest(step) ** 2 * largest(x.dense["drift"])
    return Check.equality(
        "P2-drift-alignment",
        "⟨Δw_Drift, −g⟩ = −½ΔθᵀH_DriftΔθ",
        float(alignment(drift, x.gradient)),
        -quadratic / 2,
        rounding(len(step), len(step) * entries),
        control=("without the ½", -quadratic),
        assumptions=x.sloped,
    )


def drift_has_no_sign(x: Instance) -> Check:
    """Check that ⟨Δw_Drift, −g⟩ turns its sign with ΔB, so that none is fixed (P2-drift-alignment, Eq. 33)."""
    turned = {k: Adapter(dA, -dB) for k, (dA, dB) in x.delta.items()}
    here, there = (
        float(alignment(decompose_update(x.adapters, delta, x.scaling).drift, x.gradient))
        for delta in (x.delta, turned)
    )
    return Check.equality(
        "P2-drift-alignment",
        "⟨Δw_Drift, −g⟩ has no fixed sign: ΔB ↦ −ΔB turns it",
        there,
        -here,
        exact("a change of sign commutes with rounding"),
        control=("the sign stays", here),
        assumptions={"⟨Δw_Drift, −g⟩ ≠ 0": here != 0},
    )


def adam_update_scales(x: Instance, c: float = 3.0, h: float = 5.0) -> Check:
    """Check that ‖Δw_Signal‖ = Θ(αη), ‖Δw_Drift‖ = Θ(αη²), their ratio Θ(1/η), under Adam at fixed W.

    P4-update, Eq. 48–50, by what α multiplied by c and η by h do to the first step: three errors, each relative to
    the size of its terms.
    Entries of ΔA and ΔB are ±η, so that a small layer may have no drift at all: with one output and r = 2, half of
    the time.
    """
    D, rank, norm = len(flat(x.base)), max(len(A) for A, _ in x.adapters.values()), np.linalg.norm
    (signal, drift), (signal_there, drift_there) = _adam_step(x, 1.0, 1.0), _adam_step(x, c, h)
    tolerance, bent = rounding(D + 2 * rank, 1.0), c * h**2 * drift.sum
    straight = spoiled(bent, c * h * drift.sum, tolerance.value * drift_there.terms)
    ratios = h * norm(signal_there.sum) * norm(drift.sum) - norm(signal.sum) * norm(drift_there.sum)
    gaps = [
        relative(signal_there.sum - c * h * signal.sum, signal_there.terms),
        relative(drift_there.sum - bent, drift_there.terms),
        relative(ratios, D * h * signal_there.terms * drift.terms),
    ]
    return Check.bound(
        "P4-update",
        "Adam: α×c and η×h give signal×ch, drift×ch², ratio×1/h (relative to the size of their terms)",
        worst(*gaps),
        tolerance,
        control=(f"{TOWARDS}drift×ch", relative(drift_there.sum - straight, drift_there.terms)),
        assumptions={
            "B ≠ 0": not x.begins["B = 0"],
            **x.sloped,
            "Δw_Drift ≠ 0": not relative(drift.sum, drift.terms) <= 2 * tolerance.value,
        },
    )


class _Sum(NamedTuple):
    """Sums of products, and the largest sum of their absolute values."""

    sum: np.ndarray
    terms: float


def _adam_step(x: Instance, c: float, eta: float) -> tuple[_Sum, _Sum]:
    """Signal and drift of Adam's first step at rate η and c·α, with W and so G unchanged."""
    s = {k: c * s for k, s in x.s.items()}
    delta = _first_step(adjoint_product(x.adapters, x.gradient, s), eta)
    theta, step = (jax.tree.map(jnp.abs, tree) for tree in (dict(x.adapters), delta))
    parts, terms = decompose_update(x.adapters, delta, s), decompose_update(theta, step, s)
    return _Sum(flat(parts.signal), largest(flat(terms.signal))), _Sum(flat(parts.drift), largest(flat(terms.drift)))


@jax.jit
def _first_step(gradient: dict[str, Adapter], eta: float | Array) -> Any:
    optimizer = optax.adam(eta, eps=VANISHING_EPSILON)
    return optimizer.update(cast(Any, gradient), optimizer.init(cast(Any, gradient)))[0]
