"""LoRA adapters on disk, as PEFT would have written them, small and with known factors."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors.flax import save_file

SHAPES = {"model.layers.0.q_proj": (6, 5), "model.layers.0.o_proj": (5, 6), "model.layers.1.q_proj": (6, 5)}
CONFIG: dict[str, Any] = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "init_lora_weights": True}


def factors(shapes: Mapping[str, tuple[int, int]] = SHAPES, rank: int = 4, seed: int = 0) -> dict[str, np.ndarray]:
    """Tensors by PEFT's names: A uniform with σ_A = 1/√(3 d_in), B normal."""
    draws, found = np.random.default_rng(seed), {}
    for layer, (d_out, d_in) in shapes.items():
        A = draws.uniform(-1, 1, (rank, d_in)) / np.sqrt(d_in)
        found[f"base_model.model.{layer}.lora_A.weight"] = A.astype(np.float32)
        found[f"base_model.model.{layer}.lora_B.weight"] = draws.standard_normal((d_out, rank)).astype(np.float32)
    return found


def adapter(
    folder: Path, tensors: Mapping[str, np.ndarray] | None = None, dtype: Any = jnp.float32, **config: Any
) -> Path:
    """A folder with both files; `config` replaces entries of CONFIG."""
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG | config), encoding="utf-8")
    stored = factors() if tensors is None else tensors
    save_file({name: jnp.asarray(x, dtype) for name, x in stored.items()}, folder / "adapter_model.safetensors")
    return folder


def scaling_by_peft(config: Mapping[str, Any], layer: str) -> tuple[int, float]:
    """(r, s) that PEFT gives a layer: the first pattern for the end of its name, then lora_alpha/r or lora_alpha/√r."""

    def of(pattern: str, default: Any) -> Any:
        values = [v for k, v in config.get(pattern, {}).items() if re.match(r"(.*\.)?(" + k + ")$", layer)]
        return (values or [default])[0]

    r, alpha = of("rank_pattern", config.get("r", 8)), of("alpha_pattern", config.get("lora_alpha", 8))
    return r, alpha / (math.sqrt(r) if config.get("use_rslora") else r)
