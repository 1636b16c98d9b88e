"""Takes a flax.nnx model apart at the nnx.LoRA and nnx.LoRALinear modules that were trained in it.

That x·lora_a·lora_b is all that such a module adds is checked of each by itself. The whole model at drawn lora_a and
lora_b is compared with forward(W₀ + s·BA) where an example of its inputs is given.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array

from signal_drift.display import LAYER, Table, displayed_as, layer_rows
from signal_drift.errors import InputError
from signal_drift.lora.adapters import Adapter
from signal_drift.models.bridge import Forward, base_and_forward, evaluated
from signal_drift.models.kernel_layout import Layout, einsum_layout, has_kernel, layout, stack
from signal_drift.models.layers import duplicates, indexed, modules_of, variables_of
from signal_drift.models.lora_comparison import check_equal
from signal_drift.models.promise import PLAIN, Claim, alone, check_adds

ADAPTED = Claim("y = W x + b + x·lora_a·lora_b", "flax has no α/r: take it into lora_b, s is 1 here")


class LoRAModel(NamedTuple):
    """Holds a model taken apart at its nnx.LoRA modules: forward(W₀ + s·BA, *inputs) = model.eval()(*inputs)."""

    base: dict[str, Array]
    adapters: dict[str, Adapter]
    scaling: float
    forward: Forward


def lora_and_forward(model: nnx.Module, *, example: Any = None) -> LoRAModel:
    """Take a model apart at its nnx.LoRA and nnx.LoRALinear modules, as trained: (base, adapters, scaling, forward).

    Flax computes x·lora_a·lora_b and has no α: A = lora_aᵀ, B = lora_bᵀ, s = 1. A layer goes by the path of the
    kernel that the adapter is added to; an nnx.LoRA without a base module has W₀ = 0. Kernel and adapter come in the
    wider of their two dtypes. `example` are the model's inputs, as for `base_and_forward`: with it the whole model is
    compared once at drawn lora_a and lora_b, which alone can see a kernel that is read past its adapter. Raises
    `InputError` for a model without nnx.LoRA, one around anything but a layer of its own shape, one that shares its
    base or its factors, one that does not add x·lora_a·lora_b, and adapters in modules of another kind.
    """
    if not isinstance(model, nnx.Module):
        raise InputError(f"model: must be a flax.nnx module, got {type(model).__name__}")
    whole = evaluated(model)
    bare = nnx.clone(whole)
    loras = adapted_modules(bare)
    _check_own(bare, loras)
    for name, lora in loras.items():
        _check_adds(name, lora, in_place=example is not None)
    names = {lora.path: indexed(path, _stacks(lora.module)) for path, lora in loras.items()}
    adapters = {name: pair for lora in loras.values() for name, pair in _adapters(names[lora.path], lora.module)}
    for lora in loras.values():
        _silence(lora)
    base, forward = base_and_forward(bare, lambda name, _: name in adapters, example=example)
    like_base = {k: jax.tree.map(lambda x, W0=W0: x.astype(W0.dtype), adapters[k]) for k, W0 in base.items()}
    if example is not None:
        check_equal(whole, names, base, like_base, forward, example)
    return LoRAModel(base, like_base, 1.0, forward)


class AdaptedModule(NamedTuple):
    """Holds the path of an nnx.LoRA, itself, and the module whose output has the adapter's added."""

    path: str
    module: Any
    around: Any


def adapted_modules(model: nnx.Module) -> dict[str, AdaptedModule]:
    """Every adapter under the path of the layer that it is added to."""
    modules = modules_of(model)
    found = {
        path: AdaptedModule(f"{path}.lora".lstrip("."), module.lora, module)
        for path, module in modules.items()
        if isinstance(module, nnx.LoRALinear)
    }
    within = {id(lora.module) for lora in found.values()}
    for path, module in modules.items():
        if isinstance(module, nnx.LoRA) and id(module) not in within:
            _check_base(path, module)
            found[f"{path}.base_module".lstrip(".")] = AdaptedModule(path, module, module)
    if not found:
        raise InputError(f"model: has no nnx.LoRA, got {type(model).__name__}")
    return found


def _check_base(path: str, lora: nnx.LoRA) -> None:
    around, shape = lora.base_module, (lora.out_features, lora.in_features)
    if around is None:
        return
    found = layout(around) if has_kernel(around) and not isinstance(around, nnx.LoRALinear) else "it is not one layer"
    if isinstance(found, Layout):
        stacks = stack(found, around.kernel.shape)  # pyright: ignore[reportAttributeAccessIssue]
        if found.matrix_shape != shape or len(found.shape) != 2 or stacks != _stacks(lora):
            found = f"its kernel has the shape {around.kernel.shape}"  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(found, str):
        stacked = f", {'×'.join(map(str, _stacks(lora)))} layers stacked," if _stacks(lora) else ""
        what = f"an nnx.LoRA of shape {shape}{stacked} around {type(around).__name__}"
        raise InputError(f"model: {path!r} is {what}, which is no such matrix: {found}")


def _check_own(model: nnx.Module, loras: Mapping[str, AdaptedModule]) -> None:
    """Raise `InputError` unless the base and the factors of every adapter are its own, and no adapter is left out."""
    factors = {f"{lora.path}.{x}".lstrip(".") for lora in loras.values() for x in ("lora_a", "lora_b")}
    bases = {name for name, lora in loras.items() if lora.around is lora.module}
    for group in duplicates(model):
        own = (factors | bases) & set(group) or {lora.path for k, lora in loras.items() if k not in bases} & set(group)
        if own:
            raise InputError(
                f"model: {min(own)!r} belongs to one adapter and is used in {group}; then forward(W₀ + s·BA) is no "
                "function of the adapters one by one; give each use a copy"
            )
    for path, x in variables_of(model).items():
        if isinstance(x, nnx.LoRAParam) and path not in factors:
            raise InputError(f"model: {path!r} is an nnx.LoRAParam outside nnx.LoRA and nnx.LoRALinear")


def _check_adds(name: str, lora: AdaptedModule, *, in_place: bool) -> None:
    """Raise `InputError` unless the module that has an adapter adds x·lora_a·lora_b, as flax's own does."""
    module = alone(lora.around, _stacks(lora.module))
    inside = module.lora if isinstance(module, nnx.LoRALinear) else module
    one = einsum_layout(PLAIN, (lora.module.in_features, lora.module.out_features))
    assert isinstance(one, Layout)

    def put(a: np.ndarray, b: np.ndarray) -> None:
        """A and B in the first of the rank's directions, 0 in the others."""
        for factor, value, axis in ((inside.lora_a, a, 1), (inside.lora_b, b, 0)):
            first = np.moveaxis(np.zeros(factor.shape), axis, 0)
            first[0] = value
            factor.set_value(jnp.asarray(np.moveaxis(first, 0, axis), factor.dtype))

    check_adds(ADAPTED, name, module, one, inside.lora_a.dtype, put, in_place=in_place)


def _stacks(lora: nnx.LoRA) -> tuple[int, ...]:
    return lora.lora_a.shape[:-2]


def _adapters(names: Mapping[str, tuple[int, ...]], lora: nnx.LoRA) -> list[tuple[str, Adapter]]:
    """The adapters of one module, one for every layer of a stack."""
    A, B = (jnp.swapaxes(factor[...], -1, -2) for factor in (lora.lora_a, lora.lora_b))
    return [(name, Adapter(A[i], B[i])) for name, i in names.items()]


def _silence(lora: AdaptedModule) -> None:
    """Rank 0, which adds exact zeros; a zero kernel to take W where there is none, in the wider of the dtypes."""
    module, dtype = lora.module, lora.module.lora_a.dtype
    if module.base_module is None and lora.around is module:
        options: Any = {"use_bias": False, "param_dtype": dtype, "kernel_init": nnx.initializers.zeros_init()}
        linear = nnx.Linear(module.in_features, module.out_features, rngs=nnx.Rngs(0), **options)
        linear.kernel.set_value(jnp.zeros((*_stacks(module), *linear.kernel.shape), dtype))
        module.base_module = nnx.data(linear)
    holder: Any = module.base_module if lora.around is module else lora.around
    holder.kernel.set_value(holder.kernel[...].astype(jnp.promote_types(holder.kernel.dtype, dtype)))
    module.lora_a.set_value(module.lora_a[..., :0])
    module.lora_b.set_value(module.lora_b[..., :0, :])


def _model_table(x: LoRAModel) -> Table:
    scaling = dict.fromkeys(x.base, x.scaling)
    return Table(f"LoRAModel of {len(x.base)} layers", LAYER, layer_rows(x.base, x.adapters, scaling))


displayed_as(_model_table)(LoRAModel)
