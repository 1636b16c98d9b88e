"""Shows the nnx.LoRA and nnx.LoRALinear modules of a flax model; flax has no α, so that s = 1 is what is said."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from signal_drift.conformance.framework import Factors, Framework, Inputs, Layer, SigmaA, Theta, said_sigma
from signal_drift.errors import InputError
from signal_drift.models.lora_modules import AdaptedModule, adapted_modules
from signal_drift.peft.export import he_sigma


def of_nnx(model: nnx.Module, *, trained: bool = False, sigma_a: SigmaA | None = None) -> Framework:
    """Show a flax model from the outside, on a copy: A = lora_aᵀ, B = lora_bᵀ, and A by flax's own he_uniform.

    `sigma_a` is what is said of σ_A, a number or a function of d_in and r, where A has another initialiser. The layers
    are called one by one, in the mode, train or eval, that the model is in. Raises `InputError` for a model
    without nnx.LoRA, and for stacks of layers.
    """
    modules = adapted_modules(nnx.clone(model))
    for name, module in modules.items():
        if module.module.lora_a.ndim != 2:
            raise InputError(f"framework: {name!r} is a stack of layers, which are not called one by one")

    def forward(theta: Theta, inputs: Inputs) -> Mapping[str, Any]:
        for name, (A, B) in theta.items():
            lora = modules[name].module
            for variable, value in ((lora.lora_a, A.T), (lora.lora_b, B.T)):
                variable.set_value(jnp.asarray(value, variable.dtype))
        return {name: module.around(jnp.asarray(inputs[name], _dtype(module))) for name, module in modules.items()}

    layers = {name: _said(module, sigma_a) for name, module in modules.items()}
    state = {
        name: Factors(*(np.asarray(x[...], float).T for x in (module.module.lora_a, module.module.lora_b)))
        for name, module in modules.items()
    }
    return Framework("flax nnx.LoRA", layers, state, forward, trained)


def _said(module: AdaptedModule, sigma_a: SigmaA | None) -> Layer:
    lora = module.module
    d_in, r = lora.lora_a.shape
    dtype = jnp.dtype(_dtype(module)).name
    sigma = said_sigma(sigma_a, he_sigma, d_in, r)
    return Layer((lora.lora_b.shape[1], d_in), r, float(r), sigma_a=sigma, dtype=dtype)


def _dtype(module: AdaptedModule) -> Any:
    return module.module.dtype or module.module.lora_a.dtype
