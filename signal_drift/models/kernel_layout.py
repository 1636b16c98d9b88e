"""Says which matrix W of shape (d_out, d_in) a flax kernel is: which of its axes are outputs and which are inputs."""

from math import prod
from typing import NamedTuple

import numpy as np
from flax import nnx
from jaxtyping import Array, Float


class Layout(NamedTuple):
    """Holds a kernel's shape and its output and input axes, each in the kernel's own order."""

    shape: tuple[int, ...]
    outputs: tuple[int, ...]
    inputs: tuple[int, ...]

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """Return (d_out, d_in)."""
        return prod(self.shape[i] for i in self.outputs), prod(self.shape[i] for i in self.inputs)

    def matrix(self, kernel: Array) -> Float[Array, "d_out d_in"]:
        """Return W, with which the layer computes y = W x of its flattened features x and y."""
        return kernel.transpose(*self.outputs, *self.inputs).reshape(self.matrix_shape)

    def kernel(self, W: Float[Array, "d_out d_in"]) -> Array:
        """Return the kernel whose matrix is W."""
        order = (*self.outputs, *self.inputs)
        return W.reshape([self.shape[i] for i in order]).transpose(np.argsort(order))


def has_kernel(module: object) -> bool:
    """Say whether a module holds an nnx.Variable under the name "kernel"."""
    return isinstance(getattr(module, "kernel", None), nnx.Variable)


def layout(module: nnx.Module) -> Layout | str:
    """Return the layout of a module's kernel, or in words why it is not the matrix of one linear layer."""
    if isinstance(module, nnx.Linear):
        wanted, axes = (module.in_features, module.out_features), 1
    elif isinstance(module, nnx.LinearGeneral):
        if module.batch_axis:
            return "its kernel is one matrix for every index of batch_axis"
        wanted, axes = (*module.in_features, *module.out_features), len(module.in_features)
    elif isinstance(module, nnx.Einsum):
        return _einsum_layout(module)
    else:
        return "only the kernels of nnx.Linear, nnx.LinearGeneral and nnx.Einsum are"
    return _of_shape(module, Layout(wanted, tuple(range(axes, len(wanted))), tuple(range(axes))))


def _einsum_layout(module: nnx.Einsum) -> Layout | str:
    """Kernel letters of the result and not of the input are outputs, those of the input and not the result inputs."""
    operands, result = module.einsum_str.split("->")
    x, kernel = operands.split(",")
    if "." in kernel or len(set(kernel)) < len(kernel):
        return f"its kernel repeats or leaves out letters in {module.einsum_str!r}"
    for letter in kernel:
        if (letter in x) == (letter in result):
            place = "the input and the result" if letter in x else "neither the input nor the result"
            return f"its kernel has {letter!r} of {module.einsum_str!r} in common with {place}"
    inputs, outputs = (tuple(i for i, a in enumerate(kernel) if a in side) for side in (x, result))
    return _of_shape(module, Layout(tuple(module.kernel_shape), outputs, inputs))


def _of_shape(module: nnx.Linear | nnx.LinearGeneral | nnx.Einsum, wanted: Layout) -> Layout | str:
    """Transforms such as nnx.vmap stack the kernels of many layers into one."""
    shape = module.kernel.shape
    return wanted if shape == wanted.shape else f"its kernel has the shape {shape} in place of {wanted.shape}"
