"""Shows the linear LoRA layers of a PEFT model, in PyTorch; its configuration is read as adapter_config.json is."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np

from signal_drift.conformance.framework import Factors, Framework, Inputs, Theta
from signal_drift.conformance.rounding import EPSILON
from signal_drift.conformance.stored import said_by
from signal_drift.errors import InputError
from signal_drift.peft.config import peft_lora

PREFIX = "base_model.model."


def of_peft(model: Any, *, trained: bool = False) -> Framework:
    """Show the active adapter of a `peft.PeftModel` from the outside: every layer with lora_A and lora_B, one by one.

    The layers are called in the mode, train or eval, that the model is in, with inputs of the dtype of W₀, and are
    given back their factors. The product is said to be in the lower of that dtype and A's. Raises `InputError` for
    another method than LoRA, DoRA, adapters that are merged, and a model without a linear LoRA layer.
    """
    torch, name = import_module("torch"), str(model.active_adapter)
    config = peft_lora(_plain(model.peft_config[name].to_dict()))
    modules = {
        path.removeprefix(PREFIX): module
        for path, module in model.named_modules()
        if name in getattr(module, "lora_A", ()) and hasattr(module, "in_features")
    }
    if not modules:
        raise InputError(f"framework: has no linear layer with the adapter {name!r}")
    for path, module in modules.items():
        if module.merged:
            raise InputError(f"framework: the adapters of {path!r} are merged already; model.unmerge_adapter() first")
    weights = {path: (m.lora_A[name].weight, m.lora_B[name].weight) for path, m in modules.items()}
    state = {path: Factors(*map(_array, pair)) for path, pair in weights.items()}
    kernels = {path: m.get_base_layer().weight for path, m in modules.items()}
    takes = {path: W0 if _dtype(W0) in EPSILON else weights[path][0] for path, W0 in kernels.items()}

    def put(theta: Theta) -> None:
        for path, factors in theta.items():
            for weight, value in zip(weights[path], factors, strict=True):
                weight.copy_(torch.as_tensor(value))

    def forward(theta: Theta, inputs: Inputs) -> Mapping[str, Any]:
        with torch.no_grad():
            put(theta)
            outputs = {path: m(torch.as_tensor(inputs[path]).to(takes[path])) for path, m in modules.items()}
            put(state)
        return {path: _array(y) for path, y in outputs.items()}

    layers = {
        path: said_by(config, (len(B), A.shape[1]), config.rank(path), config.scaling(path))._replace(
            dtype=_lower(A, takes[path])
        )
        for path, (A, B) in weights.items()
    }
    plain = all(takes[path] is kernels[path] for path in modules) and not config.fan_in_fan_out
    base = {path: _array(x) for path, x in kernels.items()} if plain else None
    return Framework("PEFT", layers, state, forward, trained, base)


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings as JSON has them: what is a str or an int by another class becomes one."""
    return {k: getattr(v, "value", sorted(v) if isinstance(v, set) else v) for k, v in config.items()}


def _lower(*weights: Any) -> str:
    """The dtype of fewest digits: A and B may have more than W₀, of whose dtype the output is."""
    return max(map(_dtype, weights), key=lambda name: EPSILON.get(name, 0.0))


def _dtype(x: Any) -> str:
    return str(x.dtype).removeprefix("torch.")


def _array(x: Any) -> np.ndarray:
    return x.detach().double().cpu().numpy().copy()
