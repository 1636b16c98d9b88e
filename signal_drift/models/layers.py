"""Finds the layers of a model: parameters that are the matrix of a linear map, or a stack of such matrices.

A layer goes by the path of its module ("blocks.0.attention.query"), or by that of its parameter where the user says
what einsum it is in. One of a stack has its index at the end: "blocks.expand.0", "blocks.expand.1", …
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from signal_drift.errors import InputError
from signal_drift.models.kernel_layout import Layout, einsum_layout, has_kernel, layout, stack

Selection = str | Callable[[str, nnx.Module], bool] | None


@dataclass(frozen=True)
class Layer:
    """Holds the path of a parameter, the index of the layer in its stack (() for a single one) and its layout."""

    parameter: str
    index: tuple[int, ...]
    layout: Layout

    def matrix(self, variables: Mapping[str, Any]) -> Float[Array, "d_out d_in"]:
        """Return W of this layer, from the variables of a model by path."""
        return self.layout.matrix(variables[self.parameter][(*self.index, ...)])

    def put(self, variables: Mapping[str, Any], W: Float[Array, "d_out d_in"]) -> None:
        """Write W in its place."""
        variables[self.parameter][(*self.index, ...)] = self.layout.kernel(W)


class NoMatrix(NamedTuple):
    """Holds the path of a parameter that cannot be adapted, and why."""

    parameter: str
    reason: str


class PassedOver(NamedTuple):
    """Holds the path of a parameter that may be a matrix but is not known to be one, its shape, and its module."""

    parameter: str
    shape: tuple[int, ...]
    kind: str


Found = dict[str, Layer | NoMatrix]


def variables_of(model: nnx.Module) -> dict[str, Any]:
    """Return every nnx.Variable of a model under the first of its paths."""
    return {_dotted(path): x for path, x in nnx.iter_graph(model) if isinstance(x, nnx.Variable)}


def modules_of(model: nnx.Module) -> dict[str, Any]:
    """Return every module of a model under the first of its paths, the model itself under ""."""
    return {_dotted(path): module for path, module in nnx.iter_modules(model)}


def owner(modules: Mapping[str, Any], parameter: str) -> Any:
    """Return the innermost module that holds a parameter."""
    path = parameter.rpartition(".")[0]
    return modules[path] if path in modules else owner(modules, path)


def find_layers(model: nnx.Module, equations: Mapping[str, str]) -> Found:
    """Find every layer by its name, and every kernel that is no matrix with the reason.

    `equations` says of parameters, by patterns for their paths, which einsum x,kernel->y they are in.
    """
    variables, found = variables_of(model), {}
    declared = _declared(variables, equations)
    for path, module in modules_of(model).items():
        parameter = f"{path}.kernel".lstrip(".")
        if has_kernel(module) and parameter in variables and parameter not in declared:
            found |= _stacked(path, parameter, layout(module), variables[parameter].shape)
    for parameter, equation in declared.items():
        shape = variables[parameter].shape
        axes = len(equation.replace(" ", "").partition("->")[0].partition(",")[2])
        place = einsum_layout(equation, shape[max(len(shape) - axes, 0) :])
        if isinstance(place, str):
            raise InputError(f"equations: {parameter!r} of shape {shape}: {place}")
        found |= _stacked(parameter, parameter, place, shape)
    return found


def select(model: nnx.Module, found: Found, layers: Selection) -> dict[str, Layer]:
    """Return the layers that `layers` selects, all by default; raise `InputError` for none and for one that is none."""
    modules = modules_of(model)
    known = sorted(name for name, place in found.items() if isinstance(place, Layer))
    if layers is None:
        chosen = {name: found[name] for name in known}
    elif isinstance(layers, str):
        chosen = {name: place for name, place in found.items() if fnmatchcase(name, layers)}
    else:
        chosen = {name: place for name, place in found.items() if layers(name, owner(modules, place.parameter))}
    refused = {name: place for name, place in (chosen or found).items() if isinstance(place, NoMatrix)}
    reasons = "".join(
        f"; {name!r} ({type(owner(modules, place.parameter)).__name__}): {place.reason}"
        for name, place in refused.items()
    )
    if layers is None and not known:
        rest = [parameter for parameter, *_ in passed_over(model, found)]
        state = f"; state the einsum of any of {rest} in `equations`" if rest else ""
        raise InputError(f"model: has no kernel that is a matrix, got {type(model).__name__}{reasons}{state}")
    if not chosen:
        raise InputError(f"layers: {layers!r} selects none of {known}{reasons}")
    if refused:
        raise InputError(f"layers: {layers!r} selects a kernel that is not a matrix{reasons}")
    return {name: place for name, place in chosen.items() if isinstance(place, Layer)}


def passed_over(model: nnx.Module, found: Found) -> tuple[PassedOver, ...]:
    """Return the parameters with two axes or more of which nothing is known, so that no selection includes them."""
    modules, known = modules_of(model), {place.parameter for place in found.values() if isinstance(place, Layer)}
    inside = {parameter.rpartition(".")[0] for parameter in known}
    return tuple(
        PassedOver(path, x.shape, type(owner(modules, path)).__name__)
        for path, x in variables_of(model).items()
        if isinstance(x, nnx.Param) and 0 not in x.shape and path not in known
        if len(x.shape) > 1 and jnp.issubdtype(x.dtype, jnp.floating)
        if path.rpartition(".")[2] not in ("bias", "scale") or path.rpartition(".")[0] not in inside | norms(modules)
    )


def norms(modules: Mapping[str, Any]) -> set[str]:
    """Return the paths of the norms, whose scales are vectors even where a stack of them has two axes."""
    kinds = (nnx.LayerNorm, nnx.RMSNorm, nnx.BatchNorm, nnx.GroupNorm)
    return {path for path, module in modules.items() if isinstance(module, kinds)}


def check_unshared(model: nnx.Module, layers: Mapping[str, Layer]) -> None:
    """Raise `InputError` where a parameter of a layer is in another module too: an adapter would move it there."""
    parameters = {layer.parameter for layer in layers.values()}
    for group in duplicates(model):
        if parameters & set(group):
            where = [path.rpartition(".")[0] for path in group]
            raise InputError(f"model: one kernel is used in {where}; share the module, not its kernel")


def duplicates(model: nnx.Module) -> list[list[str]]:
    """Return the paths of every module and variable that is in more than one place."""
    return [[_dotted(path) for path in group] for group in nnx.find_duplicates(model)]


def indexed(name: str, sizes: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Return the names of the layers in a stack of these sizes, each with its index; one for a layer by itself."""
    return {".".join(filter(None, (name, *map(str, i)))): i for i in np.ndindex(*sizes)}


def _declared(variables: Mapping[str, Any], equations: Mapping[str, str]) -> dict[str, str]:
    """The equation of every parameter that a pattern matches."""
    declared = {}
    for pattern, equation in equations.items():
        matching = [path for path in variables if fnmatchcase(path, pattern)]
        if not matching:
            raise InputError(f"equations: {pattern!r} matches none of the parameters {sorted(variables)}")
        declared |= dict.fromkeys(matching, equation)
    return declared


def _stacked(name: str, parameter: str, one: Layout | str, shape: tuple[int, ...]) -> Found:
    """The layers of a parameter, each under its name."""
    sizes = one if isinstance(one, str) else stack(one, shape)
    if isinstance(one, str) or isinstance(sizes, str):
        return {name: NoMatrix(parameter, str(sizes))}
    return {each: Layer(parameter, i, one) for each, i in indexed(name, sizes).items()}


def _dotted(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path))
