"""Applies the linear map of an operator, with all that does not depend on its argument computed once and kept."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Inexact

LinearMap = Callable[[Array], Array]


def apply(op: Any, v: Inexact[Array, "n"]) -> Array:
    """Return H v, linearised at the first product and kept with the operator, in the memory of about one gradient.

    A map that is linearised within a trace of JAX belongs to the trace and is not kept.
    """
    linear = op.__dict__.get("_linear")
    if linear is None:
        linear = _linearised(op.linearise, op.point, jnp.zeros(op.shape[1], op.dtype))
        if not any(isinstance(x, Tracer) for x in jax.tree.leaves(linear)):
            op.__dict__["_linear"] = linear
    return _applied(linear, v.astype(jnp.result_type(v, op.dtype)))


@partial(jax.jit, static_argnums=0)
def _linearised(linearise: Callable[[Any], LinearMap], point: Any, v: Array) -> LinearMap:
    return jax.linearize(linearise(point), v)[1]


@jax.jit
def _applied(linear: LinearMap, v: Array) -> Array:
    return linear(v)
