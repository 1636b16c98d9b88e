"""Rescales an adapter on disk: α by V1 or V2, or such that s or s·√r stays at another rank; the rest is as it was."""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

from signal_drift.errors import InputError
from signal_drift.errors.words import printable, shown
from signal_drift.peft.config import check_plain, initial_sigma
from signal_drift.peft.export import LayerScaling, ScalingRule, drawn_sigma, exactly, peft_scaling, rule_alpha
from signal_drift.peft.files import AdapterFiles
from signal_drift.peft.planned import is_named
from signal_drift.peft.settings import CONFIG

Keep = Literal["s", "s√r", "s-sqrt-r"]
"""What stays at another rank; the last two are one."""
MOST = 2**31 - 1
"""The largest rank that is believed."""


class StoredScaling(NamedTuple):
    """Describes a stored layer but for its entries: the shape is (d_out, d_in), and W = W₀ + s·BA."""

    shape: tuple[int, int]
    r: int
    s: float
    embedding: bool


def stored_scaling(adapter: AdapterFiles) -> dict[str, StoredScaling]:
    """Read the shape, r and s of every layer; it takes the memory of the largest.

    Raises `InputError` for a setting with which no rule is derived and no pattern is for one pair (A, B).
    """
    check_plain(adapter.config)
    return {
        x.layer: StoredScaling((len(x.B), x.A.shape[1]), len(x.A), x.scaling, x.embedding) for x in adapter.layers()
    }


def linear_layers(layers: Mapping[str, StoredScaling]) -> dict[str, StoredScaling]:
    """Leave out the embeddings; raise `InputError` where nothing else is stored."""
    found = {layer: stored for layer, stored in layers.items() if not stored.embedding}
    if not found:
        raise InputError(f"folder: has no layer to scale, only embeddings, got {', '.join(map(repr, layers))}")
    return found


def kept_alpha(keep: Keep, stored: StoredScaling, rank: int) -> float:
    """Return α = s'·r' at another rank r', for s' = s or for s'·√r' = s·√r."""
    if keep not in get_args(Keep):
        raise InputError(f"by: must be V1, V2, s or s√r, got {keep!r}")
    return stored.s * (rank if keep == "s" else math.sqrt(stored.r * rank))


def rescaled(
    layers: Mapping[str, StoredScaling],
    by: ScalingRule | Keep,
    sigma: Callable[[int, int], float],
    rank: int | None = None,
) -> dict[str, LayerScaling]:
    """Compute α of every layer by a rule, for σ_A = `sigma(d_in, r)`, or by what is kept; at its own rank or at `rank`.

    No rule is for embeddings: they keep their s. Raises `InputError` for a rank that is none, and for a rule where
    only embeddings are stored.
    """
    if rank is not None and not 1 <= rank <= MOST:
        raise InputError(f"rank: must be from 1 to {MOST}, got {rank}")
    ranks = {layer: stored.r if rank is None else rank for layer, stored in layers.items()}
    if by not in ("V1", "V2"):
        return {layer: LayerScaling(r, kept_alpha(by, layers[layer], r)) for layer, r in ranks.items()}
    alphas = {layer: kept_alpha("s", layers[layer], r) for layer, r in ranks.items()}
    for layer, stored in linear_layers(layers).items():
        alphas[layer] = rule_alpha(by, ranks[layer], sigma(stored.shape[1], ranks[layer]))
    return {layer: LayerScaling(r, alphas[layer]) for layer, r in ranks.items()}


def rescaled_config(
    adapter: AdapterFiles,
    by: ScalingRule | Keep,
    *,
    rank: int | None = None,
    init_lora_weights: bool | str | None = None,
    use_rslora: bool = True,
    integers: bool = False,
) -> dict[str, Any]:
    """Make the `peft.LoraConfig` of an adapter on disk anew: what its file has stays, but for the fields that scale.

    `init_lora_weights` is another initialiser, which V2 is then for. `target_modules` stays where it is an expression
    or lists the stored layers; else it becomes the expression for these. PEFT sets `inference_mode`, with which nothing
    is trained, in every file that it writes; it becomes false. Raises `InputError` as `rescaled` and `peft_scaling` do,
    under a rule for an initialiser that does not draw A at random with B = 0, for the names of diffusers or kohya, and
    for a NaN or an infinite number in what stays, which JSON has not.
    """
    if adapter.layout.name == "single file":
        raise InputError(
            f"folder: has layers of other tools, which PEFT does not know, got {adapter.layout.places[0].layer!r}"
        )
    stored, init = adapter.config.stored, init_lora_weights
    if init is not None:
        initial_sigma(init, 1, 1)  # one it knows
    drawn = partial(drawn_sigma, adapter.config.init_lora_weights if init is None else init)
    layers = rescaled(stored_scaling(adapter), by, drawn, rank)
    _check_json(stored)
    return {
        "peft_type": "LORA",
        **stored,
        **peft_scaling(layers, use_rslora=use_rslora, integers=integers),
        **_selection(stored, layers),
        **({} if init is None else {"init_lora_weights": init}),
        **({"inference_mode": False} if "inference_mode" in stored else {}),
    }


def _check_json(stored: Mapping[str, Any]) -> None:
    for name, value in stored.items():
        try:
            json.dumps(value, allow_nan=False)
        except ValueError:
            raise InputError(f"{CONFIG}: {printable(name)} must be JSON, without NaN, got {shown(value)}") from None


def _selection(stored: Mapping[str, Any], layers: Iterable[str]) -> dict[str, Any]:
    """Change what selects the layers, for PEFT to select these: nothing but where no list or expression names them.

    An expression is of unknown origin, may take for ever, and is not evaluated.
    """
    targets = stored.get("target_modules")
    if isinstance(targets, str) or (isinstance(targets, list) and all(is_named(layer, targets) for layer in layers)):
        return {}
    others = {k: None for k in ("exclude_modules", "layers_to_transform", "layers_pattern") if k in stored}
    return {"target_modules": exactly(layers), **others}
