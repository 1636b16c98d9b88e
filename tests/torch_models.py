"""The real PEFT, where it is installed, and PyTorch models for it."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import pytest


def peers() -> tuple[Any, Any]:
    """(torch, peft), the latter by one of its modules: the folder of its tests goes by the name "peft" too."""
    for name in ("torch", "peft.tuners"):
        pytest.importorskip(name, reason="needs the extra peers", exc_type=ImportError)
    return import_module("torch"), import_module("peft")


def torch_model(shapes: Mapping[str, tuple[int, int]], bias: bool = False) -> Any:
    """A module with a linear layer (d_out, d_in) under each name."""
    torch, _ = peers()
    layers = {name: torch.nn.Linear(d_in, d_out, bias=bias) for name, (d_out, d_in) in shapes.items()}
    root = torch.nn.Module()
    for name, layer in layers.items():
        parent = root
        for part in name.split(".")[:-1]:
            if not hasattr(parent, part):
                parent.add_module(part, torch.nn.Module())
            parent = getattr(parent, part)
        parent.add_module(name.split(".")[-1], layer)
    root.forward = lambda: sum((layer.weight**2).sum() for layer in layers.values())
    return root
