"""Takes the second derivative of a scalar function of a tree of arrays: whole columns, or from the diagonal on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from signal_drift.hessians.tangents import tangent_map
from signal_drift.operators.operator import AnyPoint, LinearMap

Function = Callable[[Any], Array]


@dataclass(frozen=True)
class SecondDerivative:
    """Turn a point into v ↦ ∇²f v, where `of` gives the function f and the tree of arrays at which it is taken."""

    of: Callable[[Any], tuple[Function, Any]]

    def __call__(self, point: AnyPoint) -> LinearMap:
        f, tree = self.of(point)
        x, unravel = point.flat(tree)
        return tangent_map(jax.grad(lambda x: f(unravel(x))), x)

    def sizes(self, point: AnyPoint) -> list[int]:
        """Return the number of variables of each array."""
        return [x.size for x in jax.tree.leaves(jax.eval_shape(lambda point: self.of(point)[1], point))]

    def lower(self, point: AnyPoint, first: int, last: int) -> LinearMap:
        """Return v ↦ rows of ∇²f v from the array `first` on, v in the arrays from `first` up to `last`.

        The arrays before are constants: no tangent goes into them, and no derivative in them is taken.
        """
        f, tree = self.of(point)
        leaves, structure = jax.tree.flatten(tree)
        before, here, after = leaves[:first], leaves[first:last], leaves[last:]
        x, unravel = ravel_pytree(here)

        def of_later(later: list[Array]) -> Array:
            return f(jax.tree.unflatten(structure, [*before, *later]))

        def slope(x: Array) -> Array:
            return ravel_pytree(jax.grad(of_later)([*unravel(x), *after]))[0]

        return tangent_map(slope, x)
