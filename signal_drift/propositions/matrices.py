"""Checks the matrices themselves: P1-hessian, P2-psd, P2-drift-indefinite, P4-landscape, X1, X5, X6, X7, X16."""

import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial
from jaxtyping import Array

from signal_drift.hessians.gauss_newton import criterion_curvature, gauss_newton
from signal_drift.lora.adapters import Adapter
from signal_drift.losses.composite import composite, outputs_and_criterion
from signal_drift.propositions import closed_forms
from signal_drift.propositions.check import (
    NEARNESS,
    TOWARDS,
    Check,
    below_zero,
    exact,
    largest,
    relative,
    rounding,
    spoiled,
    worst,
)
from signal_drift.propositions.subject import Instance, flat
from signal_drift.spectra.exact import eigenvalues, trace


def hessian_splits(x: Instance) -> Check:
    """Check that H_LoRA = H_Signal + H_Drift (P1-hessian, Eq. 4, 12–17)."""
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


def signal_is_semidefinite(x: Instance) -> Check:
    """Check that H_ℓ ⪰ 0 implies H_Signal ⪰ 0 (P2-psd, Eq. 29)."""
    lowest, tolerance = float(eigenvalues(x.dense["signal"])[0]), x.hessian_tolerance
    return Check.bound(
        "P2-psd",
        "λ_min(H_Signal) ≥ 0",
        below_zero(lowest),
        tolerance,
        control=("λ_min(H_Signal) ≥ two tolerances", below_zero(lowest - NEARNESS * tolerance.value)),
        assumptions={**x.convex, **x.sloped},
    )


def drift_is_indefinite(x: Instance) -> Check:
    """Check that the spectrum of H_Drift is symmetric about 0, and not 0 unless g is (P2-drift-indefinite, Eq. 30)."""
    drift = eigenvalues(x.dense["drift"])
    tolerance = rounding(len(drift), largest(drift))
    return Check.bound(
        "P2-drift-indefinite",
        "the eigenvalues of H_Drift come in pairs ±λ",
        largest(drift + drift[::-1]),
        tolerance,
        control=("in pairs λ, two tolerances − λ", largest(drift + drift[::-1] - NEARNESS * tolerance.value)),
        assumptions=x.sloped,
    )


def drift_couples_one_layer(x: Instance) -> Check:
    """Check that H_Drift is zero outside the blocks of A and B of one layer (P2-drift-indefinite, Eq. 30)."""
    kind = flat(
        {
            k: Adapter(jnp.full(A.shape, 2 * i), jnp.full(B.shape, 2 * i + 1))
            for i, (k, (A, B)) in enumerate(sorted(x.adapters.items()))
        }
    )
    apart = abs(kind[:, None] - kind) == 1
    coupled = apart & (kind[:, None] // 2 == kind // 2)
    drift = x.dense["drift"]
    inside = abs(drift[coupled & (drift != 0)])
    return Check.bound(
        "P2-drift-indefinite",
        "H_Drift is zero outside the blocks of A and B of one layer",
        largest(drift[~coupled]),
        exact("nothing is added there"),
        control=("and at the smallest of its other entries", float(np.min(inside)) if len(inside) else 0.0),
        assumptions=x.sloped,
    )


def signal_is_quadratic_in_alpha(x: Instance, factor: float = 4.0) -> Check:
    """Check that H_Signal(cα) = c²H_Signal(α) and H_Drift(cα) = c H_Drift(α) at B = 0 (P4-landscape, Eq. 43–47)."""
    there = x.rescaled({k: factor * s for k, s in x.s.items()}).dense
    signal, drift = factor**2 * x.hessian_scale, factor * largest(x.dense["drift"])
    gaps = [relative(there["signal"] - factor**2 * x.dense["signal"], signal)]
    gaps += [relative(there["drift"] - factor * x.dense["drift"], drift)]
    tolerance = rounding(len(x.dense["task"]), 1.0)
    straight = spoiled(factor**2 * x.dense["signal"], factor * x.dense["signal"], tolerance.value * signal)
    return Check.bound(
        "P4-landscape",
        "H_Signal is quadratic in α and H_Drift linear (relative to the size of their terms)",
        worst(*gaps),
        tolerance,
        control=(f"{TOWARDS}H_Signal is linear too", relative(there["signal"] - straight, signal)),
        assumptions={**x.begins, **x.curved},
    )


def drift_spectrum(x: Instance) -> Check:
    """Check that spec(H_Drift) = {±s·σ_i(G_l), each r_l times} ∪ zeros (X1)."""
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


def largest_eigenvalue_is_bracketed(x: Instance) -> Check:
    """Check that s·σ₁(G) + λmin[H_Signal] ≤ λmax[H_LoRA] ≤ s·σ₁(G) + λmax[H_Signal] (X16).

    H_LoRA = H_Signal + H_Drift (P1-hessian) and λmax[H_Drift] = max_l s_l σ₁(G_l) (X1). Weyl's inequality
    λmin[M] + λmax[N] ≤ λmax[M + N] ≤ λmax[M] + λmax[N] of symmetric M, N is the statement, at every θ. Where
    H_Signal ⪰ 0 (P2-psd), the lower end is at least s·σ₁(G) itself; at B = 0 it needs no Hessian at all.
    """
    drift = largest(closed_forms.drift_eigenvalues(x.gradient, x.adapters, x.scaling))
    signal, lora = (eigenvalues(x.dense[name]) for name in ("signal", "lora"))
    ends = [drift + signal[0], drift + signal[-1]]
    tolerance = rounding(len(signal), worst(drift, largest(signal), largest(lora)))
    moved = max(ends[0], lora[-1] + NEARNESS * tolerance.value)
    return Check.bound(
        "X16",
        "λmax[H_LoRA] lies between s·σ₁(G) + λmin[H_Signal] and s·σ₁(G) + λmax[H_Signal]",
        worst(below_zero(lora[-1] - ends[0]), below_zero(ends[1] - lora[-1])),
        tolerance,
        control=("its lower end is two tolerances above it", below_zero(lora[-1] - moved)),
        assumptions=x.sloped,
    )


def gauge_directions(x: Instance) -> Check:
    """Check that v = (−X A, B X) has J v = 0, H_Signal v = 0 and H_LoRA v = H_Drift v for a drawn X (X5)."""
    draw = np.random.default_rng(0)
    directions = []
    for sign in (-1, 1):
        X = {k: jnp.asarray(draw.standard_normal((len(A), len(A)))) for k, (A, _) in x.adapters.items()}
        directions.append(flat({k: Adapter(sign * X[k] @ A, B @ X[k]) for k, (A, B) in x.adapters.items()}))
    v, wrong = directions
    J, signal, drift, lora = (x.dense[name] for name in ("jacobian", "signal", "drift", "lora"))
    moved, curved = (len(v) * largest(v) * scale for scale in (largest(J), x.hessian_scale))
    tolerance = rounding(len(v), 1.0)
    return Check.bound(
        "X5",
        "the GL(r) directions leave w and H_Signal alone (relative to the size of the products)",
        worst(relative(J @ v, moved), relative(signal @ v, curved), relative(lora @ v - drift @ v, curved)),
        tolerance,
        control=(f"{TOWARDS}so do (X A, B X)", relative(spoiled(J @ v, J @ wrong, tolerance.value * moved), moved)),
        assumptions={"B ≠ 0": not x.begins["B = 0"]},
    )


def gauss_newton_is_semidefinite(x: Instance) -> Check:
    """Check that JᵀGJ ⪰ 0 for a criterion that is convex in the outputs, whatever the model (X6)."""
    point = (x.loss, x.base, x.adapters, x.scaling)
    halves = outputs_and_criterion(x.loss)
    assumptions, lowest, tolerance = {"the loss is composite": halves is not None}, np.nan, rounding(1, np.nan)
    if halves is not None:
        C = eigenvalues(criterion_curvature(*point))
        assumptions["its criterion is convex"] = bool(C[0] >= -rounding(len(C), largest(C)).value)
        lowest = float(eigenvalues(gauss_newton(*point).signal)[0])
        reach = trace(gauss_newton(composite(halves[0], Partial(_half_square)), *point[1:]).task)
        n = max(len(C), *x.dense["jacobian"].shape)
        tolerance = rounding(n, largest(C) * reach * float(np.sum(x.dense["jacobian"] ** 2)))
    return Check.bound(
        "X6",
        "λ_min(JᵀGJ) ≥ 0 for the Gauss–Newton matrix G",
        below_zero(lowest),
        tolerance,
        control=("λ_min(JᵀGJ) ≥ two tolerances", below_zero(lowest - NEARNESS * tolerance.value)),
        assumptions={**assumptions, **x.sloped},
    )


def _half_square(outputs: object) -> Array:
    """The criterion whose Gauss–Newton matrix is J_fᵀJ_f, of trace ‖J_f‖²."""
    return jnp.sum(ravel_pytree(outputs)[0] ** 2) / 2


def jacobian_gram(x: Instance) -> Check:
    """Check that J Jᵀ = s²(BBᵀ ⊗ I + I ⊗ AᵀA) in each layer, row by row; zero between layers (X7)."""

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
