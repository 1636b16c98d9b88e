"""Shows the Dense layers of a Keras model on which LoRA is enabled: s = lora_alpha/lora_rank."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from signal_drift.conformance.framework import Factors, Framework, Inputs, Layer, SigmaA, Theta, said_sigma
from signal_drift.errors import InputError
from signal_drift.peft.export import he_sigma


def of_keras(model: Any, *, trained: bool = False, sigma_a: SigmaA | None = None) -> Framework:
    """Show a Keras model, or a layer, from the outside: every Dense with LoRA, called alone, without its activation.

    A = lora_kernel_aᵀ, by Keras' own he_uniform, and B = lora_kernel_bᵀ. `sigma_a` is what is said of σ_A, a number or
    a function of d_in and r, where enable_lora was given another a_initializer. Raises `InputError` for a model without
    such a layer, and for LoRA on another layer, of whose kernel A and B are no factors as a matrix.
    """
    found = {x.path if hasattr(x, "path") else x.name: x for x in _adapted(model)}
    if not found:
        raise InputError(
            f"framework: has no layer with LoRA, got {type(model).__name__}; layer.enable_lora(rank) first"
        )
    for path, x in found.items():
        if len(x.lora_kernel_a.shape) != 2 or len(x.lora_kernel_b.shape) != 2 or not hasattr(x, "units"):
            raise InputError(f"framework: {path!r} is a {type(x).__name__}, and only LoRA of a Dense layer is known")
    state = {path: Factors(*(_array(w).T for w in (x.lora_kernel_a, x.lora_kernel_b))) for path, x in found.items()}

    def put(theta: Theta) -> None:
        for path, (A, B) in theta.items():
            found[path].lora_kernel_a.assign(A.T)
            found[path].lora_kernel_b.assign(B.T)

    def forward(theta: Theta, inputs: Inputs) -> Mapping[str, Any]:
        put(theta)
        outputs = {path: _alone(x, inputs[path]) for path, x in found.items()}
        put(state)
        return outputs

    layers = {path: _said(x, sigma_a) for path, x in found.items()}
    plain = not any(getattr(x, "quantization_mode", None) for x in found.values())
    base = {path: _array(x._kernel).T for path, x in found.items()} if plain else None
    return Framework("Keras", layers, state, forward, trained, base)


def _adapted(model: Any) -> Iterator[Any]:
    layers = model._flatten_layers() if hasattr(model, "_flatten_layers") else [model]
    return (x for x in layers if getattr(x, "lora_enabled", False) and hasattr(x, "lora_kernel_a"))


def _alone(layer: Any, x: np.ndarray) -> np.ndarray:
    """W x + b, before the activation."""
    activation, layer.activation = layer.activation, None
    try:
        return _array(layer.call(np.asarray(x, layer.compute_dtype)))
    finally:
        layer.activation = activation


def _said(x: Any, sigma_a: SigmaA | None) -> Layer:
    d_in, r = x.lora_kernel_a.shape
    return Layer(
        (x.lora_kernel_b.shape[1], d_in),
        r,
        float(x.lora_alpha),
        sigma_a=said_sigma(sigma_a, he_sigma, d_in, r),
        dtype=str(x.compute_dtype),
    )


def _array(x: Any) -> np.ndarray:
    """A variable or tensor of any backend."""
    return np.asarray(x.numpy() if hasattr(x, "numpy") else x, float)
