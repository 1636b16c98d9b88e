"""Reads files of unknown origin in one folder: JSON and safetensors, a tensor at a time, and nothing outside it."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from signal_drift.errors import InputError
from signal_drift.errors.words import printable, shown

LARGEST_TEXT = 100_000_000
"""Bytes of JSON that are read at most, as many as safetensors allows a header."""
FLOATS: dict[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": jnp.dtype(jnp.bfloat16),
    "F8_E4M3": jnp.dtype(jnp.float8_e4m3fn),
    "F8_E5M2": jnp.dtype(jnp.float8_e5m2),
}
NUMBERS = FLOATS | {"I64": np.int64, "I32": np.int32}
"""What safetensors calls floating-point numbers, and what a single number may be besides."""


class Stored(NamedTuple):
    """Knows where a tensor is: its file, its first byte, its dtype as safetensors names it, and its shape."""

    path: Path
    start: int
    dtype: str
    shape: tuple[int, ...]


def file_in(folder: Path, name: str) -> Path | None:
    """Find a file by its name, or nothing.

    Raises `InputError` for what is no regular file and for a link that leads out of the folder, unless into the blobs
    beside the snapshots of a Hugging Face cache.
    """
    path = folder / name
    try:
        if not path.exists():
            return None
        root, target = folder.resolve(), path.resolve()
    except (OSError, RuntimeError) as error:
        raise InputError(f"folder: {shown(name)} cannot be opened ({type(error).__name__})") from None
    cached = any(up.name == "snapshots" and target.parent == up.parent / "blobs" for up in root.parents)
    if not (target.is_relative_to(root) or cached):
        raise InputError(f"folder: {shown(name)} is a link out of it, which is not followed; put the file itself there")
    if not target.is_file():
        raise InputError(f"folder: {shown(name)} is no file")
    return path


def read_json(path: Path) -> Any:
    """Read JSON; raise `InputError` for what is none, is too large or too deep, or names a key twice."""
    try:
        if path.stat().st_size > LARGEST_TEXT:
            raise InputError(f"{printable(path.name)}: is larger than {LARGEST_TEXT} bytes")
        return parse_json(printable(path.name), path.read_bytes())
    except OSError as error:
        raise InputError(f"{printable(path.name)}: cannot be read ({type(error).__name__})") from None


def parse_json(what: str, text: bytes | str) -> Any:
    """Parse JSON; raise `InputError`, which begins with `what`, where `read_json` does."""

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        as_dict = dict(found)
        if len(as_dict) < len(found):
            seen = set()
            twice = next(key for key, _ in found if key in seen or seen.add(key))
            raise InputError(f"{what}: has the key {shown(twice)} twice")
        return as_dict

    try:
        return json.loads(text, object_pairs_hook=pairs)
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"{what}: cannot be read ({type(error).__name__})") from None


def list_tensors(path: Path) -> tuple[dict[str, Stored], dict[str, str]]:
    """Read the header of a safetensors file: its tensors, and what else it says.

    Raises `InputError` for a header that does not fit the file, and for one that names a tensor twice.
    """
    try:
        with safe_open(path, framework="numpy"), path.open("rb") as file:  # which checks every offset
            size = int.from_bytes(file.read(8), "little")
            header = parse_json(printable(path.name), file.read(size))
    except (SafetensorError, OSError) as error:
        reason = printable(str(error))[:200]
        raise InputError(f"{printable(path.name)}: is damaged or no safetensors file ({reason})") from None
    said = header.pop("__metadata__", None) or {}
    found = {
        name: Stored(path, 8 + size + x["data_offsets"][0], x["dtype"], tuple(x["shape"])) for name, x in header.items()
    }
    return found, said


def list_sharded(path: Path, weight_map: Any) -> dict[str, Stored]:
    """List the tensors of several files by the index of them at `path`; all must be in its folder."""
    if not (isinstance(weight_map, dict) and all(isinstance(x, str) for x in weight_map.values())):
        raise InputError(
            f"{printable(path.name)}: must have an object weight_map of file names, got {shown(weight_map)}"
        )
    shards = {name: _shard(path, name) for name in sorted(set(weight_map.values()))}
    for key, name in weight_map.items():
        if key not in shards[name]:
            raise InputError(f"{printable(path.name)}: says that {shown(key)} is in {shown(name)}, which it is not")
    return {key: shards[name][key] for key, name in weight_map.items()}


def _shard(path: Path, name: str) -> dict[str, Stored]:
    if Path(name).name != name or not name.endswith(".safetensors"):
        raise InputError(f"{printable(path.name)}: names {shown(name)}, no safetensors file of its own folder")
    found = file_in(path.parent, name)
    if found is None:
        raise InputError(f"{printable(path.name)}: names {shown(name)}, which is not there")
    return list_tensors(found)[0]


def read_tensor(key: str, stored: Stored, dtypes: Mapping[str, Any] = FLOATS) -> np.ndarray:
    """Read one tensor, in float32; raise `InputError` for one that is empty, or of none of these dtypes."""
    with np.errstate(over="ignore", invalid="ignore"):
        return read_stored(key, stored, dtypes).astype(np.float32)


def read_stored(key: str, stored: Stored, dtypes: Mapping[str, Any] = FLOATS) -> np.ndarray:
    """Read one tensor in its own dtype; raise `InputError` for one that is empty, or of none of these dtypes."""
    where = f"{printable(stored.path.name)}: {shown(key)}"
    if stored.dtype not in dtypes:
        raise InputError(f"{where} is of dtype {stored.dtype}, which is not read; read are {', '.join(dtypes)}")
    if 0 in stored.shape:
        raise InputError(
            f"{where} has no entries, its shape is {stored.shape}: ZeRO-3 and FSDP leave that where the parameters are "
            "not gathered before they are saved"
        )
    found = np.fromfile(stored.path, dtypes[stored.dtype], math.prod(stored.shape), offset=stored.start)
    return found.reshape(stored.shape)
