"""The algebraic statements of the paper as functions: does it hold for this loss, these weights and these adapters?

Every function takes an `Instance` and returns a `Check`. They build dense matrices in float64 and are meant for models
of a few thousand parameters. What they compare comes from different definitions, never twice from the same code.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array

from signal_drift import closed_forms
from signal_drift.check import Check, largest, relative, rounding
from signal_drift.instance import Instance, flat
from signal_drift.lora import Adapter, adjoint_product
from signal_drift.spectrum import eigenvalues
from signal_drift.updates import alignment, decompose_update


def update_has_no_remainder(x: Instance) -> Check:
    """w(θ+Δθ) − w(θ) = Δw_Signal + Δw_Drift (P1-update, Eq. 4, 18–21)."""
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


def hessian_splits(x: Instance) -> Check:
    """H_LoRA = H_Signal + H_Drift (P1-hessian, Eq. 4, 12–17)."""
    signal, drift = x.dense["signal"], x.dense["drift"]
    return Check.equality(
        "P1-hessian",
        "H_LoRA = H_Signal + H_Drift",
        x.dense["lora"],
        signal + drift,
        x.hessian_tolerance,
        control=("H_LoRA = H_Signal", signal),
        assumptions=x.sloped,
    )


RULES: dict[str, tuple[str, Callable[[Array], Array], Callable[[Array], Array]]] = {
    "gradient descent": ("‖∇‖₂²", lambda g: g, lambda g: jnp.sum(g**2)),
    "sign descent": ("‖∇‖₁", jnp.sign, lambda g: jnp.sum(jnp.abs(g))),
    "Muon": (
        "(‖G_A‖_* + ‖G_B‖_*)",
        lambda g: jnp.matmul(*jnp.linalg.svd(g, full_matrices=False)[::2]),
        lambda g: jnp.sum(jnp.linalg.svd(g, compute_uv=False)),
    ),
}
"""Rules of update: the norm that P2 states, the direction, and the norm as a function."""


def signal_descends(x: Instance, rule: str) -> Check:
    """⟨Δw_Signal, −g⟩ = η‖∇_θℓ‖ in the norm of the rule (P2-descent, Eq. 22–28), here with η = 1."""
    name, direction, norm = RULES[rule]
    gradient = adjoint_product(x.adapters, x.gradient, x.scaling)
    delta = jax.tree.map(lambda g: -direction(g), gradient)
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
        assumptions={"∇_θℓ ≠ 0": predicted > 0},
    )


def signal_is_semidefinite(x: Instance) -> Check:
    """H_ℓ ⪰ 0 implies H_Signal ⪰ 0 (P2-psd, Eq. 29)."""
    task, signal, drift = (eigenvalues(x.dense[name]) for name in ("task", "signal", "drift"))
    flatness = rounding(len(task), largest(task))
    return Check.bound(
        "P2-psd",
        "λ_min(H_Signal) ≥ 0",
        max(0.0, -float(signal[0])),
        x.hessian_tolerance,
        control=("λ_min(H_Drift) ≥ 0", max(0.0, -float(drift[0]))),
        assumptions={"H_ℓ ⪰ 0": bool(task[0] >= -flatness.value), **x.sloped},
    )


def drift_is_indefinite(x: Instance) -> Check:
    """The spectrum of H_Drift is symmetric about 0, and not 0 unless g is (P2-drift-indefinite, Eq. 30)."""
    drift = eigenvalues(x.dense["drift"])
    return Check.bound(
        "P2-drift-indefinite",
        "the eigenvalues of H_Drift come in pairs ±λ",
        largest(drift + drift[::-1]),
        rounding(len(drift), largest(drift)),
        control=("they are all ≥ 0", max(0.0, -float(drift[0]))),
        assumptions=x.sloped,
    )


def drift_alignment(x: Instance) -> Check:
    """⟨Δw_Drift, −g⟩ = −½ΔθᵀH_DriftΔθ (P2-drift-alignment, Eq. 31–33)."""
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


def signal_is_quadratic_in_alpha(x: Instance, factor: float = 4.0) -> Check:
    """H_Signal(cα) = c²H_Signal(α) and H_Drift(cα) = c H_Drift(α) at B = 0 (P4-landscape, Eq. 43–47)."""
    there = x.scaled(factor)
    signal, drift = factor**2 * x.hessian_tolerance.scale, factor * largest(x.dense["drift"])
    gaps = [relative(there["signal"] - factor**2 * x.dense["signal"], signal)]
    gaps += [relative(there["drift"] - factor * x.dense["drift"], drift)]
    return Check.bound(
        "P4-landscape",
        "H_Signal is quadratic in α and H_Drift linear (relative to the size of their terms)",
        max(gaps),
        rounding(len(x.dense["task"]), 1.0),
        control=("H_Signal is linear too", relative(there["signal"] - factor * x.dense["signal"], signal)),
        assumptions={**x.begins, **x.curved},
    )


def drift_spectrum(x: Instance) -> Check:
    """spec(H_Drift) = {±s·σ_i(G_l), each r_l times} ∪ zeros (X1)."""
    squared = {k: jnp.sign(G) * G**2 for k, G in x.gradient.items()}
    measured = eigenvalues(x.dense["drift"])
    return Check.equality(
        "X1",
        "the eigenvalues of H_Drift are ±s·σ_i(G_l), each r times, and 0",
        measured,
        closed_forms.drift_eigenvalues(x.gradient, x.adapters, x.scaling),
        rounding(len(measured), largest(measured)),
        control=("singular values of G² entrywise", closed_forms.drift_eigenvalues(squared, x.adapters, x.scaling)),
        assumptions=x.sloped,
    )


def signal_trace(x: Instance) -> Check:
    """Tr H_Signal = Σ_l s_l² Tr(A_l M_l A_lᵀ) at B = 0 (X2)."""
    grams = closed_forms.task_grams(jnp.asarray(x.dense["task"]), x.base)
    predicted = float(closed_forms.signal_trace(grams, x.adapters, x.scaling))
    measured, p = float(np.trace(x.dense["signal"])), len(x.dense["signal"])
    return Check.equality(
        "X2",
        "Tr H_Signal = Σ_l s² Tr(A_l M_l A_lᵀ)",
        measured,
        predicted,
        rounding(p, p * x.hessian_tolerance.scale),
        control=("half of it", predicted / 2),
        assumptions={**x.begins, **x.curved},
    )


def gauge_directions(x: Instance) -> Check:
    """(δA, δB) = (−X A, B X) has J v = 0, H_Signal v = 0 and H_LoRA v = H_Drift v for every X (X5)."""
    draw = np.random.default_rng(0)
    directions = []
    for sign in (-1, 1):
        X = {k: jnp.asarray(draw.standard_normal((len(A), len(A)))) for k, (A, _) in x.adapters.items()}
        directions.append(flat({k: Adapter(sign * X[k] @ A, B @ X[k]) for k, (A, B) in x.adapters.items()}))
    v, wrong = directions
    J, signal, drift, lora = (x.dense[name] for name in ("jacobian", "signal", "drift", "lora"))
    moved, curved = (len(v) * largest(v) * scale for scale in (largest(J), x.hessian_tolerance.scale))
    return Check.bound(
        "X5",
        "the GL(r) directions leave w and H_Signal alone (relative to the size of the products)",
        max(relative(J @ v, moved), relative(signal @ v, curved), relative(lora @ v - drift @ v, curved)),
        rounding(len(v), 1.0),
        control=("so do (X A, B X)", relative(J @ wrong, moved)),
        assumptions={"B ≠ 0": not x.begins["B = 0"]},
    )


def jacobian_gram(x: Instance) -> Check:
    """J Jᵀ = s²(BBᵀ ⊗ I + I ⊗ AᵀA) in each layer, row by row; zero between layers (X7)."""

    def gram(A: np.ndarray, B: np.ndarray, s: float, swap: bool) -> np.ndarray:
        left, right = np.kron(B @ B.T, np.eye(A.shape[1])), np.kron(np.eye(len(B)), A.T @ A)
        return s**2 * (left - right if swap else left + right)

    layers = [(np.asarray(A), np.asarray(B), x.s[k]) for k, (A, B) in sorted(x.adapters.items())]
    right, wrong = (scipy.linalg.block_diag(*(gram(*layer, swap) for layer in layers)) for swap in (False, True))
    J = x.dense["jacobian"]
    return Check.equality(
        "X7",
        "J Jᵀ = s²(BBᵀ ⊗ I + I ⊗ AᵀA)",
        J @ J.T,
        right,
        rounding(J.shape[1], J.shape[1] * largest(J) ** 2),
        control=("with a minus sign", wrong),
    )


PROPOSITIONS: list[Callable[[Instance], Check]] = [
    update_has_no_remainder,
    hessian_splits,
    *(partial(signal_descends, rule=rule) for rule in RULES),
    signal_is_semidefinite,
    drift_is_indefinite,
    drift_alignment,
    signal_is_quadratic_in_alpha,
    drift_spectrum,
    signal_trace,
    gauge_directions,
    jacobian_gram,
]


def check_all(x: Instance) -> list[Check]:
    """Every statement about one instance, in the order of the paper."""
    return [proposition(x) for proposition in PROPOSITIONS]
