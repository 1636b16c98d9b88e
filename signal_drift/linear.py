"""The linear map of an operator, with all that does not depend on its argument computed once and kept.

Between two matrix products a linear map does nothing but multiply entry by entry and add. Each such stretch is
collapsed: c₁⊙(c₂⊙t) + c₃⊙t becomes (c₁⊙c₂ + c₃)⊙t, and one array for each product t is kept instead of all of them.
"""

from collections.abc import Callable
from functools import partial, reduce
from operator import add, neg
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Inexact

from signal_drift.interpreter import Equation, bind, run

LinearMap = Callable[[Array], Array]


def apply(op: Any, v: Inexact[Array, "n"]) -> Array:
    """H v, linearised at the first product and then kept with the operator, in the memory of about one gradient.

    What is computed within a trace of JAX belongs to the trace and is not kept.
    """
    linear = op.__dict__.get("_linear")
    if linear is None:
        linear = _linearised(op.linearise, op.point, jnp.zeros(op.shape[1], op.dtype))
        if not any(isinstance(x, Tracer) for x in jax.tree.leaves(linear)):
            op.__dict__["_linear"] = linear
    return _applied(linear, v.astype(jnp.result_type(v, op.dtype)))


@partial(jax.jit, static_argnums=0)
def _linearised(linearise: Callable[[Any], LinearMap], point: Any, v: Array) -> LinearMap:
    return jax.linearize(collapsed(linearise(point), v), v)[1]


@jax.jit
def _applied(linear: LinearMap, v: Array) -> Array:
    return linear(v)


class Terms(dict):
    """Σ c⊙t, by the identity of t: (t, c)."""

    def scaled(self, scale: Callable[[Any], Any]) -> "Terms":
        return Terms({key: (t, scale(c)) for key, (t, c) in self.items()})

    def plus(self, other: "Terms") -> "Terms":
        both = {key: (t, self[key][1] + c) for key, (t, c) in other.items() if key in self}
        return Terms({**self, **other, **both})


def collapsed(linear: LinearMap, v: Array) -> LinearMap:
    """The same map of vectors like v, collapsed."""
    traced = jax.make_jaxpr(linear)(v)
    return lambda v: _summed(run(traced, [_term(v)], _rule)[0])


def _term(t: Array) -> Terms:
    return Terms({id(t): (t, 1.0)})


def _summed(x: Any) -> Any:
    if not isinstance(x, Terms):
        return x
    return reduce(add, [t if isinstance(c, float) and c == 1 else c * t for t, c in x.values()])


def _rule(equation: Equation, inputs: list) -> list:
    """The outputs of an equation, as terms where the argument of the map is among what they depend on."""
    if equation.primitive.name == "jit":
        return run(equation.params["jaxpr"], inputs, _rule)
    if not any(isinstance(x, Terms) for x in inputs):
        return bind(equation, inputs)
    terms = _collapse(equation.primitive.name, inputs)
    return [_term(t) for t in bind(equation, [_summed(x) for x in inputs])] if terms is None else [terms]


def _collapse(name: str, inputs: list) -> Terms | None:
    """The equation in terms; none where it is another one, and where a sum of products t is best taken as one."""
    match name, inputs:
        case "neg", [Terms() as x]:
            return x.scaled(neg)
        case ("mul", [Terms() as x, factor]) | ("mul", [factor, Terms() as x]):
            return x.scaled(lambda c: c * factor)
        case "div", [Terms() as x, divisor]:
            return x.scaled(lambda c: c / divisor)
        case "add" | "add_any", [Terms() as x, Terms() as y] if any(jnp.ndim(c) for z in (x, y) for _, c in z.values()):
            return x.plus(y)
    return None
