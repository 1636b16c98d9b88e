"""Takes any flax.nnx model apart into base weights and a forward function, and its nnx.LoRA modules into adapters.

A layer is a module with a kernel that is the matrix of one linear map: nnx.Linear, nnx.LinearGeneral (hence the
projections of nnx.MultiHeadAttention) and nnx.Einsum. It goes by its path in the model ("blocks.0.attention.query").
A module in two places is one layer, under the first of its paths. Everything else is frozen at its values: biases,
norms, embeddings. The model runs as `model.eval()` has it, on a copy: no dropout, BatchNorm by its running averages.
In float64 the softmax of nnx.MultiHeadAttention is float64 as well; flax's own is float32 (see `exact_attention`).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.tree_util import Partial, register_dataclass
from jaxtyping import Array

from signal_drift.display import LAYER, Table, displayed_as, layer_rows
from signal_drift.errors import InputError
from signal_drift.lora.adapters import Adapter, Weights
from signal_drift.models.attention import exact_attention
from signal_drift.models.kernel_layout import Layout, has_kernel, layout

Selection = str | Callable[[str, nnx.Module], bool] | None


@register_dataclass
@dataclass(frozen=True, eq=False, repr=False)
class Forward:
    """Maps (weights, *inputs) to the model's output with `weights` in the kernels of `layers`; all else is frozen."""

    graphdef: nnx.GraphDef = field(metadata={"static": True})
    layers: tuple[tuple[str, Layout], ...] = field(metadata={"static": True})
    state: nnx.State

    def __call__(self, weights: Weights, *inputs: Array) -> Array:
        model = nnx.merge(self.graphdef, self.state, copy=True)
        modules, layouts = _modules(model), dict(self.layers)
        for name, W in weights.items():
            if name not in layouts:
                raise InputError(f"weights: unknown layer {name!r}; the layers are {sorted(layouts)}")
            if W.shape != layouts[name].matrix_shape:
                wanted = layouts[name].matrix_shape
                raise InputError(f"weights[{name!r}]: must be (d_out, d_in) = {wanted}, got {W.shape}")
            modules[name].kernel[...] = layouts[name].kernel(W)
        return model(*inputs)


def predictor(forward: Forward, *inputs: Array) -> Partial:
    """Make the map weights ↦ forward(weights, *inputs), with the inputs as data."""
    return Partial(_predict, forward, inputs)


def _predict(forward: Forward, inputs: tuple[Array, ...], weights: Weights) -> Array:
    return forward(weights, *inputs)


def base_and_forward(model: nnx.Module, layers: Selection = None) -> tuple[dict[str, Array], Forward]:
    """Take a model apart into (base, forward) such that forward(base, *inputs) = model.eval()(*inputs).

    `base` holds W₀ of shape (d_out, d_in) of every layer, or of those that `layers` selects: a pattern for paths in
    which * stands for anything ("*.attention.*"), or a function of (path, module). Raises `InputError` for a
    selection without layers, for one that includes a kernel which is no matrix, and for a kernel used elsewhere too.
    """
    if not isinstance(model, nnx.Module):
        raise InputError(f"model: must be a flax.nnx module, got {type(model).__name__}")
    frozen = nnx.clone(model)
    frozen.eval()
    modules = _modules(frozen)
    for module in modules.values():
        if _rounds_to_float32(module):
            module.attention_fn = exact_attention
    layouts = _selected(modules, layers)
    _check_unshared(frozen, modules, layouts)
    base = {name: found.matrix(modules[name].kernel[...]) for name, found in layouts.items()}
    graphdef, state = nnx.split(frozen)
    return base, Forward(graphdef, tuple(layouts.items()), state)


class LoRAModel(NamedTuple):
    """Holds a model taken apart at its nnx.LoRA modules: forward(W₀ + s·BA, *inputs) = model.eval()(*inputs)."""

    base: dict[str, Array]
    adapters: dict[str, Adapter]
    scaling: float
    forward: Forward


def lora_and_forward(model: nnx.Module) -> LoRAModel:
    """Take a model apart at its nnx.LoRA and nnx.LoRALinear modules, as trained: (base, adapters, scaling, forward).

    Flax computes x·lora_a·lora_b and has no α: A = lora_aᵀ, B = lora_bᵀ, s = 1. A layer goes by the path of the
    kernel that the adapter is added to; an nnx.LoRA without a base module has W₀ = 0. Raises `InputError` for a
    model without nnx.LoRA and for one around anything but a layer of its own shape.
    """
    bare = nnx.clone(model)
    modules, loras = _modules(bare), {}
    for path, module in modules.items():
        if isinstance(module, nnx.LoRALinear):
            loras[path] = module.lora
    within = {id(lora) for lora in loras.values()}
    for path, module in modules.items():
        if isinstance(module, nnx.LoRA) and id(module) not in within:
            _check_base(path, module)
            loras[f"{path}.base_module".lstrip(".")] = module
    if not loras:
        raise InputError(f"model: has no nnx.LoRA, got {type(model).__name__}")
    adapters = {name: Adapter(A=lora.lora_a[...].T, B=lora.lora_b[...].T) for name, lora in loras.items()}
    for lora in loras.values():
        _silence(lora)
    base, forward = base_and_forward(bare, lambda path, _: path in loras)
    like_base = {k: jax.tree.map(lambda x, W0=W0: x.astype(W0.dtype), adapters[k]) for k, W0 in base.items()}
    return LoRAModel(base, like_base, 1.0, forward)


def _check_base(path: str, lora: nnx.LoRA) -> None:
    around, shape = lora.base_module, (lora.out_features, lora.in_features)
    if around is None:
        return
    found = layout(around) if has_kernel(around) and not isinstance(around, nnx.LoRALinear) else "it is not one layer"
    if isinstance(found, str) or found.matrix_shape != shape or len(found.shape) != 2:
        why = found if isinstance(found, str) else f"its kernel has the shape {found.shape}"
        what = f"an nnx.LoRA of shape {shape} around {type(around).__name__}"
        raise InputError(f"model: {path!r} is {what}, which is no such matrix: {why}")


def _silence(lora: nnx.LoRA) -> None:
    """Rank 0, which adds exact zeros; and a zero kernel to take W where there is none."""
    if lora.base_module is None:
        zeros = nnx.initializers.zeros_init()
        options: Any = {"use_bias": False, "kernel_init": zeros, "param_dtype": lora.lora_a[...].dtype}
        lora.base_module = nnx.data(nnx.Linear(lora.in_features, lora.out_features, rngs=nnx.Rngs(0), **options))
    lora.lora_a.set_value(lora.lora_a[...][:, :0])
    lora.lora_b.set_value(lora.lora_b[...][:0])


def _rounds_to_float32(module: nnx.Module) -> bool:
    if not isinstance(module, nnx.MultiHeadAttention) or module.attention_fn is not nnx.dot_product_attention:
        return False
    return module.query.kernel.dtype == jnp.float64


def _modules(model: nnx.Module) -> dict[str, Any]:
    return {".".join(map(str, path)): module for path, module in nnx.iter_modules(model)}


def _selected(modules: dict[str, Any], layers: Selection) -> dict[str, Layout]:
    """The layouts of the selected layers; by default of every kernel that has one."""
    found = {name: layout(module) for name, module in modules.items() if has_kernel(module)}
    known = sorted(name for name, place in found.items() if isinstance(place, Layout))
    if layers is None:
        chosen = {name: found[name] for name in known}
    elif isinstance(layers, str):
        chosen = {name: place for name, place in found.items() if fnmatchcase(name, layers)}
    else:
        chosen = {name: place for name, place in found.items() if layers(name, modules[name])}
    refused = {name: place for name, place in (chosen or found).items() if isinstance(place, str)}
    reasons = "".join(f"; {name!r} ({type(modules[name]).__name__}): {why}" for name, why in refused.items())
    if layers is None and not known:
        raise InputError(f"model: has no kernel that is a matrix, got {type(modules['']).__name__}{reasons}")
    if not chosen:
        raise InputError(f"layers: {layers!r} selects none of {known}{reasons}")
    if refused:
        raise InputError(f"layers: {layers!r} selects a kernel that is not a matrix{reasons}")
    return {name: place for name, place in chosen.items() if isinstance(place, Layout)}


def _check_unshared(model: nnx.Module, modules: dict[str, Any], layouts: dict[str, Layout]) -> None:
    """No other module holds the same nnx.Variable: an adapter would move it as well."""
    owners: dict[int, list[str]] = {}
    for path, node in nnx.iter_graph(model):
        for value in getattr(node, "__dict__", {}).values():
            if isinstance(value, nnx.Variable):
                owners.setdefault(id(value), []).append(".".join(map(str, path)))
    for name in layouts:
        where = owners[id(modules[name].kernel)]
        if len(where) > 1:
            raise InputError(f"model: one kernel is used in {where}; share the module, not its kernel")


def _forward_table(x: Forward) -> Table:
    return Table(f"Forward(weights, *inputs), weights of {', '.join(name for name, _ in x.layers)}")


displayed_as(_forward_table)(Forward)


def _model_table(x: LoRAModel) -> Table:
    scaling = dict.fromkeys(x.base, x.scaling)
    return Table(f"LoRAModel of {len(x.base)} layers", LAYER, layer_rows(x.base, x.adapters, scaling))


displayed_as(_model_table)(LoRAModel)
