"""Checks that a layer is what the theory takes it for: s·BA added to its matrix adds s·B(Ax) to its output.

Two checks, as each sees what the other cannot. Every module by itself is run on drawn numbers, which finds a subclass
with a scale, a norm or an activation of its own. The whole model, on the shapes of an example input, is traced and
its kernels are followed: that finds a kernel which is read elsewhere too, as by a tied head, and a wrong einsum.
"""

from collections.abc import Callable, Mapping
from string import ascii_letters
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.core import Tracer
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from signal_drift.errors import InputError
from signal_drift.models.kernel_layout import Layout
from signal_drift.models.layers import Layer, owner, variables_of
from signal_drift.models.products import Kernel, other_use

Draw = np.random.Generator
Setter = Callable[[np.ndarray, np.ndarray], None]
"""Puts a row A and a column B into a module."""


class Claim(NamedTuple):
    """Holds what a module is taken to compute, and what helps where it does not."""

    formula: str
    mend: str


MATRIX = Claim("y = W x + b", "leave it out with `layers`, or write it as y = W x + b")
PLAIN = "...a,ab->...b"
"""The einsum of an nnx.Linear."""


def check_alone(modules: Mapping[str, Any], layers: Mapping[str, Layer], *, in_place: bool) -> None:
    """Raise `InputError` unless W + BA in the place of W adds B(Ax) to the output of every layer's module by itself.

    One of each stack is run. A module that cannot be called with x alone is left to `check_in_place` where that
    follows. A layer that goes by the path of its parameter is one whose einsum was stated, and is left to it always.
    """
    for name, layer in _one_of_each_stack(layers).items():
        if not name.startswith(layer.parameter):
            module = alone(owner(modules, layer.parameter), stacked_by(modules, layer))
            kernel = variables_of(module)["kernel"]
            put = _kernel_setter(kernel, layer.layout)
            check_adds(MATRIX, name, module, layer.layout, kernel.dtype, put, in_place=in_place)
        elif not in_place:
            raise InputError(f"equations: give `example`, the model's inputs, to check {name!r} in the model's trace")


def check_adds(
    claim: Claim, name: str, module: Any, layout: Layout, dtype: DTypeLike, put: Setter, *, in_place: bool
) -> None:
    """Raise `InputError` unless module(x) grows by BAx from put(A, 0) to put(A, B).

    A and B are a row and a column of ±1 and x is of small integers, so that products and their sums are exact in any
    precision: what rounds is the output and its sum with the bias, in each of the two: 4ε of the largest of them.
    """
    draw = np.random.default_rng(0)
    equation = layout.equation.replace("...", _unused(layout.equation))
    d_out, d_in = layout.matrix_shape
    a, b = _signs(draw, d_in), _signs(draw, d_out)
    x = _input(draw, layout, equation, a)
    added = np.einsum(equation, x, layout.kernel(np.outer(b, a)), optimize=True)
    outputs = []
    with jax.ensure_compile_time_eval(), jax.default_matmul_precision("highest"):
        for column in (0 * b, b):
            put(a, column)
            try:
                outputs.append(jnp.asarray(module(jnp.asarray(x, dtype))))
            except Exception as error:  # whatever a module of the user's raises
                if in_place:
                    return
                what = f"{name!r} ({type(module).__name__}) cannot be called with one array of shape {x.shape}"
                why = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
                raise InputError(f"model: {what} ({why}); give `example`, the model's inputs, to check it") from None
    floats = [x.dtype for x in (*variables_of(module).values(), *outputs) if jnp.issubdtype(x.dtype, jnp.floating)]
    before, after = (np.asarray(y, float) for y in outputs)
    size = max(float(np.max(np.abs(part), initial=0)) for part in (added, before, after))
    off = float(np.max(np.abs(after - before - added), initial=0)) if after.shape == added.shape else np.inf
    if not off <= 4 * size * max(float(jnp.finfo(dtype).eps) for dtype in floats):
        raise InputError(
            f"model: {name!r} ({type(module).__name__}) is not {claim.formula}: s·BA does not add s·B(Ax) to its "
            f"output, off by {off:.2g} of {size:.2g}; {claim.mend}"
        )


def check_in_place(model: nnx.Module, layers: Mapping[str, Layer], example: Any) -> None:
    """Raise `InputError` unless the model uses every layer's parameter as the matrix of y = W x and in no other way.

    `example` are the model's inputs, arrays or shapes: one, a tuple of them, or a dict of keyword arguments.
    """
    places = {layer.parameter: (name, layer) for name, layer in reversed([*layers.items()])}
    graphdef, state = nnx.split(model)
    variables = variables_of(model)
    kernels = [Kernel(p, variables[p].shape, layer.layout) for p, (_, layer) in places.items()]
    arrays, call = split_inputs(example)

    def run(values: list[Array], arrays: list[Array]) -> Any:
        copy = nnx.merge(graphdef, state, copy=True)
        inside = variables_of(copy)
        for kernel, value in zip(kernels, values, strict=True):
            inside[kernel.name].set_value(value)
        return call(copy, arrays)

    shapes = [jax.ShapeDtypeStruct(k.shape, variables[k.name].dtype) for k in kernels]
    use = other_use(jax.make_jaxpr(run)(shapes, arrays), kernels)
    if use is not None:
        parameter, what = use
        raise InputError(
            f"model: {places[parameter][0]!r} is not a layer y = W x on `example`: of its parameter {parameter!r} of "
            f"shape {variables[parameter].shape}, {what}"
        )


def split_inputs(example: Any) -> tuple[list[Any], Callable[[Callable, list[Any]], Any]]:
    """Return the arrays or shapes in a model's inputs, and the function (model, arrays) ↦ model(*inputs).

    What is neither (a flag, a name) stays as it is.
    """
    leaves, structure = jax.tree.flatten(example)
    where = [i for i, x in enumerate(leaves) if hasattr(x, "shape") and hasattr(x, "dtype")]

    def call(model: Callable, arrays: list[Any]) -> Any:
        known = dict(zip(where, arrays, strict=True))
        inputs = jax.tree.unflatten(structure, [known.get(i, x) for i, x in enumerate(leaves)])
        if isinstance(inputs, dict):
            return model(**inputs)
        return model(*inputs) if isinstance(inputs, tuple) else model(inputs)

    return [leaves[i] for i in where], call


def alone(module: nnx.Module, stacked: tuple[int, ...]) -> Any:
    """Return a copy of a module, the first of a stack of these leading axes; values under a trace are zeros."""
    graphdef, state = nnx.split(module)

    def first(x: Any) -> Any:
        if isinstance(x, Tracer):
            x = np.zeros(x.shape, x.dtype)
        return x[(0,) * len(stacked)] if x.shape[: len(stacked)] == stacked else x

    with jax.ensure_compile_time_eval():
        return nnx.merge(graphdef, jax.tree.map(first, state), copy=True)


def stacked_by(modules: Mapping[str, Any], layer: Layer) -> tuple[int, ...]:
    """Return the sizes of the stack that a layer is in."""
    return owner(modules, layer.parameter).kernel.shape[: len(layer.index)]


def _kernel_setter(kernel: nnx.Variable, layout: Layout) -> Setter:
    """The function that writes W + BA, W of rank 1 and of ±1 too."""
    draw = np.random.default_rng(1)
    W = np.outer(*(_signs(draw, n) for n in layout.matrix_shape))

    def put(a: np.ndarray, b: np.ndarray) -> None:
        kernel.set_value(jnp.asarray(layout.kernel(W + np.outer(b, a)), kernel.dtype))

    return put


def _one_of_each_stack(layers: Mapping[str, Layer]) -> dict[str, Layer]:
    """The first layer of every parameter."""
    first = {layer.parameter: name for name, layer in reversed([*layers.items()])}
    return {name: layers[name] for name in reversed(first.values())}


def _input(draw: Draw, layout: Layout, equation: str, a: Float[np.ndarray, "d_in"]) -> Float[np.ndarray, "..."]:
    """Features x = ±3a ± 2, of either sign among the samples, so that |⟨a, x⟩| is d_in at least."""
    x, kernel = equation.partition("->")[0].split(",")
    inputs = "".join(kernel[i] for i in layout.inputs)
    free = "".join(letter for letter in x if letter not in inputs)
    alternating = 1.0 - 2 * (np.indices((2,) * len(free)).sum(0) % 2)
    along = np.einsum(f"{free},{inputs}->{x}", alternating, a.reshape([layout.shape[i] for i in layout.inputs]))
    return 3 * along + 2 * _signs(draw, along.shape)


def _signs(draw: Draw, shape: int | tuple[int, ...]) -> Float[np.ndarray, "..."]:
    return 2.0 * draw.integers(0, 2, shape) - 1


def _unused(equation: str) -> str:
    return next(letter for letter in ascii_letters if letter not in equation)
