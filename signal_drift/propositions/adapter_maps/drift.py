"""Writes H_Drift of every adapter map factor by factor, and checks it and its spectrum against them (X17).

A map that is linear in every factor has nothing on the diagonal of H_Drift: all of it are the couplings
K_ij = ∂²⟨G, w⟩/∂θ_i∂θ_j of two factors, and its trace is 0. Two factors alone (LoRA, VeRA), or one that is zero, which
leaves only its own couplings K (LoHa and LoKr at the usual start), give H_Drift = [[0, K], [Kᵀ, 0]], whose eigenvalues
are ±σ_i(K) and zeros. DoRA is linear in m alone.
"""

from collections.abc import Callable, Mapping

import numpy as np
import scipy.linalg

from signal_drift.propositions.adapter_maps.subject import BILINEAR, LINEAR, MULTILINEAR, PRODUCTS, Layer, MapInstance
from signal_drift.propositions.check import Check, exact, largest, rounding
from signal_drift.spectra.exact import eigenvalues

Couplings = Mapping[tuple[int, int], np.ndarray]
"""K_ij by the numbers i ≤ j of two factors, each flattened row by row."""


def drift_is_its_couplings(x: MapInstance) -> Check:
    """Check that H_Drift is, layer by layer, what the formulas of the couplings make of G (X17)."""
    predicted = drift_matrix(x)
    return Check.equality(
        "X17",
        "H_Drift consists of the couplings of two factors of one layer",
        x.dense["drift"],
        predicted,
        rounding(sum(G.size for G in x.gradient.values()), _scale(x)),
        control=("it is half of that, or 1 where it is 0", predicted / 2 if predicted.any() else predicted + 1),
        assumptions=x.sloped,
    )


def drift_is_zero_on_its_diagonal(x: MapInstance) -> Check:
    """Check that no factor in which the map is linear is coupled to itself, whence Tr H_Drift = 0 (X17).

    The map is linear in every factor, but for DoRA, which is linear in m. Exact: nothing is added there.
    """
    blocks = [np.ones((f.size, f.size)) * _is_linear(x, i) for y in x.layers for i, f in enumerate(y.factors)]
    inside = np.asarray(scipy.linalg.block_diag(*blocks)) > 0
    elsewhere = np.abs(x.dense["drift"][~inside])
    other = float(np.max(elsewhere, initial=0.0))
    return Check.bound(
        "X17",
        "no factor in which w is linear is coupled to itself",
        largest(x.dense["drift"][inside]),
        exact("nothing is added there"),
        control=("and no two factors are coupled", other),
        assumptions={**x.sloped, "the map is not linear": x.kind not in LINEAR},
    )


def drift_has_a_closed_spectrum(x: MapInstance) -> Check:
    """Check that the spectrum of H_Drift is {±σ_i(K)} ∪ zeros, K by the formula of the map (X17).

    LoRA and rsLoRA: K = s·G, r times (X1). VeRA: K = B ⊙ (GAᵀ). LoHa, LoKr with a factor at zero: K couples that one
    with the others. LoRA-FA, MoRA, (IA)³: there is none. DoRA has no such form.
    """
    measured = eigenvalues(x.dense["drift"])
    closed = x.kind in (*LINEAR, *BILINEAR)
    here = closed or (x.kind in PRODUCTS and x.begins["a factor is 0"])
    predicted = drift_spectrum(x) if here else np.full_like(measured, np.nan)
    return Check.equality(
        "X17",
        "the eigenvalues of H_Drift are ±σ_i(K) and 0",
        measured if here else predicted,
        predicted,
        rounding(len(measured), largest(measured)),
        control=("they are half of that, or 1 where all are 0", predicted / 2 if predicted.any() else predicted + 1),
        assumptions={**x.sloped, **({} if closed else x.begins), "the map is linear in every factor": x.kind != "dora"},
    )


def drift_matrix(x: MapInstance) -> np.ndarray:
    """Assemble H_Drift from the couplings of every layer."""
    return np.asarray(scipy.linalg.block_diag(*(_assembled(couplings(x.kind, y), y) for y in x.layers)))


def drift_spectrum(x: MapInstance) -> np.ndarray:
    """Compute {±σ_i(K)} ∪ zeros, ascending, from K of every layer."""
    sigma = np.concatenate([_singular_values(x.kind, y) for y in x.layers])
    p = sum(f.size for y in x.layers for f in y.factors)
    return np.sort(np.concatenate([sigma, -sigma, np.zeros(p - 2 * len(sigma))]))


def couplings(kind: str, layer: Layer) -> Couplings:
    """Return every K_ij of one layer that is not zero."""
    return {} if kind in LINEAR else FORMULAS[kind](layer)


def _lora(layer: Layer) -> Couplings:
    """∂²⟨G, sBA⟩/∂A_{ki}∂B_{ol} = s G_oi δ_kl."""
    A, B = layer.factors
    return {(0, 1): _flat(layer.s * np.einsum("oi,kl->kiol", layer.G, np.eye(len(A))), A, B)}


def _vera(layer: Layer) -> Couplings:
    """∂²⟨G, diag(b)B diag(d)A⟩/∂b_o∂d_k = B_ok (GAᵀ)_ok."""
    A, B = layer.frozen
    return {(0, 1): B * (layer.G @ A.T)}


def _loha(layer: Layer) -> Couplings:
    """The six couplings of s·⟨G, (B₁A₁) ⊙ (B₂A₂)⟩."""
    (A1, B1, A2, B2), G = layer.factors, layer.s * layer.G
    one, two = np.eye(len(A1)), np.eye(len(A2))
    out, into = np.eye(len(B1)), np.eye(A1.shape[1])
    return {
        (0, 1): _flat(np.einsum("oi,kl->kiol", G * (B2 @ A2), one), A1, B1),
        (2, 3): _flat(np.einsum("oi,kl->kiol", G * (B1 @ A1), two), A2, B2),
        (0, 2): _flat(np.einsum("oi,ok,ol,ij->kilj", G, B1, B2, into), A1, A2),
        (1, 3): _flat(np.einsum("oi,ki,li,op->okpl", G, A1, A2, out), B1, B2),
        (0, 3): _flat(np.einsum("oi,ok,li->kiol", G, B1, A2), A1, B2),
        (1, 2): _flat(np.einsum("oi,ki,ol->okli", G, A1, B2), B1, A2),
    }


def _lokr(layer: Layer) -> Couplings:
    """The three couplings of s·⟨G, C ⊗ (BA)⟩, with G of the axes (m, l, n, k)."""
    C, A, B = layer.factors
    G = layer.s * layer.G.reshape(len(C), len(B), C.shape[1], A.shape[1])
    return {
        (0, 1): _flat(np.einsum("mlnk,lr->mnrk", G, B), C, A),
        (0, 2): _flat(np.einsum("mlnk,rk->mnlr", G, A), C, B),
        (1, 2): _flat(np.einsum("mlnk,mn,rq->rklq", G, C, np.eye(len(A))), A, B),
    }


def _dora(layer: Layer) -> Couplings:
    """The five couplings of Σ_o m_o⟨G_o, u_o⟩, u_o = V_o/‖V_o‖, V = W₀ + sBA.

    With P_o = I − u_o u_oᵀ: Γ_o = m_o P_oG_o/‖V_o‖ is its gradient in V_o, and its Hessian there is
    T_o = −m_o [⟨G_o, u_o⟩P_o + u_o(P_oG_o)ᵀ + P_oG_o u_oᵀ]/‖V_o‖². As u is of degree 0 in V: ⟨Γ_o, V_o⟩ = 0 and
    T_oV_o = −Γ_o.
    """
    (A, B, m), s = layer.factors, layer.s
    V = layer.W0 + s * B @ A
    size = np.linalg.norm(V, axis=1)
    u = V / size[:, None]
    along = np.sum(layer.G * u, axis=1)
    across = (layer.G - along[:, None] * u) / size[:, None]  # P_oG_o/‖V_o‖
    mixed = np.einsum("oi,oj->oij", u, across) / size[:, None, None]
    project = np.eye(V.shape[1]) - np.einsum("oi,oj->oij", u, u)
    T = -m[:, None, None] * ((along / size**2)[:, None, None] * project + mixed + np.transpose(mixed, (0, 2, 1)))
    gamma, rank, out = m[:, None] * across, np.eye(len(A)), np.eye(len(B))
    return {
        (0, 0): _flat(s**2 * np.einsum("ok,ol,oij->kilj", B, B, T), A, A),
        (1, 1): _flat(s**2 * np.einsum("op,ki,oij,lj->okpl", out, A, T, A), B, B),
        (0, 1): _flat(s * np.einsum("oi,kl->kiol", gamma, rank) + s**2 * np.einsum("ok,oij,lj->kiol", B, T, A), A, B),
        (0, 2): _flat(s * np.einsum("ok,oi->kio", B, across), A, m),
        (1, 2): _flat(s * np.einsum("op,oi,ki->okp", out, across, A), B, m),
    }


FORMULAS: Mapping[str, Callable[[Layer], Couplings]] = {
    "lora": _lora,
    "rslora": _lora,
    "vera": _vera,
    "loha": _loha,
    "lokr": _lokr,
    "dora": _dora,
}
"""The couplings of every map that is not linear."""


def _singular_values(kind: str, layer: Layer) -> np.ndarray:
    """σ_i(K) of one layer."""
    if kind in LINEAR:
        return np.zeros(0)
    if kind in {"lora", "rslora"}:
        return np.tile(layer.s * np.linalg.svd(layer.G, compute_uv=False), len(layer.factors[0]))
    found = couplings(kind, layer)
    zero = next((i for i, f in enumerate(layer.factors) if not f.any()), 0)
    K = [M if i == zero else M.T for (i, j), M in found.items() if zero in (i, j)]
    return np.linalg.svd(np.concatenate(K, axis=1), compute_uv=False)


def _assembled(found: Couplings, layer: Layer) -> np.ndarray:
    """The symmetric matrix of which the K_ij are the blocks."""
    ends = np.cumsum([0, *(f.size for f in layer.factors)])
    H = np.zeros((ends[-1], ends[-1]))
    for (i, j), K in found.items():
        H[ends[i] : ends[i + 1], ends[j] : ends[j + 1]] = K
        H[ends[j] : ends[j + 1], ends[i] : ends[i + 1]] = K.T
    return H


def _flat(K: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return K.reshape(one.size, other.size)


def _is_linear(x: MapInstance, factor: int) -> bool:
    return x.kind in MULTILINEAR or factor == 2


def _scale(x: MapInstance) -> float:
    """Bound the terms of an entry of H_Drift by those of the same formula of absolute values, where it has no signs."""
    if x.kind == "dora":
        return largest(drift_matrix(x)) + x.hessian_scale
    return largest([largest(K) for y in x.layers for K in couplings(x.kind, _absolute(y)).values()])


def _absolute(layer: Layer) -> Layer:
    factors, frozen = (tuple(map(np.abs, arrays)) for arrays in (layer.factors, layer.frozen))
    return Layer(np.abs(layer.G), np.abs(layer.W0), factors, abs(layer.s), frozen)
