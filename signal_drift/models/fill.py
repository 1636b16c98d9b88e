"""Puts weights read from a file into a flax.nnx model, each in its place and of its shape."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx

from signal_drift.errors import InputError
from signal_drift.models.kernel_layout import Layout, layout


class Place(NamedTuple):
    """Holds a variable of a model, the shape that its values have in a file, and the map to those of the variable."""

    variable: Any
    shape: tuple[int, ...]
    arrange: Callable[[np.ndarray], np.ndarray]


class Source(NamedTuple):
    """Holds what a file is called, the shapes of its tensors, and the function that reads one."""

    label: str
    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], np.ndarray]


def places(name: str, module: Any) -> dict[str, Place]:
    """Return the places of a linear layer, a norm or an embedding: `name`.weight, and `name`.bias where there is one.

    The weight of a linear layer is W of y = W x in a file, the transpose of flax's kernel.
    """
    if isinstance(module, nnx.Embed):
        return {f"{name}.weight": _as_it_is(module.embedding)}
    if isinstance(module, nnx.LayerNorm | nnx.RMSNorm):
        found = {f"{name}.weight": _as_it_is(module.scale)}
    else:
        kernel = layout(module)
        assert isinstance(kernel, Layout)
        found = {f"{name}.weight": Place(module.kernel, kernel.matrix_shape, kernel.kernel)}
    bias = getattr(module, "bias", None)
    if bias is not None:
        found[f"{name}.bias"] = Place(bias, (bias.size,), lambda x: x.reshape(bias.shape))
    return found


def fill(wanted: Mapping[str, Place], source: Source) -> None:
    """Set every variable, in its own dtype; raise `InputError` for a tensor that is missing or of another shape."""
    for name, place in wanted.items():
        if name not in source.shapes:
            raise InputError(f"{source.label}: has no {name!r}")
        if source.shapes[name] != place.shape:
            raise InputError(
                f"{source.label}: {name!r} has the shape {source.shapes[name]}, which is not the {place.shape} of the "
                "configuration"
            )
        place.variable.set_value(jnp.asarray(place.arrange(source.read(name)), place.variable.dtype))


def _as_it_is(variable: Any) -> Place:
    return Place(variable, variable.shape, lambda x: x)
