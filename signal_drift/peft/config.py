"""Reads PEFT's `adapter_config.json`: the rank and the scaling of each layer, and how A was drawn."""

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from signal_drift.errors import InputError
from signal_drift.errors.words import printable, shown
from signal_drift.files.tensors import file_in, read_json
from signal_drift.lora.scaling_rules import kaiming_sigma
from signal_drift.peft.patterns import check_patterns, of_layer
from signal_drift.peft.settings import CONFIG, setting_notes

NOT_DRAWN = {
    "pissa": "A from the singular vectors of W₀",
    "olora": "A from the QR decomposition of W₀",
    "loftq": "A from the error of quantising W₀",
    "corda": "A from W₀ and the covariance of its inputs",
    "eva": "A from the singular vectors of the inputs",
    "lora_ga": "A from the gradient at W₀",
    "mica": "A = 0 at the start, B from W₀",
    "orthogonal": "A and B drawn together, so that BA = 0 with B ≠ 0",
    "not stored": "how A was drawn is not stored",
}
"""Initialisers whose σ_A no formula gives, by how their names begin; V2 is derived for random A and B = 0."""

OTHER_MAPS = ("use_qalora", "use_bdlora", "target_parameters")
"""Settings with which A or B is not full, or a layer has several of them."""


class Blocks(NamedTuple):
    """Holds BD-LoRA's settings: layers whose name contains one of these have A, or B, of n diagonal blocks."""

    n: int
    of_a: tuple[str, ...]
    of_b: tuple[str, ...]


@dataclass(frozen=True)
class LoraConfig:
    """Holds PEFT's `LoraConfig` as far as it decides the map θ ↦ w and the draw of A; the names are PEFT's.

    `qalora_group_size` and `blocks` are None where A and B are plain. `notes` say what other fields do, and
    `stored` is the whole object as the file has it.
    """

    r: int
    lora_alpha: float
    use_rslora: bool
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    init_lora_weights: bool | str
    fan_in_fan_out: bool
    use_dora: bool
    qalora_group_size: int | None
    blocks: Blocks | None
    target_parameters: tuple[str, ...]
    notes: tuple[str, ...]
    stored: Mapping[str, Any]

    def rank(self, layer: str) -> int:
        """Return r of a layer."""
        return of_layer(self.rank_pattern, layer, self.r)

    def scaling(self, layer: str) -> float:
        """Return the multiplier s = lora_alpha/r, or lora_alpha/√r with `use_rslora`."""
        r = self.rank(layer)
        return of_layer(self.alpha_pattern, layer, self.lora_alpha) / (math.sqrt(r) if self.use_rslora else r)


def initial_sigma(init_lora_weights: bool | str, d_in: int, rank: int) -> float:
    """Return σ_A as PEFT draws A: 1/√(3 d_in) by default, also without initialisation, 1/r for "gaussian", or NaN."""
    if isinstance(init_lora_weights, bool):
        return kaiming_sigma(d_in)
    if init_lora_weights.lower() == "gaussian":
        return 1 / rank
    if not_drawn(init_lora_weights):
        return math.nan
    known = ["true", "false", "gaussian", *NOT_DRAWN]
    raise InputError(f"init_lora_weights: unknown {shown(init_lora_weights)}; known are {', '.join(known)}")


def not_drawn(init_lora_weights: bool | str) -> str:
    """Say what A is instead of random; the empty string for an A that is drawn."""
    name = str(init_lora_weights).lower()
    return next((reason for kind, reason in NOT_DRAWN.items() if name.startswith(kind)), "")


def check_plain(config: LoraConfig) -> None:
    """Raise `InputError` for a setting with which a layer has not one full A and one full B."""
    for name in OTHER_MAPS:
        if config.stored.get(name):
            raise InputError(f"{CONFIG}: {name} is set, but α is here for one full A and B of each layer")


def check_stated(config: LoraConfig) -> None:
    """Raise `InputError` where r or lora_alpha is missing or null: PEFT's defaults are not taken to be meant."""
    for name in ("r", "lora_alpha"):
        if config.stored.get(name) is None:
            raise InputError(f"{CONFIG}: {name} must be there, for s is made of r and lora_alpha, got {name} missing")


def start_notes(init_lora_weights: bool | str) -> tuple[str, ...]:
    """Say why V2 does not apply where an initialiser does not draw A alone at random; nothing where it does."""
    if init_lora_weights is False:
        return ("B was random too: V2 is derived for B = 0 at the start",)
    reason = not_drawn(init_lora_weights)
    return (f"{reason}: σ_A and V2 do not apply",) if reason else ()


def read_config(folder: Path) -> LoraConfig:
    """Read the configuration in a folder.

    Raises `InputError` for a folder without one, for text that is none, and for values that make no sense.
    """
    path = file_in(folder, CONFIG)
    if path is None:
        raise InputError(f"folder: {shown(str(folder))} is no PEFT adapter, it has no {CONFIG}")
    return peft_lora(read_json(path))


def peft_lora(found: Any) -> LoraConfig:
    """Check what `adapter_config.json` holds, which must be LoRA's settings as PEFT stores them."""
    if not isinstance(found, dict) or found.get("peft_type") != "LORA":
        kind = found.get("peft_type") if isinstance(found, dict) else type(found).__name__
        raise InputError(f"{CONFIG}: peft_type must be 'LORA', got {shown(kind)}")
    return lora_config(found)


def lora_config(stored: Mapping[str, Any]) -> LoraConfig:
    """Check the fields of an object as `adapter_config.json` holds it; those that are missing are PEFT's defaults."""
    qalora = field(stored, "use_qalora", bool, False)
    config = LoraConfig(
        r=field(stored, "r", int, 8),
        lora_alpha=field(stored, "lora_alpha", float, 8.0),
        use_rslora=field(stored, "use_rslora", bool, False),
        rank_pattern=_pattern(stored, "rank_pattern", int),
        alpha_pattern=_pattern(stored, "alpha_pattern", float),
        init_lora_weights=_initialiser(stored),
        fan_in_fan_out=field(stored, "fan_in_fan_out", bool, False),
        use_dora=field(stored, "use_dora", bool, False),
        qalora_group_size=field(stored, "qalora_group_size", int, 16) if qalora else None,
        blocks=_blocks(stored.get("use_bdlora")),
        target_parameters=_names(stored, "target_parameters"),
        notes=setting_notes(stored),
        stored=stored,
    )
    initial_sigma(config.init_lora_weights, 1, config.r)  # one it knows
    return config


def field(found: Mapping[str, Any], name: str, kind: type, default: Any) -> Any:
    """Return the value of a field, or its default; numbers must be positive, and finite as JSON's are."""
    value = default if found.get(name) is None else found[name]
    accepted = (int, float) if kind is float else kind
    wrong = not isinstance(value, accepted) or (kind is not bool and isinstance(value, bool))
    if wrong or (kind is not bool and not 0 < value <= sys.float_info.max):
        must = "true or false" if kind is bool else "positive"
        raise InputError(f"{CONFIG}: {printable(name)} must be {must}, got {shown(value)}")
    return kind(value)


def _pattern(found: Mapping[str, Any], name: str, kind: type) -> dict[str, Any]:
    pattern = found.get(name) or {}
    if not isinstance(pattern, dict):
        raise InputError(f"{CONFIG}: {name} must be an object, got {shown(pattern)}")
    check_patterns(name, list(pattern))
    return {
        key: field({f"{name}[{shown(key)}]": value}, f"{name}[{shown(key)}]", kind, None)
        for key, value in pattern.items()
    }


def _initialiser(found: Mapping[str, Any]) -> bool | str:
    value = found.get("init_lora_weights", True)
    if not isinstance(value, bool | str):
        raise InputError(f"{CONFIG}: init_lora_weights must be true, false or a name, got {shown(value)}")
    return {"true": True, "false": False}.get(value.lower(), value) if isinstance(value, str) else value


def _blocks(found: Any) -> Blocks | None:
    if not found:
        return None
    if not isinstance(found, dict):
        raise InputError(f"{CONFIG}: use_bdlora must be an object, got {shown(found)}")
    names = (_names(found, f"target_modules_bd_{x}") for x in "ab")
    return Blocks(field(found, "nblocks", int, 1), *names)


def _names(found: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = found.get(name) or []
    if not (isinstance(value, list) and all(isinstance(x, str) for x in value)):
        raise InputError(f"{CONFIG}: {name} must be a list of names, got {shown(value)}")
    return tuple(value)
