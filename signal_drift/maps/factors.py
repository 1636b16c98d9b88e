"""Finds the thin factors in a map that ends in W₀ + s·LR, so that its W need not be formed: LoRA's, VeRA's, a reader's.

The map is written for whole matrices and stays untouched. It is traced, and a product of two matrices is kept as it is
while it is only multiplied by numbers and added to a matrix; anything else gets the product itself.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Float

from signal_drift.hessians.factored import Factored, cheaper
from signal_drift.jaxpr import Equation, bind, run

MATRIX_PRODUCT = (((1,), (0,)), ((), ()))
"""The dimension numbers of L R."""


class Product(NamedTuple):
    """Hold L R."""

    L: Float[Array, "m r"]
    R: Float[Array, "r n"]


def factored(f: Callable[[Array, Any], Array], W0: Array, theta: Any) -> Factored | Array:
    """Return f(W₀, θ), as W₀ and thin factors where f makes it so and products with them are cheaper."""
    traced = jax.make_jaxpr(f)(W0, theta)
    (W,) = run(traced, [W0, *jax.tree.leaves(theta)], _rule)
    return cheaper(W) if isinstance(W, Factored) else _formed(W)


def _rule(equation: Equation, inputs: list) -> list:
    name, lazy = equation.primitive.name, [isinstance(x, Product | Factored) for x in inputs]
    if name == "dot_general" and not any(lazy) and _is_matrix_product(equation):
        return [Product(*inputs)]
    if any(lazy) and not all(lazy) and name in {"mul", "add"}:
        x, other = inputs if lazy[0] else inputs[::-1]
        if isinstance(x, Product) and name == "mul" and other.ndim == 0:
            return [Product(other * x.L, x.R)]
        if isinstance(x, Product) and name == "add" and other.shape == equation.outvars[0].aval.shape:
            return [Factored(other, *x)]
    return bind(equation, [_formed(x) for x in inputs])


def _is_matrix_product(equation: Equation) -> bool:
    kinds = {x.aval.dtype for x in (*equation.invars, *equation.outvars)}
    matrices = all(x.aval.ndim == 2 for x in equation.invars)
    return matrices and len(kinds) == 1 and equation.params["dimension_numbers"] == MATRIX_PRODUCT


def _formed(x: Any) -> Any:
    if isinstance(x, Product):
        return x.L @ x.R
    return x.merged() if isinstance(x, Factored) else x
