"""Finds which layers of a model an adapter is for, trained or only configured, with r, s and σ_A of each."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from signal_drift.errors import InputError
from signal_drift.errors.arguments import MOST
from signal_drift.errors.words import shown
from signal_drift.files.tensors import file_in, read_json
from signal_drift.peft.config import LoraConfig, check_plain, check_stated, initial_sigma, peft_lora
from signal_drift.peft.files import open_adapter
from signal_drift.peft.layouts import INDEX, MLX_WEIGHTS, WEIGHTS
from signal_drift.peft.maps import check_scaling
from signal_drift.peft.patterns import check_patterns, is_whole
from signal_drift.peft.settings import CONFIG

ALL = "all-linear"
"""PEFT's word for every linear layer but the head."""
SELECTIONS = ("exclude_modules", "layers_to_transform", "layers_pattern")
"""Settings that narrow `target_modules` down."""

Shapes = Mapping[str, tuple[int, ...]]


class PlannedLayer(NamedTuple):
    """Describes a layer as training begins: W is (d_out, d_in), A ~ `sigma` = σ_A and B = 0; else it is NaN."""

    layer: str
    shape: tuple[int, int]
    rank: int
    scaling: float
    sigma: float


class Plan(NamedTuple):
    """Holds the layers of an adapter, in the order of their names, and what has to be known of them."""

    config: LoraConfig
    layers: tuple[PlannedLayer, ...]
    notes: tuple[str, ...]


def plan_layers(folder: str | Path, where: str, shapes: Shapes) -> Plan:
    """Find the layers of an adapter among those of these shapes, which `where` names in errors.

    They are those with stored factors; in a folder without factors, with PEFT's adapter_config.json alone, those that
    its `target_modules` selects, "all-linear" every matrix. Embeddings are left out, and a note says so. Only headers
    are read. Raises `InputError` where `open_adapter` does but for missing factors, for a configuration without r or
    lora_alpha or with an update that is not s·BA of a full A and B, for an s or r out of range, for a layer that
    is not among the shapes or has another one, and for a selection of nothing.
    """
    folder = Path(folder)
    path = file_in(folder, CONFIG)
    if path is None or any(file_in(folder, name) for name in (WEIGHTS, INDEX, MLX_WEIGHTS)):
        return _stored(folder, where, shapes)
    config = peft_lora(read_json(path))
    check_stated(config)
    _check_map(config)
    names = _selected(config, where, shapes)
    layers = [
        _layer(name, _matrix(where, name, shapes), config.rank(name), config.scaling(name), config) for name in names
    ]
    return Plan(config, tuple(layers), config.notes)


def is_named(layer: str, names: Sequence[Any]) -> bool:
    """Tell whether a list has the name of a layer, or its end after a dot, as PEFT reads `target_modules`."""
    return any(f".{layer}".endswith(f".{name}") for name in names)


def _stored(folder: Path, where: str, shapes: Shapes) -> Plan:
    files = open_adapter(folder)
    if files.layout.name == "PEFT":
        check_stated(files.config)
    _check_map(files.config)
    layers, notes = [], [*files.config.notes, *files.notes]
    for place in files.layout.places:
        if place.embedding:
            notes.append(f"left out, an embedding, which starts at A = 0: {shown(place.layer)}")
            continue
        A, B = (files.layout.tensors[key].shape for key in (place.A, place.B))
        if files.layout.transposed:
            A, B = A[::-1], B[::-1]
        stored, shape = (B[0], math.prod(A[1:])), _matrix(where, place.layer, shapes)
        if stored != shape or (A[0], B[1]) != (place.rank,) * 2:
            told = f"A {A} and B {B} of rank {place.rank} in the adapter"
            raise InputError(f"{where}: {shown(place.layer)} is {shape}, which does not fit {told}")
        layers.append(_layer(place.layer, shape, place.rank, place.scaling, place.config))
    if not layers:
        raise InputError(f"folder: {shown(str(folder))} has factors of embeddings alone")
    return Plan(files.config, tuple(layers), tuple(dict.fromkeys(notes)))


def _check_map(config: LoraConfig) -> None:
    check_plain(config)
    if config.use_dora:
        raise InputError(f"{CONFIG}: use_dora is set, with which W is not W₀ + s·BA")


def _selected(config: LoraConfig, where: str, shapes: Shapes) -> list[str]:
    """The layers that `target_modules` selects: by an expression, a list, or all."""
    targets, names = config.stored.get("target_modules"), sorted(shapes)
    narrowed = next((field for field in SELECTIONS if config.stored.get(field)), None)
    if narrowed or not (isinstance(targets, str) or (isinstance(targets, list) and targets)):
        told = f"{narrowed} narrows target_modules" if narrowed else f"target_modules is {shown(targets)}"
        raise InputError(f"{CONFIG}: {told}, so that only factors stored beside it would tell which layers have any")
    if isinstance(targets, list):
        for name in targets:
            if not any(is_named(layer, [name]) for layer in names):
                raise _without(where, f"layer that target_modules names {shown(name)}", names)
        return [layer for layer in names if is_named(layer, targets)]
    if targets == ALL:
        return [layer for layer in names if len(shapes[layer]) == 2]
    check_patterns("target_modules", [targets])
    found = [layer for layer in names if is_whole(targets, layer)]
    if not found:
        raise _without(where, f"layer that the target_modules {shown(targets)} matches", names)
    return found


def _matrix(where: str, layer: str, shapes: Shapes) -> tuple[int, int]:
    if layer not in shapes:
        raise _without(where, f"{shown(layer)}, which the adapter adapts", sorted(shapes))
    shape = shapes[layer]
    if len(shape) != 2:
        raise InputError(f"{where}: {shown(layer)} must be a matrix (d_out, d_in), got shape {shape}")
    return shape[0], shape[1]


def _without(where: str, what: str, names: Sequence[str]) -> InputError:
    has = f"{shown(names[0])} to {shown(names[-1])}" if names else "no tensor"
    return InputError(f"{where}: has no {what}; it has {has}")


def _layer(layer: str, shape: tuple[int, int], rank: int, scaling: float, config: LoraConfig) -> PlannedLayer:
    if rank > MOST:
        raise InputError(f"{CONFIG}: r of {shown(layer)} must be below 2³¹, got {shown(rank)}")
    check_scaling(CONFIG, layer, scaling)
    init = config.init_lora_weights
    sigma = math.nan if init is False else initial_sigma(init, shape[1], rank)
    return PlannedLayer(layer, shape, rank, scaling, sigma)
