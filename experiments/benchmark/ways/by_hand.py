"""Write two kernels out by hand in NumPy, for this one MLP and nothing else: they stay far from the floor as well.

z_i = a_i W_iᵀ with a_0 = X and a_{i+1} = φ(z_i), φ SiLU; δ_i = ∂ℓ/∂z_i and e_i = δ_i W_i = ∂ℓ/∂a_i. A dot is a tangent.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from experiments.benchmark.config import Config
from experiments.benchmark.ways.cases import Call, Case, in_turn, point
from signal_drift.lora.adapters import effective_weights

COLUMNS = 32
"""Columns of H_ℓ at a time, so that they stay in the cache."""
Rows = Float[np.ndarray, "*runs n d"]


class Passes(NamedTuple):
    """Hold a pass forwards and back: a_i, φ′(z_i), φ″(z_i) e_{i+1} and δ_i of every layer, and 2/(nd) of the loss."""

    inputs: list[Rows]
    slopes: list[Rows]
    bends: list[Rows]
    deltas: list[Rows]
    unit: float


def _slopes(z: Rows) -> tuple[Rows, Rows, Rows]:
    """Return φ, φ′ and φ″ of φ(z) = z·σ(z)."""
    s = 1 / (1 + np.exp(-z))
    return z * s, s * (1 + z * (1 - s)), s * (1 - s) * (2 + z * (1 - 2 * s))


def _passes(weights: list[np.ndarray], X: np.ndarray, Y: np.ndarray) -> Passes:
    inputs, slopes, bends = [X], [], []
    for W in weights[:-1]:
        value, slope, bend = _slopes(inputs[-1] @ W.T)
        inputs, slopes, bends = [*inputs, value], [*slopes, slope], [*bends, bend]
    unit = 2 / Y.size
    deltas = [unit * (inputs[-1] @ weights[-1].T - Y)]
    for i in range(len(weights) - 2, -1, -1):
        e = deltas[0] @ weights[i + 1]
        bends[i] = bends[i] * e
        deltas = [slopes[i] * e, *deltas]
    return Passes(inputs, slopes, bends, deltas, unit)


def dense_by_hand(config: Config) -> Call:
    """Compute H_ℓ from the columns of every layer, of which the tangent is one column of a_i and only later rows count.

    ∂²ℓ/∂W_i∂W_l for i ≥ l has the rows δ̇_iᵀ a_i + δ_iᵀ ȧ_i, each product of samples taken for all columns at once.
    """
    at = point(config)
    merged = {k: np.asarray(W) for k, W in effective_weights(at.base, at.adapters, at.scaling).items()}
    names, sizes = in_turn(merged), np.cumsum([0, *(merged[k].size for k in sorted(merged))])
    places = {k: slice(sizes[i], sizes[i + 1]) for i, k in enumerate(sorted(merged))}
    weights, where = [merged[k] for k in names], [places[k] for k in names]
    X, Y = (np.asarray(x) for x in config.problem.regression(0)[2])

    def dense() -> np.ndarray:
        known, H = _passes(weights, X, Y), np.empty((sizes[-1], sizes[-1]))
        for layer, W in enumerate(weights):
            for first in range(0, W.size, COLUMNS):
                columns = np.arange(first, min(first + COLUMNS, W.size))
                here = slice(where[layer].start + columns[0], where[layer].start + columns[-1] + 1)
                for i, rows in _lower(weights, known, layer, np.unravel_index(columns, W.shape)):
                    H[here, where[i]] = rows
                    H[where[i], here] = rows.T
        return H

    return dense


def _lower(weights: list[np.ndarray], known: Passes, layer: int, entry: Any) -> Any:
    """Yield (i, the rows of W_i) for i from the last layer to this one, of the columns of these entries of its W."""
    (out, into), last = entry, len(weights) - 1
    n, k = len(known.inputs[0]), len(out)
    dz = np.zeros((n, k, len(weights[layer])))
    dz[:, np.arange(k), out] = known.inputs[layer][:, into]
    along, moved = {layer: dz}, {}
    for i in range(layer + 1, last + 1):
        moved[i] = known.slopes[i - 1][:, None] * along[i - 1]
        along[i] = (moved[i].reshape(n * k, -1) @ weights[i].T).reshape(n, k, -1)
    delta = known.unit * along[last]
    for i in range(last, layer - 1, -1):
        rows = (delta.reshape(n, -1).T @ known.inputs[i]).reshape(k, *weights[i].shape)
        if i > layer:
            change = (known.deltas[i].T @ moved[i].reshape(n, -1)).reshape(len(weights[i]), k, -1)
            rows += change.transpose(1, 0, 2)
            back = (delta.reshape(n * k, -1) @ weights[i]).reshape(n, k, -1)
            delta = known.slopes[i - 1][:, None] * back + known.bends[i - 1][:, None] * along[i - 1]
        yield i, rows.reshape(k, -1)


def product_by_hand(config: Config) -> Call:
    """Compute H_LoRA v with z = a W₀ᵀ + (a Aᵀ)(sB)ᵀ; what does not depend on v is kept, pairs of products are one."""
    at = point(config)
    names, parts = in_turn(at.base), [(k, j) for k in sorted(at.adapters) for j in (0, 1)]
    ends = np.cumsum([0, *(at.adapters[k][j].size for k, j in parts)])
    where = {part: slice(ends[i], ends[i + 1]) for i, part in enumerate(parts)}
    s = [float(at.scaling[k]) for k in names]
    W0, A, B = (
        [np.asarray(x) for x in row] for row in zip(*((at.base[k], *at.adapters[k]) for k in names), strict=True)
    )
    X, Y = (np.asarray(x) for x in config.problem.regression(0)[2])
    known = _passes([W + c * b @ a for W, c, a, b in zip(W0, s, A, B, strict=True)], X, Y)
    inner = [x @ a.T for x, a in zip(known.inputs, A, strict=True)]
    outer = [c * delta @ b for c, delta, b in zip(s, known.deltas, B, strict=True)]
    v, last = np.asarray(at.direction), len(names) - 1

    def product() -> np.ndarray:
        dA, dB = ([v[where[k, j]].reshape(at.adapters[k][j].shape) for k in names] for j in (0, 1))
        moved, along, dinner = [np.zeros_like(X)], [], []
        for i in range(last + 1):
            dinner.append(known.inputs[i] @ dA[i].T + moved[i] @ A[i].T)
            dz = np.hstack([dinner[i], inner[i]]) @ (s[i] * np.hstack([B[i], dB[i]])).T
            along.append(dz + moved[i] @ W0[i].T if i else dz)
            if i < last:
                moved.append(known.slopes[i] * along[i])
        image, delta = np.empty_like(v), known.unit * along[last]
        for i in range(last, -1, -1):
            douter = s[i] * (delta @ B[i] + known.deltas[i] @ dB[i])
            image[where[names[i], 0]] = (douter.T @ known.inputs[i] + outer[i].T @ moved[i]).ravel()
            image[where[names[i], 1]] = s[i] * (delta.T @ inner[i] + known.deltas[i].T @ dinner[i]).ravel()
            if i:
                e = delta @ W0[i] + np.hstack([douter, outer[i]]) @ np.vstack([A[i], dA[i]])
                delta = known.slopes[i - 1] * e + known.bends[i - 1] * along[i - 1]
        return image

    return product


KERNELS: dict[tuple[str, str], Case] = {
    ("dense", "hand"): dense_by_hand,
    ("product", "hand"): product_by_hand,
}
"""What sets up the call, by kernel and way."""
