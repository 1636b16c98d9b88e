"""Writes V1 and V2 as settings of other tools: PEFT's LoraConfig, qwix rules, nnx.LoRA initialisers, folded factors."""

import math
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

from signal_drift.errors import InputError
from signal_drift.lora.adapters import Adapter, Adapters, Scaling, per_layer
from signal_drift.lora.scaling_rules import alpha_base, empirical_alpha_base
from signal_drift.peft.config import initial_sigma

ScalingRule = Literal["V1", "V2"]
Shapes = Mapping[str, tuple[int, int]]


class LayerScaling(NamedTuple):
    """Says what a layer's update is multiplied by, s = alpha/r, whatever a tool calls it."""

    r: int
    alpha: float


def rule_alpha(rule: ScalingRule, rank: int, sigma_a: float) -> float:
    """Return α in W = W₀ + (α/r)·BA by V1, 256√r, or V2, √r/σ_A (Eq. 5)."""
    if rule not in ("V1", "V2"):
        raise InputError(f"rule: must be 'V1' or 'V2', got {rule!r}")
    return empirical_alpha_base(rank) if rule == "V1" else alpha_base(rank, sigma_a)


def peft_config(
    shapes: Shapes,
    rank: int | Mapping[str, int],
    rule: ScalingRule,
    *,
    init_lora_weights: bool | str = True,
    use_rslora: bool = True,
    integers: bool = False,
) -> dict[str, Any]:
    """Make the arguments of `peft.LoraConfig(**…)`, which are JSON too, for layers of these shapes (d_out, d_in).

    `use_rslora`, with which s = lora_alpha/√r, makes V1 `lora_alpha = 256` and V2 `lora_alpha = 1/σ_A` at every rank;
    without it lora_alpha = α. `integers` rounds, for tools that read nothing else; no α is below 1. Raises `InputError`
    for an initialiser that does not draw A at random with B = 0.
    """
    layers = {}
    for layer, r in per_layer("rank", rank, shapes).items():
        sigma = drawn_sigma(init_lora_weights, shapes[layer][1], int(r))
        layers[layer] = LayerScaling(int(r), rule_alpha(rule, int(r), sigma))
    return {
        "peft_type": "LORA",
        **peft_scaling(layers, use_rslora=use_rslora, integers=integers),
        "target_modules": exactly(layers),
        "init_lora_weights": init_lora_weights,
    }


def peft_scaling(
    layers: Mapping[str, LayerScaling], *, use_rslora: bool = True, integers: bool = False
) -> dict[str, Any]:
    """Make the five fields of `peft.LoraConfig` that scale: s = lora_alpha/√r with `use_rslora`, else lora_alpha/r.

    Layers whose r or lora_alpha differ from the commonest go into `rank_pattern` and `alpha_pattern` under their whole
    names, anchored: no two patterns match one layer, so their order, which PEFT may change, does not matter. Raises
    `InputError` for an lora_alpha that is not positive and finite, or that `integers` rounds to 0.
    """
    ranks = {layer: r for layer, (r, _) in layers.items()}
    alphas = {layer: alpha / (math.sqrt(r) if use_rslora else 1) for layer, (r, alpha) in layers.items()}
    settings = {layer: _setting(layer, alpha, integers) for layer, alpha in alphas.items()}
    r, lora_alpha = (Counter(values.values()).most_common(1)[0][0] for values in (ranks, settings))
    return {
        "r": r,
        "lora_alpha": lora_alpha,
        "use_rslora": use_rslora,
        "rank_pattern": {_anchored(k): value for k, value in ranks.items() if value != r},
        "alpha_pattern": {_anchored(k): value for k, value in settings.items() if value != lora_alpha},
    }


def exactly(layers: Iterable[str]) -> str:
    """Write the `target_modules` that select these layers and no other: one expression, for a whole name."""
    return "|".join(re.escape(layer) for layer in layers)


def as_python(config: Mapping[str, Any]) -> str:
    """Write the arguments of `peft_config` as a line of Python."""
    return f"peft.LoraConfig({', '.join(f'{k}={v!r}' for k, v in config.items() if k != 'peft_type')})"


def qwix_rules(shapes: Shapes, rank: int | Mapping[str, int], rule: ScalingRule) -> list[dict[str, Any]]:
    """Make the arguments of a `qwix.LoraRule` for each layer by V1, or by V2 for A as qwix draws it: `he_sigma`."""
    ranks = per_layer("rank", rank, shapes)
    return qwix_scaling(
        {k: LayerScaling(int(r), rule_alpha(rule, int(r), he_sigma(shapes[k][1]))) for k, r in ranks.items()}
    )


def qwix_scaling(layers: Mapping[str, LayerScaling]) -> list[dict[str, Any]]:
    """Make the arguments of a `qwix.LoraRule` for each layer: s = alpha/rank."""
    return [
        {"module_path": re.escape(layer.replace(".", "/")), "rank": r, "alpha": alpha}
        for layer, (r, alpha) in layers.items()
    ]


def he_sigma(d_in: int) -> float:
    """Return σ_A = √(2/d_in), that of he_uniform: how qwix and flax draw A."""
    return math.sqrt(2 / d_in)


class NnxLoRA(NamedTuple):
    """Says how an `nnx.LoRA`, whose s is 1, follows the trajectory of s ≠ 1: A drawn and moved s times as far (X4)."""

    sigma_a: float
    rate_a: float


def nnx_lora(shapes: Shapes, rank: int | Mapping[str, int], rule: ScalingRule) -> dict[str, NnxLoRA]:
    """Compute how A is to be drawn and moved for a layer's `nnx.LoRA` to follow the rule under Adam from B = 0.

    σ_A goes into `a_initializer=jax.nn.initializers.normal(σ_A)`, and `rate_a` multiplies the learning rate of A. By X4
    with p = s = α/r and q = 1, (α, σ_A, η_A, η_B) becomes (r, s·σ_A, s·η_A, η_B), where σ_A was √(2/d_in), that of
    flax's own initialiser.
    """

    def layer(d_in: int, r: int) -> NnxLoRA:
        sigma = he_sigma(d_in)
        s = rule_alpha(rule, r, sigma) / r
        return NnxLoRA(s * sigma, s)

    return {k: layer(shapes[k][1], int(r)) for k, r in per_layer("rank", rank, shapes).items()}


def fold(adapters: Adapters, scaling: Scaling, onto: Scaling = 1.0) -> dict[str, Adapter]:
    """Replace B by (s/s')·B: s·BA then has the scaling s' = `onto`, which a tool reading only lora_alpha applies."""
    s, new = (per_layer(name, value, adapters) for name, value in (("scaling", scaling), ("onto", onto)))
    return {k: Adapter(A, B * (s[k] / new[k])) for k, (A, B) in adapters.items()}


def drawn_sigma(init_lora_weights: bool | str, d_in: int, rank: int) -> float:
    """Return σ_A of an initialiser that draws A at random and sets B = 0; raise `InputError` for any other."""
    sigma = initial_sigma(init_lora_weights, d_in, rank)
    if init_lora_weights is False or math.isnan(sigma):
        raise InputError(
            f"init_lora_weights: must draw A at random and set B = 0, got {init_lora_weights!r}; "
            "name another for the new configuration, true or gaussian, on the command line by --init"
        )
    return sigma


def _setting(layer: str, alpha: float, integers: bool) -> float | int:
    """lora_alpha as it is written, an integer where it is one but for the rounding of a root and two quotients."""
    if not 0 < alpha < math.inf:
        raise InputError(f"scaling: must give {layer!r} a positive and finite lora_alpha, got {alpha}")
    if integers and not round(alpha):
        raise InputError(f"integers: would round the lora_alpha of {layer!r} to 0, got {alpha}")
    near = math.isclose(alpha, round(alpha), rel_tol=4 * sys.float_info.epsilon)
    return round(alpha) if integers or near else alpha


def _anchored(layer: str) -> str:
    return f"^{re.escape(layer)}"
