"""Writes the gauge group of every adapter map, what it may do to θ without moving w, and checks its directions (X18).

The groups act linearly on every factor, so that a generator is a linear map L of θ, its curve γ(t) = exp(tL)θ leaves
w(γ(t)) and the loss where they are, γ'(0) = Lθ = v and γ''(0) = L²θ. Differentiating once gives Jv = 0; twice gives
vᵀH_LoRA v = −⟨∇_θ ℓ, γ''(0)⟩.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import product

import numpy as np
import scipy.linalg

from signal_drift.propositions.adapter_maps.subject import LINEAR, Layer, MapInstance
from signal_drift.propositions.check import (
    TOWARDS,
    Check,
    exact,
    relative,
    rounding,
    spoiled,
    worst,
)
from signal_drift.propositions.subject import flat

Factors = tuple[np.ndarray, ...]
Generator = Callable[[Factors], Factors]
"""A linear map of the factors of one layer."""


def gauge_leaves_the_weights(x: MapInstance) -> Check:
    """Check that Jv = 0, H_Signal v = 0 and vᵀH_LoRA v = −⟨∇_θ ℓ, γ''(0)⟩ along every direction of the group (X18).

    LoRA, rsLoRA, DoRA: (−XA, BX), r² of them. VeRA: (b, −d). LoKr: the same as LoRA's, and (C, −A, 0). LoHa: those of
    each product, and what multiplies row o or column i of one product and divides that of the other.
    """
    v, bent = gauge_directions(x)
    wrong = _with_first_factor_turned(x, v)
    J, signal, lora = (x.dense[name] for name in ("jacobian", "signal", "lora"))
    slope = J.T @ flat(x.gradient)
    p, size = len(v), float(np.max(np.abs(v), initial=0.0))
    moved, curved = p * size * float(np.max(np.abs(J))), p * size * x.hessian_scale
    along = np.einsum("pk,pq,qk->k", v, lora, v) + slope @ bent
    bending = p * (size * curved + float(np.max(np.abs(slope)) * np.max(np.abs(bent), initial=0.0)))
    tolerance = rounding(p, 1.0)
    return Check.bound(
        "X18",
        "the gauge directions leave w and H_Signal alone, and vᵀH_LoRA v = −⟨∇_θ ℓ, γ''⟩ (relative to their terms)",
        worst(relative(J @ v, moved), relative(signal @ v, curved), relative(along, bending)),
        tolerance,
        control=(
            f"{TOWARDS}so they do with the sign of the first factor turned",
            relative(spoiled(J @ v, J @ wrong, tolerance.value * moved), moved),
        ),
        assumptions={"the map has a gauge": v.size > 0, **x.moved},
    )


def gauge_is_the_null_space(x: MapInstance) -> Check:
    """Check that the null space of J is that of the gauge group, whose dimension the formula of the map gives (X18).

    Where there is room: J has no more directions than w has (p − dim ≤ D), and the ranks do not exceed the layer's.
    """
    sigma = np.linalg.svd(x.dense["jacobian"], compute_uv=False)
    p = x.dense["jacobian"].shape[1]
    cut = rounding(max(x.dense["jacobian"].shape), float(sigma[0])).value
    null = p - int(np.sum(sigma > cut))
    stated = sum(dimension(x.kind, y) for y in x.layers)
    return Check.bound(
        "X18",
        "J has as many null directions as the gauge group",
        float(abs(null - stated)),
        exact("a count"),
        control=("it has one more", float(abs(null - stated - 1))),
        assumptions={**x.moved, "there is room": all(_has_room(x.kind, y) for y in x.layers)},
    )


def dimension(kind: str, layer: Layer) -> int:
    """Return the dimension of the gauge group of one layer, at a generic θ."""
    return 0 if kind in LINEAR else DIMENSIONS[kind](layer)


def gauge_directions(x: MapInstance) -> tuple[np.ndarray, np.ndarray]:
    """Return a basis v and γ''(0) of all directions, each of the shape (p, dimension)."""
    found = [_directions(x.kind, y) for y in x.layers]
    v, bent = (scipy.linalg.block_diag(*blocks) for blocks in zip(*found, strict=True))
    return np.asarray(v), np.asarray(bent)


def _directions(kind: str, layer: Layer) -> tuple[np.ndarray, np.ndarray]:
    """Lθ and L²θ of every generator, in columns."""
    once = [L(layer.factors) for L in _generators(kind, layer)]
    twice = [L(v) for L, v in zip(_generators(kind, layer), once, strict=True)]
    p = sum(f.size for f in layer.factors)
    v, bent = (np.array([flat(list(column)) for column in columns]).reshape(-1, p).T for columns in (once, twice))
    return v, bent


def _generators(kind: str, layer: Layer) -> list[Generator]:
    return [] if kind in LINEAR else list(GENERATORS[kind](layer))


def _general_linear(rank: int, A: int, B: int) -> Iterator[Generator]:
    """(A, B) ↦ (−XA, BX) of the factors of these numbers, X a matrix unit."""
    for i, j in product(range(rank), repeat=2):
        X = np.zeros((rank, rank))
        X[i, j] = 1

        def act(theta: Factors, X: np.ndarray = X) -> Factors:
            moves = {A: lambda f: -X @ f, B: lambda f: f @ X}
            return tuple(moves[k](f) if k in moves else 0 * f for k, f in enumerate(theta))

        yield act


def _weighted(*weights: float) -> Generator:
    """Every factor times a number."""
    return lambda theta: tuple(c * f for c, f in zip(weights, theta, strict=True))


def _low_rank(layer: Layer) -> Iterator[Generator]:
    return _general_linear(len(layer.factors[0]), 0, 1)


def _vera(layer: Layer) -> Iterator[Generator]:
    yield _weighted(1.0, -1.0)


def _lokr(layer: Layer) -> Iterator[Generator]:
    yield from _general_linear(len(layer.factors[1]), 1, 2)
    yield _weighted(1.0, -1.0, 0.0)


def _loha(layer: Layer) -> Iterator[Generator]:
    """GL(r₁), GL(r₂), rows, and columns but the last: all rows against all columns is an X of both, X = c·1."""
    A1, B1, A2, _ = layer.factors
    yield from _general_linear(len(A1), 0, 1)
    yield from _general_linear(len(A2), 2, 3)
    for o in range(len(B1)):
        row = np.eye(len(B1))[o][:, None]
        yield lambda theta, row=row: (0 * theta[0], row * theta[1], 0 * theta[2], -row * theta[3])
    for i in range(A1.shape[1] - 1):
        column = np.eye(A1.shape[1])[i]
        yield lambda theta, column=column: (theta[0] * column, 0 * theta[1], -theta[2] * column, 0 * theta[3])


GENERATORS: Mapping[str, Callable[[Layer], Iterator[Generator]]] = {
    "lora": _low_rank,
    "rslora": _low_rank,
    "vera": _vera,
    "loha": _loha,
    "lokr": _lokr,
    "dora": _low_rank,
}
"""A basis of the Lie algebra of every map that is not linear."""

DIMENSIONS: Mapping[str, Callable[[Layer], int]] = {
    "lora": lambda layer: len(layer.factors[0]) ** 2,
    "rslora": lambda layer: len(layer.factors[0]) ** 2,
    "vera": lambda layer: 1,
    "loha": lambda layer: len(layer.factors[0]) ** 2 + len(layer.factors[2]) ** 2 + sum(layer.W0.shape) - 1,
    "lokr": lambda layer: len(layer.factors[1]) ** 2 + 1,
    "dora": lambda layer: len(layer.factors[0]) ** 2,
}
"""r², 1, r₁² + r₂² + d_out + d_in − 1, r² + 1."""

FACTORED = {"lora": [(0, 1)], "rslora": [(0, 1)], "dora": [(0, 1)], "lokr": [(1, 2)], "loha": [(0, 1), (2, 3)]}
"""The numbers of A and B of every product BA."""


def _has_room(kind: str, layer: Layer) -> bool:
    """Say that p − dim ≤ D, and that every r is at most both dimensions of what is factored."""
    p = sum(f.size for f in layer.factors)
    pairs = [(layer.factors[i], layer.factors[j]) for i, j in FACTORED.get(kind, ())]
    thin = all(len(A) <= min(A.shape[1], len(B)) for A, B in pairs)
    return thin and p - dimension(kind, layer) <= layer.W0.size


def _with_first_factor_turned(x: MapInstance, v: np.ndarray) -> np.ndarray:
    sign = np.concatenate([np.full(f.size, -1.0 if i == 0 else 1.0) for y in x.layers for i, f in enumerate(y.factors)])
    return sign[:, None] * v
