"""Finds the factors in a folder: a layout is a way to tell (layer, A, B, s) from the files and names in it.

PEFT: adapter_model.safetensors, or its shards, with `lora_A` and `lora_B`; s is by adapter_config.json.
mlx: adapters.safetensors with `lora_a` (d_in, r) and `lora_b` (r, d_out); s is `scale` in adapter_config.json.
A single file, as of diffusers and kohya, with `lora_down` and `lora_up` or other names for them; s is by a tensor
`.alpha`, else by the metadata, else 1.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from signal_drift.errors import InputError
from signal_drift.errors.words import printable, shown
from signal_drift.files.tensors import NUMBERS, Stored, file_in, list_sharded, list_tensors, read_json, read_tensor
from signal_drift.peft.config import LoraConfig, field, lora_config, peft_lora
from signal_drift.peft.maps import Place
from signal_drift.peft.settings import CONFIG, some

WEIGHTS = "adapter_model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
MLX_WEIGHTS = "adapters.safetensors"
UNREADABLE = {
    **dict.fromkeys(
        (".bin", ".pt", ".pth", ".pkl", ".ckpt"),
        "a pickle, which may run any code when it is opened, and is not read; "
        f"save {WEIGHTS} instead: model.save_pretrained(folder, safe_serialization=True)",
    ),
    ".npz": f"an old mlx adapter; save {MLX_WEIGHTS} instead: mlx.core.save_safetensors(path, mlx.core.load(file))",
    ".gguf": "a GGUF adapter; audit the PEFT folder that llama.cpp's convert_lora_to_gguf.py made it from",
}
"""What other files hold, by the ends of their names, and which tool converts them."""
PEFT_KEY = re.compile(
    r"(?:(?:module\.|_orig_mod\.)*base_model\.model\.)?(?P<layer>.+)\.lora_(?P<embedding>embedding_)?(?P<factor>[AB])"
    r"(?:\.(?!bias|weight)(?P<adapter>[^.]+))?(?:\.weight)?",
    re.DOTALL,
)
MLX_KEY = re.compile(r"(?P<layer>.+)\.lora_(?P<factor>[ab])", re.DOTALL)
SINGLE_KEY = re.compile(
    r"(?P<layer>.+?)(?:\.lora_|\.lora\.|_lora\.|\.lora_linear_layer\.)(?P<factor>down|up|A|B)"
    r"(?:\.(?!bias|weight)(?P<adapter>[^.]+))?\.weight",
    re.DOTALL,
)
FACTOR = {"A": "A", "a": "A", "down": "A", "B": "B", "b": "B", "up": "B"}
OTHER_METHODS = re.compile(r"\.(hada_|lokr_|lora_mid\b|oft_|glora|lora_E\b)")
"""Keys of methods whose update is another: LoHa, LoKr, Tucker, OFT, AdaLoRA."""


class Layout(NamedTuple):
    """Knows what a folder holds: tensors by their keys, the places of the pairs, and what has to be known of them.

    `transposed` says that A is stored as (d_in, r) and B as (r, d_out).
    """

    name: str
    config: LoraConfig
    tensors: Mapping[str, Stored]
    places: tuple[Place, ...]
    notes: tuple[str, ...]
    transposed: bool = False


def find_layout(folder: Path) -> Layout:
    """Find which layout a folder has; raise `InputError` for none, naming the tool that converts what is there."""
    path = file_in(folder, CONFIG)
    if path is None:
        return _single_file(folder)
    found = read_json(path)
    if isinstance(found, dict) and "lora_parameters" in found:
        return _mlx(folder, found)
    return _peft(folder, peft_lora(found))


def _peft(folder: Path, config: LoraConfig) -> Layout:
    tensors, label = _peft_tensors(folder)
    pairs, beside = _pairs(label, tensors, PEFT_KEY)
    places = [Place(label, k, x.A, x.B, config.rank(k), config.scaling(k), config, x.embedding) for k, x in pairs]
    return Layout("PEFT", config, tensors, tuple(places), _beside_notes(beside))


def _peft_tensors(folder: Path) -> tuple[dict[str, Stored], str]:
    path = file_in(folder, WEIGHTS)
    if path is not None:
        return list_tensors(path)[0], WEIGHTS
    index = file_in(folder, INDEX)
    if index is not None:
        found = read_json(index)
        return list_sharded(index, found.get("weight_map") if isinstance(found, dict) else found), INDEX
    raise _unreadable(_names(folder)) or InputError(f"folder: {shown(str(folder))} has no {WEIGHTS}")


def _mlx(folder: Path, stored: dict[str, Any]) -> Layout:
    """mlx: y = W₀x + scale·(x·lora_a)·lora_b, lora_a uniform with σ_A = 1/√(3 d_in)."""
    settings, kind = stored["lora_parameters"], stored.get("fine_tune_type", "lora")
    if kind not in ("lora", "dora"):
        raise InputError(f"{CONFIG}: fine_tune_type must be 'lora' or 'dora', got {shown(kind)}")
    if not isinstance(settings, dict):
        raise InputError(f"{CONFIG}: lora_parameters must be an object, got {shown(settings)}")
    if "alpha" in settings:
        raise InputError(
            f"{CONFIG}: lora_parameters has alpha, {shown(settings['alpha'])}: by the version of mlx-lm s is "
            "scale·alpha/rank or scale; write s as scale, and leave alpha out"
        )
    scale, rank = field(settings, "scale", float, 20.0), field(settings, "rank", int, 8)
    config = lora_config({"r": rank, "lora_alpha": scale * rank, "use_dora": kind == "dora"})
    path = file_in(folder, MLX_WEIGHTS)
    if path is None:
        raise _unreadable(_names(folder)) or InputError(f"folder: {shown(str(folder))} has no {MLX_WEIGHTS}")
    tensors, _ = list_tensors(path)
    pairs, beside = _pairs(MLX_WEIGHTS, tensors, MLX_KEY)
    places = [Place(MLX_WEIGHTS, k, x.A, x.B, rank, scale, config) for k, x in pairs]
    return Layout("mlx", config, tensors, tuple(places), _beside_notes(beside), transposed=True)


def _single_file(folder: Path) -> Layout:
    """diffusers, kohya and what follows them: r is the shape's, s = α/r, of a tensor `.alpha` or of the metadata."""
    names = _names(folder)
    files = [name for name in names if name.endswith(".safetensors")]
    no_config = f"folder: {shown(str(folder))} is no PEFT adapter, it has no {CONFIG}"
    if not files or files == [WEIGHTS]:
        raise _unreadable(names) or InputError(no_config)
    path = file_in(folder, files[0])
    if len(files) > 1 or path is None:
        raise InputError(f"{no_config}, nor one safetensors file alone, but {some(files)}")
    label = printable(path.name)
    tensors, said = list_tensors(path)
    pairs, beside = _pairs(label, tensors, SINGLE_KEY)
    alphas = {f"{k}.alpha" for k, _ in pairs} & tensors.keys()
    described = _described(label, said)
    if not (alphas or described) and any(k.startswith("base_model.model.") for k, _ in pairs):
        raise InputError(f"{no_config}, which has the α of {label}")
    config = lora_config(
        {
            "init_lora_weights": True if said.get("ss_network_module") == "networks.lora" else "not stored",
            "use_dora": any(key.endswith((".dora_scale", ".lora_magnitude_vector")) for key in beside),
        }
    )
    places = []
    for layer, (A, B, _) in pairs:
        r = max(1, *tensors[A].shape[:1])
        component, _, inner = layer.partition(".")
        if f"{layer}.alpha" in alphas:
            s = _alpha(f"{layer}.alpha", tensors, r) / r
            places.append(Place(label, layer, A, B, r, s, config))
        elif component in described:
            own = described[component]
            places.append(Place(label, layer, A, B, own.rank(inner), own.scaling(inner), own))
        else:
            places.append(Place(label, layer, A, B, r, 1.0, config))
    notes = _beside_notes([key for key in beside if key not in alphas])
    if len(alphas) < len(places) and not described:
        notes += ("layers without a stored α have s = 1, as diffusers takes it",)
    return Layout("single file", config, tensors, tuple(places), notes)


def _alpha(key: str, tensors: Mapping[str, Stored], r: int) -> float:
    """α of a layer; kohya takes 0 as α = r."""
    stored = tensors[key]
    where = f"{printable(stored.path.name)}: {shown(key)}"
    if math.prod(stored.shape) != 1:
        raise InputError(f"{where} must be one number, its shape is {stored.shape}")
    alpha = float(read_tensor(key, stored, NUMBERS).reshape(())) or float(r)
    if not 0 < alpha < math.inf:
        raise InputError(f"{where} must be positive, got {alpha!r}")
    return alpha


def _described(label: str, said: Mapping[str, str]) -> dict[str, LoraConfig]:
    """The configuration of each component, as diffusers keeps it in the metadata: unet.r, unet.lora_alpha, …"""
    try:
        found = json.loads(said.get("lora_adapter_metadata") or "{}")
    except (ValueError, RecursionError) as error:
        raise InputError(f"{label}: lora_adapter_metadata cannot be read ({type(error).__name__})") from None
    fields: dict[str, dict[str, Any]] = {}
    for key, value in found.items() if isinstance(found, dict) else ():
        component, _, field = key.partition(".")
        fields.setdefault(component, {})[field] = value
    try:
        return {component: lora_config(stored) for component, stored in fields.items()}
    except InputError as error:
        raise InputError(f"{label}: lora_adapter_metadata: {str(error).removeprefix(f'{CONFIG}: ')}") from None


class _Pair(NamedTuple):
    A: str
    B: str
    embedding: bool


def _pairs(
    label: str, tensors: Mapping[str, Stored], key: re.Pattern[str]
) -> tuple[list[tuple[str, _Pair]], list[str]]:
    """Which two keys belong to each layer, in the order of the layers' names, and what lies beside them."""
    found: dict[str, dict[str, str]] = {}
    embeddings, beside = set(), []
    for name in tensors:
        match = key.fullmatch(name)
        if match is None:
            beside.append(name)
            continue
        layer, factor = match["layer"], FACTOR[match["factor"]]
        other = found.setdefault(layer, {}).setdefault(factor, name)
        if other != name:
            raise InputError(f"{label}: {shown(layer)} has lora_{factor} twice, {shown(other)} and {shown(name)}")
        if match.groupdict().get("embedding"):
            embeddings.add(layer)
    foreign = [name for name in beside if OTHER_METHODS.search(name)]
    if foreign:
        raise InputError(f"{label}: {shown(foreign[0])} is of another method than LoRA, whose update is not s·BA")
    for layer, keys in found.items():
        if len(keys) < 2:
            raise InputError(f"{label}: {shown(layer)} has lora_{next(iter(keys))} without its other factor")
    if not found:
        raise InputError(f"{label}: has no layer with lora_A and lora_B, got {len(tensors)} keys: {some(beside)}")
    return [(layer, _Pair(x["A"], x["B"], layer in embeddings)) for layer, x in sorted(found.items())], beside


def _beside_notes(beside: list[str]) -> tuple[str, ...]:
    return (f"stored beside A and B, and no part of s·BA: {some(beside)}",) if beside else ()


def _unreadable(names: list[str]) -> InputError | None:
    """Say which other file is in the folder, and which tool converts it."""
    for name in names:
        kind = UNREADABLE.get(Path(name).suffix)
        if kind is not None:
            return InputError(f"folder: {shown(name)} is {kind}")
    return None


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
