"""Reads LoRA adapters as PEFT stores them, one layer at a time: adapter_model.safetensors, never a pickle."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from safetensors import SafetensorError, safe_open

from signal_drift.display import Table, displayed_as
from signal_drift.errors import InputError
from signal_drift.peft.config import LoraConfig, read_config

WEIGHTS = "adapter_model.safetensors"
PICKLED = {".bin", ".pt", ".pth", ".pkl", ".ckpt"}
KEY = re.compile(r"base_model\.model\.(?P<layer>.+)\.lora_(?P<kind>embedding_)?(?P<factor>[AB])(\.weight)?")
BESIDE = re.compile(r".*\.(lora_magnitude_vector|lora_B\.bias)(\.weight)?")
"""What DoRA and `lora_bias` store beside the factors."""


class StoredLayer(NamedTuple):
    """Holds one layer's factors: A as (r, d_in), B as (d_out, r), in float32; that of a convolution is flattened."""

    layer: str
    A: Float[np.ndarray, "r d_in"]
    B: Float[np.ndarray, "d_out r"]
    embedding: bool


class _Keys(NamedTuple):
    A: str
    B: str
    embedding: bool


@dataclass(frozen=True, repr=False)
class AdapterFiles:
    """Knows an adapter on disk: its configuration, and where each layer's factors are."""

    folder: Path
    config: LoraConfig
    keys: dict[str, _Keys]

    def layers(self) -> Iterator[StoredLayer]:
        """Read layer by layer, in the order of their names; raise `InputError` for one that does not fit."""
        for layer, keys in sorted(self.keys.items()):
            with _opened(self.folder / WEIGHTS) as file:  # anew for each, which gives back the pages of the last
                A, B = (_matrix(file.get_tensor(key)) for key in (keys.A, keys.B))
            yield _checked(StoredLayer(layer, A, B, keys.embedding), self.config)


def open_adapter(folder: str | Path) -> AdapterFiles:
    """Open an adapter that PEFT saved in `folder`; only the two headers are read.

    Raises `InputError` for a folder that is none, for pickled weights, which are never opened, for a damaged file,
    and for keys that are missing or of no known kind.
    """
    folder = Path(folder)
    config = read_config(folder)
    if not (folder / WEIGHTS).exists():
        pickled = sorted(p.name for p in folder.iterdir() if p.suffix in PICKLED)
        if pickled:
            raise InputError(
                f"folder: {pickled[0]!r} is a pickle, which may run any code when it is opened, and is not read; "
                f"save {WEIGHTS} instead: model.save_pretrained(folder, safe_serialization=True)"
            )
        raise InputError(f"folder: {str(folder)!r} has no {WEIGHTS}")
    with _opened(folder / WEIGHTS) as file:
        return AdapterFiles(folder, config, _layers(list(file.keys()), config))


def _layers(names: list[str], config: LoraConfig) -> dict[str, _Keys]:
    """Which two keys belong to each layer; nothing may be left over but what the configuration lists."""
    found: dict[str, dict[str, str]] = {}
    embeddings = set()
    for name in names:
        match = KEY.fullmatch(name)
        if match:
            found.setdefault(match["layer"], {})[match["factor"]] = name
            embeddings |= {match["layer"]} if match["kind"] else set()
        elif not BESIDE.fullmatch(name) and not any(f".{m}." in f"{name}." for m in config.modules_to_save):
            raise InputError(f"{WEIGHTS}: unknown key {name!r}, neither lora_A nor lora_B nor in modules_to_save")
    for layer, keys in found.items():
        if len(keys) < 2:
            raise InputError(f"{WEIGHTS}: {layer!r} has lora_{next(iter(keys))} without its other factor")
    if not found:
        raise InputError(f"{WEIGHTS}: has no layer, got {len(names)} keys")
    return {layer: _Keys(keys["A"], keys["B"], layer in embeddings) for layer, keys in found.items()}


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="flax")  # NumPy has no bfloat16
    except (SafetensorError, OSError) as error:
        raise InputError(f"{WEIGHTS}: is damaged or no safetensors file ({str(error).splitlines()[0]})") from None


def _matrix(x: Any) -> Float[np.ndarray, "m n"]:
    array = np.asarray(x).astype(np.float32)
    return array.reshape(len(array), -1) if array.ndim else array.reshape(1, 1)


def _checked(stored: StoredLayer, config: LoraConfig) -> StoredLayer:
    r = config.rank(stored.layer)
    if (len(stored.A), stored.B.shape[1]) != (r, r):
        raise InputError(
            f"{WEIGHTS}: {stored.layer!r} has A {stored.A.shape} and B {stored.B.shape}, but its rank is {r}: "
            "A must be (r, d_in), B (d_out, r)"
        )
    for name, factor in (("A", stored.A), ("B", stored.B)):
        if not np.isfinite(factor).all():
            raise InputError(f"{WEIGHTS}: lora_{name} of {stored.layer!r} must be finite, got {_odd(factor)}")
    return stored


def _odd(factor: np.ndarray) -> float:
    return float(factor[~np.isfinite(factor)][0])


def _table(x: AdapterFiles) -> Table:
    c = x.config
    scale = (
        f"r {c.r}, lora_alpha {c.lora_alpha:g}{', rsLoRA' if c.use_rslora else ''}, initialised {c.init_lora_weights}"
    )
    return Table(f"AdapterFiles({x.folder.name!r}): {len(x.keys)} layers, {scale}")


displayed_as(_table)(AdapterFiles)
