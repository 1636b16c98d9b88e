"""Reads the equations of a traced function, and evaluates them one by one under a rule of one's own."""

from collections.abc import Callable, Iterator
from typing import Any

from jax.extend.core import Literal, jaxprs_in_params

Equation = Any
Rule = Callable[[Equation, list], list]


def run(traced: Any, arguments: list, rule: Rule) -> list:
    """Return the outputs of the traced function; `rule` gives those of each equation from its inputs."""
    jaxpr = getattr(traced, "jaxpr", traced)
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*getattr(traced, "consts", ()), *arguments], strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for equation in jaxpr.eqns:
        outputs = rule(equation, [read(atom) for atom in equation.invars])
        values |= zip(equation.outvars, outputs, strict=True)
    return [read(atom) for atom in jaxpr.outvars]


def bind(equation: Equation, inputs: list) -> list:
    """Evaluate the equation as JAX itself does."""
    with equation.ctx.manager:
        outputs = equation.primitive.bind(*inputs, **equation.primitive.get_bind_params(equation.params))
    return list(outputs) if equation.primitive.multiple_results else [outputs]


def equations(traced: Any) -> Iterator[Equation]:
    """Yield the equations of the traced function and of all that it calls."""
    for equation in getattr(traced, "jaxpr", traced).eqns:
        yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from equations(inner)
