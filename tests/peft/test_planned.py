"""Which layers a configuration is for: as PEFT reads `target_modules`, by an expression, a list, or all."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from stored import SHAPES, adapter

from signal_drift.peft.config import LoraConfig
from signal_drift.peft.planned import plan_layers

Q0, O0, Q1 = "model.layers.0.q_proj", "model.layers.0.o_proj", "model.layers.1.q_proj"
ALL = {**SHAPES, "model.norm": (5,)}


def selected(folder: Path, targets: Any) -> list[str]:
    """The layers of a configuration without factors."""
    adapter(folder, target_modules=targets)
    (folder / "adapter_model.safetensors").unlink()
    return [x.layer for x in plan_layers(folder, "model", ALL).layers]


@pytest.mark.parametrize(
    ("targets", "layers"),
    [
        (["q_proj"], [Q0, Q1]),
        (["o_proj", Q1], [O0, Q1]),
        (["0.q_proj"], [Q0]),
        ("all-linear", [O0, Q0, Q1]),
    ],
)
def test_a_list_is_of_names_or_their_ends(tmp_path: Path, targets: Any, layers: list[str]) -> None:
    assert selected(tmp_path / "a", targets) == layers


@pytest.mark.parametrize(
    "expression", [r".*\.q_proj", r".*\.(q|o)_proj", r"model\.layers\.0\.q_proj|q_proj", r"model\.layers\.\d+\.o.*"]
)
def test_an_expression_is_for_whole_names(tmp_path: Path, expression: str) -> None:
    """It is matched as Python does, not by the end of a name as in `rank_pattern`."""
    assert selected(tmp_path / "a", expression) == sorted(x for x in SHAPES if re.fullmatch(expression, x))


def test_layers_have_the_scaling_of_their_own(tmp_path: Path) -> None:
    """With factors and without them alike."""
    folder = adapter(tmp_path / "a", target_modules=["q_proj", "o_proj"], alpha_pattern={"o_proj": 3})
    with_factors = plan_layers(folder, "model", ALL)
    (folder / "adapter_model.safetensors").unlink()
    assert isinstance(with_factors.config, LoraConfig)
    assert plan_layers(folder, "model", ALL).layers == with_factors.layers
    assert {x.layer: (x.shape, x.rank, x.scaling) for x in with_factors.layers} == {
        layer: (shape, 4, 3 / 4 if layer == O0 else 2.0) for layer, shape in SHAPES.items()
    }


def test_factors_of_mlx_are_the_other_way_round(tmp_path: Path) -> None:
    """A is (d_in, r), B is (r, d_out), and s is stored."""
    config = {"fine_tune_type": "lora", "lora_parameters": {"rank": 4, "scale": 3.0}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    pair = {"x.lora_a": np.ones((5, 4), np.float32), "x.lora_b": np.ones((4, 6), np.float32)}
    save_file(pair, tmp_path / "adapters.safetensors")
    (found,) = plan_layers(tmp_path, "model", {"x": (6, 5)}).layers
    assert (found.shape, found.rank, found.scaling) == ((6, 5), 4, 3.0)
