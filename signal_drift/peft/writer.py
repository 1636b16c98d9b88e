"""Writes adapters in JAX as a folder that PEFT loads: adapter_config.json and adapter_model.safetensors."""

import json
import math
import os
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from signal_drift.errors import InputError
from signal_drift.lora.adapters import Adapter, Adapters, Scaling, check_adapters, per_layer
from signal_drift.peft.export import LayerScaling, exactly, peft_scaling
from signal_drift.peft.layouts import WEIGHTS
from signal_drift.peft.settings import CONFIG

NAME = re.compile(r"[^.\s]+(\.[^.\s]+)*")
"""A module of PyTorch: names joined by dots."""
DTYPES = ("float16", "bfloat16", "float32", "float64")
"""What both safetensors and PEFT take for factors."""


def write(
    adapters: Adapters, folder: str | Path, scaling: Scaling, *, base_model_name_or_path: str | None = None
) -> None:
    """Write an adapter folder with which PEFT computes W₀ + s·BA, for the `scaling` s, one number or one per layer.

    Layers are named as the modules of the PyTorch model, `model.layers.0.self_attn.q_proj`, and must be linear; A is
    (r, d_in), B is (d_out, r), and both keep their dtype. PEFT divides: its scaling is s up to the rounding of s·r.
    The folder is made when both files are complete. Raises `InputError` for a folder that has something in it or
    cannot be written, for a layer's name that is none of PyTorch, for factors that do not fit, are no floats or are
    not finite, and for a scaling that is not positive and finite.
    """
    check_adapters("adapters", adapters)
    tensors: dict[str, np.ndarray] = {}
    for layer, adapter in adapters.items():
        A, B = _factors(layer, adapter)
        tensors |= {f"base_model.model.{layer}.lora_A.weight": A, f"base_model.model.{layer}.lora_B.weight": B}
    s = {layer: _positive(layer, value) for layer, value in per_layer("scaling", scaling, adapters).items()}
    ranks = {layer: len(adapters[layer].A) for layer in s}
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": base_model_name_or_path,
        **peft_scaling({k: LayerScaling(r, s[k] * r) for k, r in ranks.items()}, use_rslora=False),
        "target_modules": exactly(s),
    }
    _folder_of(Path(folder), config, tensors)


def _factors(layer: str, adapter: Adapter) -> tuple[np.ndarray, np.ndarray]:
    if not NAME.fullmatch(layer) or not layer.isprintable():
        raise InputError(f"adapters: a layer must be named as a module of PyTorch, 'layers.0.q_proj', got {layer!r}")
    A, B = (_entries(f"adapters[{layer!r}].{name}:", factor) for name, factor in zip("AB", adapter, strict=True))
    if not A.size or not B.size:
        raise InputError(f"adapters[{layer!r}]: A {A.shape} and B {B.shape} must have entries")
    return A, B


def _entries(name: str, factor: jax.Array | np.ndarray) -> np.ndarray:
    """The entries row by row, which is how safetensors takes them from memory."""
    if factor.dtype.name not in DTYPES:
        raise InputError(f"{name} must be of a dtype {', '.join(DTYPES)}, got {factor.dtype}")
    entries = np.ascontiguousarray(factor)
    if not np.isfinite(entries).all():
        raise InputError(f"{name} must be finite, got {entries[~np.isfinite(entries)][0]}")
    return entries


def _positive(layer: str, scaling: Any) -> float:
    try:
        s = float(scaling)
    except (TypeError, ValueError):
        s = math.nan
    if not 0 < s < math.inf:
        raise InputError(f"scaling: must be positive and finite, got {scaling!r} for {layer!r}")
    return s


def _folder_of(folder: Path, config: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
    """Make the folder beside its place, and move it there when it is on the disk."""
    try:
        folder = Path(os.path.realpath(folder))
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"folder: {str(folder)!r} is there already, and is not replaced")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".adapter-", dir=folder.parent) as beside:
            made = Path(beside, folder.name)
            made.mkdir()
            (made / CONFIG).write_text(json.dumps(config, indent=2), encoding="utf-8")
            save_file(tensors, made / WEIGHTS, metadata={"format": "pt"})
            for path in made.iterdir():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
            os.replace(made, folder)
    except InputError:
        raise
    except (OSError, ValueError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"folder: {str(folder)!r} cannot be written ({reason})") from None
