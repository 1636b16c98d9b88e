"""Reads PEFT's `adapter_config.json`: the rank and the scaling of each layer, and how A was drawn."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from signal_drift.errors import InputError
from signal_drift.lora.scaling_rules import kaiming_sigma

CONFIG = "adapter_config.json"
NOT_DRAWN = {
    "pissa": "A from the singular vectors of W₀",
    "olora": "A from the QR decomposition of W₀",
    "loftq": "A from the error of quantising W₀",
    "corda": "A from W₀ and the covariance of its inputs",
    "eva": "A from the singular vectors of the inputs",
    "lora_ga": "A from the gradient at W₀",
    "mica": "A = 0 at the start, B from W₀",
    "orthogonal": "A and B drawn together, so that BA = 0 with B ≠ 0",
}
"""Initialisers whose σ_A no formula gives, by how their names begin; V2 is derived for random A and B = 0."""

V = TypeVar("V", int, float)


@dataclass(frozen=True)
class LoraConfig:
    """Holds PEFT's `LoraConfig` as far as it decides the map θ ↦ w and the draw of A; the names are PEFT's.

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
    modules_to_save: tuple[str, ...]
    stored: Mapping[str, Any]

    def rank(self, layer: str) -> int:
        """Return r of a layer."""
        return _of_layer(self.rank_pattern, layer, self.r)

    def scaling(self, layer: str) -> float:
        """Return the multiplier s = lora_alpha/r, or lora_alpha/√r with `use_rslora`."""
        r = self.rank(layer)
        return _of_layer(self.alpha_pattern, layer, self.lora_alpha) / (math.sqrt(r) if self.use_rslora else r)


def initial_sigma(init_lora_weights: bool | str, d_in: int, rank: int) -> float:
    """Return σ_A as PEFT draws A: 1/√(3 d_in) by default, also without initialisation, 1/r for "gaussian", or NaN."""
    if isinstance(init_lora_weights, bool):
        return kaiming_sigma(d_in)
    if init_lora_weights.lower() == "gaussian":
        return 1 / rank
    if not_drawn(init_lora_weights):
        return math.nan
    known = ["true", "false", "gaussian", *NOT_DRAWN]
    raise InputError(f"init_lora_weights: unknown {init_lora_weights!r}; known are {', '.join(known)}")


def not_drawn(init_lora_weights: bool | str) -> str:
    """Say what A is instead of random; the empty string for an A that is drawn."""
    name = str(init_lora_weights).lower()
    return next((reason for kind, reason in NOT_DRAWN.items() if name.startswith(kind)), "")


def read_config(folder: Path) -> LoraConfig:
    """Read the configuration in a folder.

    Raises `InputError` for a folder without one, for text that is none, and for values that make no sense.
    """
    path = folder / CONFIG
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"folder: {str(folder)!r} is no PEFT adapter, it has no {CONFIG}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{CONFIG}: cannot be read ({type(error).__name__})") from None
    if not isinstance(found, dict) or found.get("peft_type") != "LORA":
        kind = found.get("peft_type") if isinstance(found, dict) else type(found).__name__
        raise InputError(f"{CONFIG}: peft_type must be 'LORA', got {kind!r}")
    config = LoraConfig(
        r=_value(found, "r", int, 8),
        lora_alpha=_value(found, "lora_alpha", float, 8.0),
        use_rslora=_value(found, "use_rslora", bool, False),
        rank_pattern=_pattern(found, "rank_pattern", int),
        alpha_pattern=_pattern(found, "alpha_pattern", float),
        init_lora_weights=_initialiser(found),
        fan_in_fan_out=_value(found, "fan_in_fan_out", bool, False),
        use_dora=_value(found, "use_dora", bool, False),
        modules_to_save=tuple(found.get("modules_to_save") or ()),
        stored=found,
    )
    initial_sigma(config.init_lora_weights, 1, config.r)  # one it knows
    return config


def _of_layer(pattern: Mapping[str, V], layer: str, default: V) -> V:
    """Look a layer up as PEFT does: the first pattern that matches its whole name or the end of it after a dot."""
    return next((value for key, value in pattern.items() if re.match(rf"(.*\.)?({key})$", layer)), default)


def _value(found: Mapping[str, Any], name: str, kind: type, default: Any) -> Any:
    """The value of a field, or PEFT's default; numbers must be positive, and finite as JSON's are."""
    value = found.get(name, default)
    if value is None:
        return default
    accepted = (int, float) if kind is float else kind
    wrong = not isinstance(value, accepted) or (kind is not bool and isinstance(value, bool))
    if wrong or (kind is not bool and not 0 < value < math.inf):
        raise InputError(f"{CONFIG}: {name} must be {'true or false' if kind is bool else 'positive'}, got {value!r}")
    return kind(value)


def _pattern(found: Mapping[str, Any], name: str, kind: type) -> dict[str, Any]:
    pattern = found.get(name) or {}
    if not isinstance(pattern, dict):
        raise InputError(f"{CONFIG}: {name} must be an object, got {pattern!r}")
    for key in pattern:
        try:
            re.compile(key)
        except re.error as error:
            raise InputError(f"{CONFIG}: {name} has the key {key!r}, no regular expression ({error})") from None
    return {key: _value({f"{name}[{key!r}]": value}, f"{name}[{key!r}]", kind, None) for key, value in pattern.items()}


def _initialiser(found: Mapping[str, Any]) -> bool | str:
    value = found.get("init_lora_weights", True)
    if not isinstance(value, bool | str):
        raise InputError(f"{CONFIG}: init_lora_weights must be true, false or a name, got {value!r}")
    return {"true": True, "false": False}.get(value.lower(), value) if isinstance(value, str) else value
