"""Finds the configuration and the weights of a model in a folder as Hugging Face lays one out."""

from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from signal_drift.errors import InputError
from signal_drift.errors.words import shown
from signal_drift.files.tensors import Stored, file_in, list_sharded, list_tensors, read_json

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"


def read_config(folder: Path) -> dict[str, Any]:
    """Read config.json; raise `InputError` for a folder without one and for what is no JSON object."""
    path = file_in(folder, CONFIG)
    if path is None:
        raise InputError(f"folder: {shown(str(folder))} has no {CONFIG}")
    found = read_json(path)
    if not isinstance(found, dict):
        raise InputError(f"{CONFIG}: must be a JSON object, got {shown(found)}")
    return found


def settings_of(kind: type, config: dict[str, Any]) -> dict[str, Any]:
    """Return those entries of a configuration that a dataclass has fields for, without what is null.

    Raises `InputError` for a field without a default that is not there.
    """
    found = {field.name: config[field.name] for field in fields(kind) if config.get(field.name) is not None}
    missing = [field.name for field in fields(kind) if field.default is MISSING and field.name not in found]
    if missing:
        raise InputError(f"{CONFIG}: has no {missing[0]!r}")
    return found


def find_weights(folder: Path) -> dict[str, Stored]:
    """List the tensors in model.safetensors, or in the files that its index names; only headers are read.

    Raises `InputError` for a folder with neither, and for a damaged file.
    """
    path = file_in(folder, WEIGHTS)
    if path is not None:
        return list_tensors(path)[0]
    index = file_in(folder, INDEX)
    if index is None:
        raise InputError(f"folder: {shown(str(folder))} has neither {WEIGHTS} nor {INDEX}")
    said = read_json(index)
    return list_sharded(index, said.get("weight_map") if isinstance(said, dict) else None)
