"""Differentiates forwards, and through the reverse rule where that is the only one which a function has."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from signal_drift.errors import InputError
from signal_drift.jaxpr import equations

FAILED = (TypeError, NotImplementedError, ValueError)
"""JAX raises one of these for a derivative that has no rule."""


def tangent_map(f: Callable[[Array], Array], x: Array, name: str = "loss") -> Callable[[Array], Array]:
    """Return v ↦ J_f v at x, by one linearisation.

    A `jax.custom_vjp` whose forward rule calls the function itself cannot be differentiated forwards; there J_f is
    the transpose of u ↦ J_fᵀu. Raises `InputError`, with the names of such functions, where that does not exist either;
    `name` is the argument that f comes from.
    """
    try:
        return _checked(jax.linearize(f, x)[1], x)
    except FAILED as error:
        names = _custom_vjps(f, x)
        if not names:
            raise
        try:
            return _checked(_transposed_twice(f, x), x)
        except FAILED:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"{name}: has no second derivative: {', '.join(names)} has a rule of jax.custom_vjp that cannot be "
                f"differentiated itself, neither forwards nor backwards; write it with jax.custom_jvp ({reason})"
            ) from error


def _transposed_twice(f: Callable[[Array], Array], x: Array) -> Callable[[Array], Array]:
    y, pull = jax.vjp(f, x)
    push = jax.linear_transpose(lambda u: pull(u)[0], y)
    return lambda v: push(v)[0]


def _checked(linear: Callable[[Array], Array], x: Array) -> Callable[[Array], Array]:
    """The linear map, once it is known that every part of it has a rule: JAX finds one missing only at its use."""
    jax.eval_shape(lambda v: jax.jvp(linear, (v,), (v,)), jnp.zeros_like(x))
    return linear


def _custom_vjps(f: Callable[[Array], Array], x: Array) -> list[Any]:
    """The functions with a reverse rule of their own that f calls, each with its place."""
    calls = (e for e in equations(jax.make_jaxpr(f)(x)) if e.primitive.name == "custom_vjp_call")
    return sorted({str(call.params["call_jaxpr"].jaxpr.debug_info.func_src_info) for call in calls})
