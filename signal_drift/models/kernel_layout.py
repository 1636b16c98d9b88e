"""Says which matrix W of shape (d_out, d_in) a kernel is: which of its axes are outputs and which are inputs.

It is read from the einsum that multiplies features x with the kernel: letters that the kernel shares with the result
are outputs, those that it shares with x are inputs. A kernel with more axes than that is a stack of layers, as
nnx.vmap and nnx.scan make one, with the additional axes first.
"""

from math import prod
from string import ascii_letters
from typing import Any, NamedTuple

import numpy as np
from flax import nnx
from jaxtyping import Array, Float


class Layout(NamedTuple):
    """Holds a kernel's shape, its output and input axes in the kernel's own order, and the einsum x,kernel->y."""

    shape: tuple[int, ...]
    outputs: tuple[int, ...]
    inputs: tuple[int, ...]
    equation: str

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """Return (d_out, d_in)."""
        return prod(self.shape[i] for i in self.outputs), prod(self.shape[i] for i in self.inputs)

    def matrix(self, kernel: Array) -> Float[Array, "d_out d_in"]:
        """Return W, with which the layer computes y = W x of its flattened features x and y."""
        return kernel.transpose(*self.outputs, *self.inputs).reshape(self.matrix_shape)

    def kernel(self, W: Any) -> Any:
        """Return the kernel whose matrix is W, of shape (d_out, d_in), an array of JAX or of NumPy."""
        order = (*self.outputs, *self.inputs)
        return W.reshape([self.shape[i] for i in order]).transpose(np.argsort(order))


def has_kernel(module: object) -> bool:
    """Say whether a module holds an nnx.Variable under the name "kernel"."""
    return isinstance(getattr(module, "kernel", None), nnx.Variable)


def layout(module: nnx.Module) -> Layout | str:
    """Return the layout of one layer of a module's kernel, or in words why it is not the matrix of a linear layer."""
    if isinstance(module, nnx.Linear):
        return einsum_layout("...a,ab->...b", (module.in_features, module.out_features))
    if isinstance(module, nnx.LinearGeneral):
        if module.batch_axis:
            return "its kernel is one matrix for every index of batch_axis"
        return einsum_layout(_general_equation(module), (*module.in_features, *module.out_features))
    if isinstance(module, nnx.Einsum):
        return einsum_layout(module.einsum_str, tuple(module.kernel_shape))
    return "only the kernels of nnx.Linear, nnx.LinearGeneral and nnx.Einsum are"


def einsum_layout(equation: str, shape: tuple[int, ...]) -> Layout | str:
    """Return the layout of a kernel of the given shape in the einsum x,kernel->y, or in words why it is no matrix."""
    operands, arrow, result = equation.replace(" ", "").partition("->")
    x, comma, kernel = operands.partition(",")
    if not (arrow and comma) or set("".join((x, kernel, result)).replace("...", "")) - set(ascii_letters):
        return f"{equation!r} is no einsum of two operands such as 'btd,dnh->btnh'"
    if "." in kernel or len(set(kernel)) < len(kernel):
        return f"its kernel repeats or leaves out letters in {equation!r}"
    if len(kernel) != len(shape):
        return f"its kernel has {len(shape)} axes, not the {len(kernel)} of {equation!r}"
    for letter in kernel:
        if (letter in x) == (letter in result):
            place = "the input and the result" if letter in x else "neither the input nor the result"
            return f"its kernel has {letter!r} of {equation!r} in common with {place}"
    inputs, outputs = (tuple(i for i, a in enumerate(kernel) if a in side) for side in (x, result))
    return Layout(shape, outputs, inputs, f"{x},{kernel}->{result}")


def stack(one: Layout, shape: tuple[int, ...]) -> tuple[int, ...] | str:
    """Return the leading axes that stack kernels of layers, () for a single one, or why a kernel is no such stack."""
    extra = len(shape) - len(one.shape)
    if extra < 0 or shape[extra:] != one.shape:
        return f"its kernel has the shape {shape} in place of {one.shape} or layers of it stacked along leading axes"
    return shape[:extra]


def _general_equation(module: nnx.LinearGeneral) -> str:
    """The einsum of a LinearGeneral on an input with no more axes than it needs, and one."""
    ndim = 1 + max(a + 1 if a >= 0 else -a for a in module.axis)
    contracted = sorted(a % ndim for a in module.axis)
    x, outputs = ascii_letters[:ndim], ascii_letters[ndim : ndim + len(module.out_features)]
    kernel = "".join(x[a] for a in contracted) + outputs
    return f"{x},{kernel}->{''.join(a for i, a in enumerate(x) if i not in contracted)}{outputs}"
