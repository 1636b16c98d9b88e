"""Writes V1 and V2 as settings of other tools: PEFT's LoraConfig, qwix rules, nnx.LoRA initialisers, folded factors."""

import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from signal_drift.errors import InputError
from signal_drift.lora.adapters import Adapter, Adapters, Scaling, per_layer
from signal_drift.lora.scaling_rules import alpha_base, empirical_alpha_base
from signal_drift.peft.config import initial_sigma

ScalingRule = Literal["V1", "V2"]
Shapes = Mapping[str, tuple[int, int]]


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
    without it lora_alpha = α. Layers whose r or α differ from the commonest go into `rank_pattern` and `alpha_pattern`
    under their whole names, anchored: no two patterns match one layer, so their order, which PEFT may change, does
    not matter. `integers` rounds, for tools that read nothing else; no α is below 1. Raises `InputError` for
    an initialiser that does not draw A at random with B = 0.
    """
    ranks = {layer: int(r) for layer, r in per_layer("rank", rank, shapes).items()}
    alphas = {}
    for layer, r in ranks.items():
        sigma = _sigma(init_lora_weights, shapes[layer][1], r)
        alpha = rule_alpha(rule, r, sigma) / (math.sqrt(r) if use_rslora else 1)
        alphas[layer] = round(alpha) if integers else _plain(alpha)
    r, lora_alpha = (Counter(values.values()).most_common(1)[0][0] for values in (ranks, alphas))
    return {
        "peft_type": "LORA",
        "r": r,
        "lora_alpha": lora_alpha,
        "use_rslora": use_rslora,
        "rank_pattern": {_anchored(k): value for k, value in ranks.items() if value != r},
        "alpha_pattern": {_anchored(k): value for k, value in alphas.items() if value != lora_alpha},
        "target_modules": "|".join(re.escape(layer) for layer in ranks),
        "init_lora_weights": init_lora_weights,
    }


def as_python(config: Mapping[str, Any]) -> str:
    """Write the arguments of `peft_config` as a line of Python."""
    return f"peft.LoraConfig({', '.join(f'{k}={v!r}' for k, v in config.items() if k != 'peft_type')})"


def qwix_rules(shapes: Shapes, rank: int | Mapping[str, int], rule: ScalingRule) -> list[dict[str, Any]]:
    """Make the arguments of a `qwix.LoraRule` for each layer: s = alpha/rank, A of variance 2/d_in (he_uniform)."""
    return [
        {
            "module_path": re.escape(layer.replace(".", "/")),
            "rank": int(r),
            "alpha": rule_alpha(rule, int(r), math.sqrt(2 / shapes[layer][1])),
        }
        for layer, r in per_layer("rank", rank, shapes).items()
    ]


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
        sigma = math.sqrt(2 / d_in)
        s = rule_alpha(rule, r, sigma) / r
        return NnxLoRA(s * sigma, s)

    return {k: layer(shapes[k][1], int(r)) for k, r in per_layer("rank", rank, shapes).items()}


def fold(adapters: Adapters, scaling: Scaling, onto: Scaling = 1.0) -> dict[str, Adapter]:
    """Replace B by (s/s')·B: s·BA then has the scaling s' = `onto`, which a tool reading only lora_alpha applies."""
    s, new = (per_layer(name, value, adapters) for name, value in (("scaling", scaling), ("onto", onto)))
    return {k: Adapter(A, B * (s[k] / new[k])) for k, (A, B) in adapters.items()}


def _sigma(init_lora_weights: bool | str, d_in: int, rank: int) -> float:
    sigma = initial_sigma(init_lora_weights, d_in, rank)
    if init_lora_weights is False or math.isnan(sigma):
        raise InputError(f"init_lora_weights: must draw A at random and set B = 0, got {init_lora_weights!r}")
    return sigma


def _plain(alpha: float) -> float | int:
    """An integer where it is one but for rounding, as 256 is in V1."""
    return round(alpha) if math.isclose(alpha, round(alpha), rel_tol=1e-12) else alpha


def _anchored(layer: str) -> str:
    return f"^{re.escape(layer)}"
