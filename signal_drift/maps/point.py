"""Holds the point of any adapter map θ ↦ w(θ), once it is known to be one that has a Hessian there."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.flatten_util import ravel_pytree
from jax.interpreters.partial_eval import dce_jaxpr
from jax.tree_util import Partial, keystr, register_dataclass
from jaxtyping import Array

from signal_drift.display import dtype, norm, shape
from signal_drift.errors import InputError
from signal_drift.errors.arguments import function, leaves, named_layers
from signal_drift.errors.words import shown
from signal_drift.hessians.factored import Factored
from signal_drift.hessians.tangents import FAILED, tangent_map
from signal_drift.lora.adapters import Weights, check_array, check_matrices, per_layer
from signal_drift.losses.arguments import Loss, check_value, traceable
from signal_drift.maps.factors import factored
from signal_drift.operators.operator import AnyPoint

LayerMap = Callable[[Array, Any], Array]
"""(W₀, θ of the layer) ↦ W."""
Theta = Mapping[str, Any]
"""A tree of floating arrays for every layer."""


@register_dataclass
@dataclass(frozen=True)
class MapPoint(AnyPoint):
    """Hold ℓ, W₀, θ and the map of every layer; the arrays of a `jax.tree_util.Partial` map are traced too."""

    theta: dict[str, Any]
    maps: dict[str, Partial]

    functions: ClassVar[str] = "loss or adapter_map"

    def weights(self) -> dict[str, Array]:
        """Return w(θ), of every layer its map at W₀ and its θ."""
        return self.weights_at(self.theta)

    def weights_at(self, theta: Theta) -> dict[str, Array]:
        """Return w at another θ."""
        return {layer: f(self.base[layer], theta[layer]) for layer, f in self.maps.items()}

    def factored_at(self, theta: Theta) -> dict[str, Factored | Array]:
        """Return w at another θ, as W₀ and thin factors where the map has them."""
        return {layer: factored(f, self.base[layer], theta[layer]) for layer, f in self.maps.items()}

    @property
    def trees(self) -> dict[str, dict[str, Any]]:
        """Return W₀ and θ."""
        return {"base": self.base, "theta": self.theta}

    def layers(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Return the shape and norm of W₀, and what θ consists of."""
        rows = [
            (k, shape(W0), norm(W0), ", ".join(map(shape, jax.tree.leaves(self.theta[k]))), dtype(self.theta[k]))
            for k, W0 in sorted(self.base.items())
        ]
        return ("layer", "W₀", "‖W₀‖", "θ", "dtype"), rows


def map_point(loss: Loss, base: Weights, theta: Theta, adapter_map: LayerMap | Mapping[str, LayerMap]) -> MapPoint:
    """Return the point. Raises `InputError` where `decompose_map` does."""
    check_matrices(base)
    named_layers("theta", theta, "trees of arrays")
    trees = per_layer("theta", theta, base)
    maps = {k: traceable(f"adapter_map[{k!r}]", f) for k, f in _functions(adapter_map, base).items()}
    for layer, f in maps.items():
        _check_map(layer, f, base[layer], trees[layer])
    point = MapPoint(traceable("loss", loss), dict(base), trees, maps)
    for layer, W in _weights(point).items():
        if not isinstance(W, Tracer) and not np.all(np.isfinite(W)):
            raise InputError(f"adapter_map[{layer!r}]: must be finite at theta, got {np.sum(W)} as the sum of W")
    check_value(point.loss, point.weights())
    return point


@jax.jit
def _weights(point: MapPoint) -> dict[str, Array]:
    return point.weights()


def _functions(adapter_map: LayerMap | Mapping[str, LayerMap], base: Weights) -> dict[str, LayerMap]:
    if not isinstance(adapter_map, Mapping):
        function("adapter_map", adapter_map)
    return per_layer("adapter_map", adapter_map, base)


def _check_map(layer: str, f: Partial, W0: Array, theta: Any) -> None:
    """Raise `InputError` unless f takes (W₀, θ) to a matrix like W₀, and has two derivatives through all of θ."""
    name = f"adapter_map[{layer!r}]"
    parts = leaves(f"theta[{layer!r}]", theta)
    if not parts:
        raise InputError(f"theta[{layer!r}]: has no arrays, got {shown(theta)}")
    for path, x in parts:
        check_array(f"theta[{layer!r}]{keystr(path)}", x)
    try:
        W = jax.eval_shape(f, W0, theta)
    except Exception as error:  # whatever a function of the user's raises
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(f"{name}: cannot take W0 {W0.shape} and theta[{layer!r}]: {reason}") from error
    kind = jnp.result_type(W0, *(x for _, x in parts))
    if not hasattr(W, "shape") or (W.shape, W.dtype) != (W0.shape, kind):
        found = f"{W.dtype} of shape {W.shape}" if hasattr(W, "shape") else f"a {type(W).__name__}"
        raise InputError(f"{name}: must return {kind} of shape {W0.shape}, as W0 and theta are, got {found}")
    try:
        jax.eval_shape(partial(_second_derivative, name), f, W0, theta)
    except FAILED as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name}: cannot be differentiated twice: {str(error).splitlines()[0]}") from error
    for (path, _), used in zip(parts, _used(f, W0, theta), strict=True):
        if not used:
            raise InputError(f"theta[{layer!r}]{keystr(path)}: no derivative of the map goes through it, leave it out")


def _second_derivative(name: str, f: Partial, W0: Array, theta: Any) -> Array:
    x, unravel = ravel_pytree(theta)
    return tangent_map(jax.grad(lambda x: jnp.sum(f(W0, unravel(x)))), x, name)(x)


def _used(f: Partial, W0: Array, theta: Any) -> list[bool]:
    """For every leaf of θ, whether its part of Jᵀu comes from u: where it does not, it is zero whatever the point."""

    def pulled(u: Array, theta: Any) -> list[Array]:
        return jax.tree.leaves(jax.vjp(lambda theta: f(W0, theta), theta)[1](u))

    dtype = jnp.result_type(W0, *jax.tree.leaves(theta))
    jaxpr = jax.make_jaxpr(pulled)(jax.ShapeDtypeStruct(W0.shape, dtype), theta).jaxpr
    n = len(jaxpr.outvars)
    return [dce_jaxpr(jaxpr, [i == j for j in range(n)])[1][0] for i in range(n)]
