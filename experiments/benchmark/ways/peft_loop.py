"""Run F2 in a training loop of PyTorch and PEFT; needs the `peers` extra."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model

from experiments.benchmark.config import Config
from experiments.benchmark.ways.cases import Call, Case, in_turn
from experiments.benchmark.ways.peers import tensor
from experiments.benchmark.ways.trajectories import grid


def trajectories_peft(config: Config) -> Call:
    """Train in a loop of PyTorch and PEFT, float32, the loss alone recorded."""
    problems = [config.problem.regression(seed) for seed in range(config.seeds)]
    starts = [config.problem.adapters(seed) for seed in range(config.seeds)]

    def run(seed: int, alpha: float, eta: float) -> list[float]:
        base, _, data = problems[seed]
        return _trained(_peft(base, starts[seed], alpha), data, eta, config.steps)

    def runs() -> np.ndarray:
        return np.array([run(*run_of_grid) for run_of_grid in grid(config)])

    return runs


def _peft(base: Any, start: Any, alpha: float) -> torch.nn.Module:
    """Build PEFT's model at the base weights and adapters of this project."""
    layers = [torch.nn.Linear(*reversed(base[k].shape), bias=False) for k in in_turn(base)]
    modules = [m for layer in layers for m in (layer, torch.nn.SiLU())][:-1]
    names, rank = [str(2 * i) for i in range(len(layers))], len(start[min(start)].A)
    lora = LoraConfig(r=rank, lora_alpha=alpha, target_modules=names)  # pyright: ignore[reportArgumentType]
    model = get_peft_model(torch.nn.Sequential(*modules), lora)  # pyright: ignore[reportArgumentType]
    values = dict(model.named_parameters())
    with torch.no_grad():
        for name, k in zip(names, in_turn(base), strict=True):
            values[f"base_model.model.{name}.base_layer.weight"].copy_(tensor(base[k]))
            values[f"base_model.model.{name}.lora_A.default.weight"].copy_(tensor(start[k].A))
    return model


def _trained(model: torch.nn.Module, data: Any, eta: float, steps: int) -> list[float]:
    """Return the losses of a plain loop of Adam."""
    X, Y = (tensor(x).float() for x in data)
    optimizer, losses = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=eta), []
    for _ in range(steps):
        optimizer.zero_grad()
        value = torch.nn.functional.mse_loss(model(X), Y)
        value.backward()
        optimizer.step()
        losses.append(value.item())
    return losses


KERNELS: dict[tuple[str, str], Case] = {
    ("trajectories", "peft"): trajectories_peft,
}
"""What sets up the call, by kernel and way."""
