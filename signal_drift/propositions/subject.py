"""Defines the instance that a statement is held against: one loss at one point, and an update of its adapters."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import jax
import numpy as np
from jaxtyping import Array, Float

from signal_drift.display import LAYER, Table, displayed_as, layer_rows
from signal_drift.errors import InputError
from signal_drift.hessians.decomposition import Decomposition, decompose
from signal_drift.lora.adapters import Adapters, Scaling, Weights, adjoint_product, effective_weights, scalings
from signal_drift.losses.arguments import Loss
from signal_drift.operators.operator import gradient
from signal_drift.propositions.check import Tolerance, largest, rounding
from signal_drift.spectra.exact import eigenvalues


@dataclass(frozen=True, eq=False, repr=False)
class Instance:
    """Holds ℓ, W₀, (A, B), s and an update Δθ, which the statements are about, and the map θ ↦ w under test."""

    loss: Loss
    base: Weights
    adapters: Adapters
    scaling: Scaling
    delta: Adapters
    weights_of: Callable[[Weights, Adapters, Scaling], dict[str, Array]] = effective_weights

    @cached_property
    def parts(self) -> Decomposition:
        """Return J and the four Hessians as operators."""
        return decompose(self.loss, self.base, self.adapters, self.scaling)

    @cached_property
    def dense(self) -> Mapping[str, Float[np.ndarray, "_m _n"]]:
        """Return the five matrices, by the names of `Decomposition`; each is built when it is first asked for."""
        return Matrices(self.parts)

    @cached_property
    def gradient(self) -> dict[str, Array]:
        """Compute G_l = ∇_{W_l} ℓ. Raises `InputError` where it is not finite: no statement is about that."""
        slope = gradient(self.parts.task.point)
        for layer, G in slope.items():
            if not np.all(np.isfinite(G)):
                raise InputError(f"loss: its gradient must be finite, but is not in layer {layer!r}")
        return slope

    @cached_property
    def s(self) -> dict[str, float]:
        """Return s of every layer."""
        return {k: float(v) for k, v in scalings(self.scaling, self.base).items()}

    @cached_property
    def begins(self) -> Mapping[str, bool]:
        """Return the assumption B = 0."""
        return {"B = 0": not any(np.any(np.asarray(B)) for _, B in self.adapters.values())}

    @cached_property
    def sloped(self) -> Mapping[str, bool]:
        """Return the assumption g ≠ 0."""
        return {"g ≠ 0": largest(flat(self.gradient)) != 0}

    @cached_property
    def curved(self) -> Mapping[str, bool]:
        """Return the assumption H_ℓ ≠ 0."""
        return {"H_ℓ ≠ 0": largest(self.dense["task"]) != 0}

    @cached_property
    def convex(self) -> Mapping[str, bool]:
        """Return the assumption H_ℓ ⪰ 0, to the rounding of its eigenvalues."""
        spectrum = eigenvalues(self.dense["task"])
        return {"H_ℓ ⪰ 0": bool(spectrum[0] >= -rounding(len(spectrum), largest(self.dense["task"])).value)}

    @cached_property
    def descending(self) -> Mapping[str, bool]:
        """Return the assumption ∇_θℓ ≠ 0."""
        return {"∇_θℓ ≠ 0": largest(flat(adjoint_product(self.adapters, self.gradient, self.scaling))) != 0}

    def rescaled(self, scaling: Mapping[str, float]) -> "Instance":
        """Put other s in its place, all else fixed."""
        return replace(self, scaling=scaling)

    @cached_property
    def hessian_scale(self) -> float:
        """Bound the entries of JᵀH_ℓJ, sums over D weights, by max|H_ℓ|·D·max|J|² + max|H_Drift|."""
        J, H = self.dense["jacobian"], self.dense["task"]
        return largest(H) * largest(J) ** 2 * len(H) + largest(self.dense["drift"])

    @property
    def hessian_tolerance(self) -> Tolerance:
        """Allow the rounding of D additions at the scale of such an entry."""
        return rounding(len(self.dense["task"]), self.hessian_scale)


class Matrices(dict[str, np.ndarray]):
    """Build each of the five dense matrices when it is first asked for."""

    def __init__(self, parts: Decomposition) -> None:
        self.parts = parts

    def __missing__(self, name: str) -> np.ndarray:
        self[name] = matrix = np.asarray(getattr(self.parts, name).dense())
        return matrix


def flat(tree: object) -> np.ndarray:
    """Flatten a tree of arrays into one vector, in the order of `ravel_pytree`."""
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def _table(x: Instance) -> Table:
    rows = layer_rows(x.base, x.adapters, scalings(x.scaling, x.base))
    return Table(f"Instance of {len(rows)} layers, {'B = 0' if x.begins['B = 0'] else 'B ≠ 0'}", LAYER, rows)


displayed_as(_table)(Instance)
