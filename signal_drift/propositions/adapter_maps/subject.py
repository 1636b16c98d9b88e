"""Defines the instance that a statement about an adapter map is held against: ℓ, W₀, θ, the map and an update of θ."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import jax
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float

from signal_drift.errors import InputError
from signal_drift.errors.words import shown
from signal_drift.hessians.decomposition import Decomposition
from signal_drift.lora.adapters import Weights, per_layer
from signal_drift.losses.arguments import Loss, traceable
from signal_drift.maps import LayerMap, Theta, decompose_map, mora
from signal_drift.operators.operator import gradient
from signal_drift.propositions.check import largest
from signal_drift.propositions.subject import Matrices, flat

BILINEAR = ("lora", "rslora", "vera")
"""Maps linear in each of two halves of θ."""
LINEAR = ("lora_fa", "mora", "ia3")
"""Maps linear in θ."""
PRODUCTS = ("loha", "lokr")
"""Maps linear in every factor, of which there are more than two."""
MULTILINEAR = (*LINEAR, *BILINEAR, *PRODUCTS)
SCALED = ("lora", "rslora", "lora_fa", "dora", "loha", "lokr")
"""Maps with α: it, or s, is the last argument of their function."""
MAPS = (*MULTILINEAR, "dora")
"""Every map that there are statements about, by its name in `signal_drift.maps`."""


class Layer(NamedTuple):
    """Hold what the formulas of one layer are made of, for NumPy: G = ∇_W ℓ, W₀, the factors of θ, s, and A, B of VeRA.

    `factors` are the leaves of θ in the order of `ravel_pytree`.
    """

    G: np.ndarray
    W0: np.ndarray
    factors: tuple[np.ndarray, ...]
    s: float
    frozen: tuple[np.ndarray, ...]


@dataclass(frozen=True, eq=False)
class MapInstance:
    """Holds ℓ, W₀, θ, one of the maps of `signal_drift.maps` with its arguments, and an update Δθ.

    `adapter_map` is one map or one for each layer, all of one kind. Raises `InputError` for another function.
    """

    loss: Loss
    base: Weights
    theta: Theta
    adapter_map: LayerMap | Mapping[str, LayerMap]
    delta: Theta

    @cached_property
    def maps(self) -> dict[str, Partial]:
        """Return the map of every layer as a `Partial`, whose arguments are data."""
        maps = per_layer("adapter_map", self.adapter_map, self.base)
        return {k: traceable(f"adapter_map[{k!r}]", f) for k, f in maps.items()}

    @cached_property
    def kind(self) -> str:
        """Return the name of the map in `signal_drift.maps`."""
        functions = {f.func for f in self.maps.values()}
        function = functions.pop()
        name = getattr(function, "__name__", "").removeprefix("_")
        ours = getattr(function, "__module__", "").rpartition(".")[0] == mora.__module__.rpartition(".")[0]
        if functions or not ours or name not in MAPS:
            raise InputError(f"adapter_map: must be one of {', '.join(MAPS)}, got {shown(self.adapter_map)}")
        return name

    @cached_property
    def parts(self) -> Decomposition:
        """Return J and the four Hessians as operators."""
        return decompose_map(self.loss, self.base, self.theta, self.maps)

    @cached_property
    def dense(self) -> Mapping[str, Float[np.ndarray, "_m _n"]]:
        """Return the five matrices, by the names of `Decomposition`; each is built when it is first asked for."""
        return Matrices(self.parts)

    @cached_property
    def gradient(self) -> dict[str, Array]:
        """Compute G_l = ∇_{W_l} ℓ."""
        return gradient(self.parts.task.point)

    @cached_property
    def layers(self) -> list[Layer]:
        """Return what the formulas of every layer are made of, in the order of the flattened θ."""
        return [self._layer(k) for k in sorted(self.base)]

    def _layer(self, k: str) -> Layer:
        factors = tuple(np.asarray(x) for x in jax.tree.leaves(self.theta[k]))
        arguments = tuple(np.asarray(x) for x in self.maps[k].args)
        s = float(arguments[-1]) if self.kind in SCALED else 1.0
        frozen = arguments[:-1] if self.kind in SCALED else arguments
        if self.kind == "rslora":
            s /= len(factors[0]) ** 0.5
        return Layer(np.asarray(self.gradient[k]), np.asarray(self.base[k]), factors, s, frozen)

    @cached_property
    def sloped(self) -> Mapping[str, bool]:
        """Return the assumption g ≠ 0."""
        return {"g ≠ 0": largest(flat(self.gradient)) != 0}

    @cached_property
    def begins(self) -> Mapping[str, bool]:
        """Return the assumption that a factor of every layer is zero, as at the usual start."""
        return {"a factor is 0": all(any(not x.any() for x in layer.factors) for layer in self.layers)}

    @cached_property
    def moved(self) -> Mapping[str, bool]:
        """Return the assumption that no factor is zero."""
        return {"no factor is 0": all(x.any() for layer in self.layers for x in layer.factors)}

    @cached_property
    def hessian_scale(self) -> float:
        """Bound the entries of JᵀH_ℓJ, sums over D weights, by max|H_ℓ|·D·max|J|² + max|H_Drift|."""
        J, H = self.dense["jacobian"], self.dense["task"]
        return largest(H) * largest(J) ** 2 * len(H) + largest(self.dense["drift"])

    def rescaled(self, factor: float) -> "MapInstance":
        """Multiply α, and move W₀ so that w(θ) stays; of DoRA V stays, which only its direction part moves."""
        maps = {k: Partial(f.func, *f.args[:-1], factor * f.args[-1]) for k, f in self.maps.items()}
        base = {k: W0 + self._update(k, self.maps[k]) - self._update(k, maps[k]) for k, W0 in self.base.items()}
        return replace(self, base=base, adapter_map=maps)

    def _update(self, k: str, f: Partial) -> Array:
        """Return what α multiplies in W − W₀, in V − W₀ for DoRA."""
        if self.kind == "dora":
            return f.args[-1] * (self.theta[k].B @ self.theta[k].A)
        return f(0 * self.base[k], self.theta[k])
