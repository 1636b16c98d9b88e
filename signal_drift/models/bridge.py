"""Takes a flax.nnx model apart into base weights and a forward function.

A layer is a parameter that is the matrix of one linear map: the kernel of nnx.Linear, nnx.LinearGeneral (hence the
projections of nnx.MultiHeadAttention) or nnx.Einsum, and any other parameter of which `equations` states the einsum;
one layer for every index of leading axes where nnx.vmap or nnx.scan stacks them. It goes by its path in the model
("blocks.0.attention.query"). A module in two places is one layer, under the first of its paths. Everything else is
frozen at its values: biases, norms, embeddings. The model runs as `model.eval()` has it, on a copy: no dropout,
BatchNorm by its running averages. In float64 the softmax of nnx.MultiHeadAttention is float64 as well; flax's own is
float32 (see `exact_attention`). That each layer is y = W x is checked (see `promise`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.tree_util import Partial, register_dataclass
from jaxtyping import Array

from signal_drift.display import Table, displayed_as
from signal_drift.errors import InputError
from signal_drift.lora.adapters import Weights
from signal_drift.models.attention import exact_attention
from signal_drift.models.layers import (
    Layer,
    PassedOver,
    Selection,
    check_unshared,
    find_layers,
    modules_of,
    passed_over,
    select,
    variables_of,
)
from signal_drift.models.promise import check_alone, check_in_place


@register_dataclass
@dataclass(frozen=True, eq=False, repr=False)
class Forward:
    """Maps (weights, *inputs) to the model's output with `weights` in the place of `layers`; all else is frozen.

    Keyword arguments go to the model as well. `passed_over` are the parameters of two axes or more of which it is not
    known that they are matrices: `equations` of `base_and_forward` can say so.
    """

    graphdef: nnx.GraphDef = field(metadata={"static": True})
    layers: tuple[tuple[str, Layer], ...] = field(metadata={"static": True})
    passed_over: tuple[PassedOver, ...] = field(metadata={"static": True})
    state: nnx.State

    def __call__(self, weights: Weights, *inputs: Any, **options: Any) -> Any:
        model = nnx.merge(self.graphdef, self.state, copy=True)
        variables, layers = variables_of(model), dict(self.layers)
        for name, W in weights.items():
            if name not in layers:
                raise InputError(f"weights: unknown layer {name!r}; the layers are {sorted(layers)}")
            wanted = layers[name].layout.matrix_shape
            if W.shape != wanted:
                raise InputError(f"weights[{name!r}]: must be (d_out, d_in) = {wanted}, got {W.shape}")
            layers[name].put(variables, W)
        return model(*inputs, **options)


def predictor(forward: Forward, *inputs: Any, **options: Any) -> Partial:
    """Make the map weights ↦ forward(weights, *inputs, **options), with all arrays among them as data."""
    data = {name: x for name, x in options.items() if jax.tree.leaves(x) and all(map(_is_array, jax.tree.leaves(x)))}
    return Partial(
        _Prediction(tuple((name, x) for name, x in options.items() if name not in data)), forward, inputs, data
    )


@dataclass(frozen=True)
class _Prediction:
    """Holds the options that are no arrays, such as a flag, so that predictors with the same ones compile once."""

    flags: tuple[tuple[str, Any], ...]

    def __call__(self, forward: Forward, inputs: tuple[Any, ...], data: dict[str, Any], weights: Weights) -> Any:
        return forward(weights, *inputs, **data, **dict(self.flags))


def _is_array(x: Any) -> bool:
    return hasattr(x, "shape") and hasattr(x, "dtype")


def base_and_forward(
    model: nnx.Module,
    layers: Selection = None,
    *,
    equations: Mapping[str, str] | None = None,
    example: Any = None,
) -> tuple[dict[str, Array], Forward]:
    """Take a model apart into (base, forward) such that forward(base, *inputs) = model.eval()(*inputs).

    Args:
        model: any flax.nnx module.
        layers: what to adapt, by default every layer: a pattern for paths in which * stands for anything
            (`"*.attention.*"`), or a function of (path, module).
        equations: the einsum `x,kernel->y` of parameters that are matrices in modules of your own, by patterns for the
            parameters' paths: `{"*.q_einsum.w": "btd,ndh->btnh"}`. Such a layer goes by its parameter's path.
        example: the model's inputs, arrays or `jax.ShapeDtypeStruct`: one, a tuple, or a dict of keyword arguments.

    Returns:
        `base`, W₀ of shape (d_out, d_in) of every layer, and `forward`, whose `repr` lists what was passed over.

    The promise of LoRA, that s·BA added to W adds s·B(Ax) to the layer's output, is checked of every module by itself,
    and with `example` in the trace of the whole model: only there can a kernel that is used elsewhere too be seen.
    Raises `InputError` for a layer that fails, a selection without layers, one that includes a kernel which is no
    matrix, a kernel shared by two modules, and `equations` without `example`.

    """
    if not isinstance(model, nnx.Module):
        raise InputError(f"model: must be a flax.nnx module, got {type(model).__name__}")
    frozen = evaluated(model)
    found = find_layers(frozen, equations or {})
    chosen = select(frozen, found, layers)
    check_unshared(frozen, chosen)
    check_alone(modules_of(frozen), chosen, in_place=example is not None)
    if example is not None:
        check_in_place(frozen, chosen, example)
    variables = variables_of(frozen)
    base = {name: layer.matrix(variables) for name, layer in chosen.items()}
    graphdef, state = nnx.split(frozen)
    return base, Forward(graphdef, tuple(chosen.items()), passed_over(frozen, found), state)


def evaluated(model: nnx.Module) -> Any:
    """Return a copy of a model as `model.eval()` has it, with attention in the precision of its weights."""
    copy = nnx.clone(model)
    copy.eval()
    for module in modules_of(copy).values():
        if _rounds_to_float32(module):
            module.attention_fn = exact_attention
    return copy


def _rounds_to_float32(module: nnx.Module) -> bool:
    if not isinstance(module, nnx.MultiHeadAttention) or module.attention_fn is not nnx.dot_product_attention:
        return False
    return module.query.kernel.dtype == jnp.float64


def _forward_table(x: Forward) -> Table:
    header = ("passed over, unless `equations` states its einsum", "shape", "of")
    rows = [(p.parameter, "×".join(map(str, p.shape)), p.kind) for p in x.passed_over]
    return Table(f"Forward(weights, *inputs), weights of {', '.join(name for name, _ in x.layers)}", header, rows)


displayed_as(_forward_table)(Forward)
