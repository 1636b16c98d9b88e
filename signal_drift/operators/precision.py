"""Finds the step of a function that leaves fewer digits of its arguments than they have, and where it is written."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax.numpy as jnp
from jax.extend.core import Literal, jaxprs_in_params
from jax.extend.source_info_util import summarize

from signal_drift.jaxpr import Equation

LOOPS = {"scan", "while"}


def coarser_step(traced: Any, given: Sequence[bool], limit: Any) -> str | None:
    """Describe the first equation on the way from the arguments that are `given` which rounds to fewer digits.

    That is from a dtype of at least the digits of `limit` to one of less: "float32 at model.py:7 (…)". What the
    result does not come from is passed over, and so is what no derivative goes through: integers, comparisons and what
    stands in a stop_gradient.
    """
    jaxpr = traced.jaxpr.jaxpr
    return next(_coarser(jaxpr, given, [True] * len(jaxpr.outvars), digits(limit)), None)


def digits(dtype: Any) -> float:
    """Count the digits of a dtype: those of a real number in base 2, infinitely many of an integer."""
    return float(jnp.finfo(dtype).nmant) if jnp.issubdtype(dtype, jnp.inexact) else float("inf")


def _coarser(jaxpr: Any, given: Sequence[bool], wanted: Sequence[bool], least: float) -> Iterator[str]:
    carries = {x for x, is_given in zip(jaxpr.invars, given, strict=True) if is_given}
    for equation in jaxpr.eqns:
        if equation.primitive.name != "stop_gradient" and carries & _variables(equation.invars):
            carries |= {x for x in equation.outvars if _is_inexact(x)}
    needed = {x for x, is_wanted in zip(jaxpr.outvars, wanted, strict=True) if is_wanted and not isinstance(x, Literal)}
    for equation in reversed(jaxpr.eqns):
        if carries & needed & set(equation.outvars):
            needed |= _variables(equation.invars)
    for equation in jaxpr.eqns:
        if carries & needed & set(equation.outvars):
            yield from _of_equation(equation, carries, needed, least)


def _of_equation(equation: Equation, carries: set, needed: set, least: float) -> Iterator[str]:
    """The steps of what the equation calls, or the equation itself."""
    inner = [getattr(x, "jaxpr", x) for x in jaxprs_in_params(equation.params)]
    for jaxpr in inner:
        yield from _coarser(jaxpr, *_ends(equation, jaxpr, carries, needed), least)
    if not inner:
        before = [x.aval.dtype for x in equation.invars if not isinstance(x, Literal) and x in carries]
        after = [x.aval.dtype for x in equation.outvars if x in carries and x in needed]
        fine = [x for x in before if digits(x) >= least]
        coarse = [x for x in after if digits(x) < least]
        if fine and coarse:
            step = f"{equation.primitive.name} {fine[0]} → {coarse[0]}"
            yield f"{coarse[0]} at {summarize(equation.source_info)}, {step}"


def _ends(equation: Equation, jaxpr: Any, carries: set, needed: set) -> tuple[list[bool], list[bool]]:
    """Which arguments of a called jaxpr are given and which of its results wanted; all of them where that is unknown.

    A loop hands its results to the next round: there what is like a result is given, and every result is wanted.
    """
    operands = equation.invars[1:] if equation.primitive.name == "cond" else equation.invars
    loop = equation.primitive.name in LOOPS
    if len(operands) != len(jaxpr.invars) or len(equation.outvars) != len(jaxpr.outvars):
        return [True] * len(jaxpr.invars), [True] * len(jaxpr.outvars)
    results = [x.aval for x in jaxpr.outvars] if loop else []
    given = [
        (not isinstance(x, Literal) and x in carries) or inner.aval in results
        for x, inner in zip(operands, jaxpr.invars, strict=True)
    ]
    return given, [loop or x in needed for x in equation.outvars]


def _variables(atoms: Sequence[Any]) -> set:
    return {x for x in atoms if not isinstance(x, Literal)}


def _is_inexact(x: Any) -> bool:
    return jnp.issubdtype(getattr(x.aval, "dtype", int), jnp.inexact)
