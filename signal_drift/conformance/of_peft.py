"""Shows the linear LoRA layers of a PEFT model, in PyTorch; its configuration is read as adapter_config.json is."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np

from signal_drift.conformance.framework import Factors, Framework, Inputs, Theta
from signal_drift.conformance.stored import said_by
from signal_drift.errors import InputError
from signal_drift.peft.config import peft_lora

PREFIX = "base_model.model."


def of_peft(model: Any, *, trained: bool = False) -> Framework:
    """Show the active adapter of a `peft.PeftModel` from the outside: every layer with lora_A and lora_B, one by one.

    The layers are called in the mode, train or eval, that the model is in, and are given back their factors. Raises
    `InputError` for another method than LoRA, DoRA, adapters that are merged, and a model without a linear LoRA layer.
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

    def put(theta: Theta) -> None:
        for path, factors in theta.items():
            for weight, value in zip(weights[path], factors, strict=True):
                weight.copy_(torch.as_tensor(value))

    def forward(theta: Theta, inputs: Inputs) -> Mapping[str, Any]:
        with torch.no_grad():
            put(theta)
            outputs = {path: m(torch.as_tensor(inputs[path]).to(weights[path][0])) for path, m in modules.items()}
            put(state)
        return {path: _array(y) for path, y in outputs.items()}

    layers = {
        path: said_by(config, (len(B), A.shape[1]), config.rank(path), config.scaling(path))._replace(
            dtype=str(A.dtype).removeprefix("torch.")
        )
        for path, (A, B) in weights.items()
    }
    base = {path: _array(m.get_base_layer().weight) for path, m in modules.items()}
    return Framework("PEFT", layers, state, forward, trained, None if config.fan_in_fan_out else base)


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings as JSON has them: what is a str or an int by another class becomes one."""
    return {k: getattr(v, "value", sorted(v) if isinstance(v, set) else v) for k, v in config.items()}


def _array(x: Any) -> np.ndarray:
    return x.detach().double().cpu().numpy().copy()
