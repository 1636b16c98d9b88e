"""Translates the settings of a PEFT adapter into another tool's, such that training moves the weights alike (X4)."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple, cast, get_args

import numpy as np

from signal_drift.display import span
from signal_drift.errors import InputError
from signal_drift.errors.arguments import is_real
from signal_drift.errors.words import shown
from signal_drift.lora.scaling_rules import kaiming_sigma
from signal_drift.peft.config import LoraConfig, check_stated, initial_sigma, not_drawn
from signal_drift.peft.export import LayerScaling, qwix_scaling
from signal_drift.peft.files import AdapterFiles
from signal_drift.peft.rescale import linear_layers, rescaled_config, stored_scaling
from signal_drift.peft.settings import CONFIG, some

Tool = Literal["qwix", "nnx", "keras", "kohya", "peft-rslora"]


class Gauge(NamedTuple):
    """Says what a layer is in another tool: s' = s/(pq), A drawn and moved p times as far, B moved q times as far (X4).

    Under an optimizer that does not see how large a gradient is (Adam with ε → 0, sign descent, Muon) the rates become
    p·η_A and q·η_B; under gradient descent, with momentum or without, p²·η_A and q²·η_B. `sigma_a` is p·σ_A.
    """

    r: int
    s: float
    sigma_a: float
    p: float
    q: float


class Translation(NamedTuple):
    """Holds the settings in the tool's own words, what every layer then is, and what cannot be carried over."""

    tool: Tool
    settings: Any
    layers: Mapping[str, Gauge]
    not_carried_over: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as JSON has it; the rates are multiples of those with which PEFT trains A and B."""
        return {
            "to": self.tool,
            "settings": self.settings,
            "layers": {layer: _entry(gauge) for layer, gauge in self.layers.items()},
            "not carried over": list(self.not_carried_over),
        }


def translate(adapter: AdapterFiles, to: Tool) -> Translation:
    """Give the settings of a tool with which W₀ + s·BA moves from B = 0 on as with the adapter's settings in PEFT.

    In qwix and Keras s and σ_A can be set, in PEFT with rsLoRA lora_alpha = s√r, and no rate changes. `nnx.LoRA` has
    no α, s' = 1: q = s. kohya draws A by kaiming_uniform and is taken to have one rate: p = q = σ_A'/σ_A. Raises
    `InputError` for a configuration without r or lora_alpha, for an initialiser that does not draw A at random with
    B = 0, for DoRA and other maps, for the files of other tools than PEFT, for an adapter of embeddings alone, and for
    convolutions but within PEFT.
    """
    as_tool(to)
    config = adapter.config
    if adapter.layout.name != "PEFT":
        raise InputError(f"folder: must be PEFT's, got one of the kind {adapter.layout.name!r}")
    if config.use_dora:
        raise InputError(f"{CONFIG}: use_dora is set, and X4 is about W₀ + s·BA")
    check_stated(config)
    dropout = _dropout(config)
    _check_linear(adapter, to)
    init = config.init_lora_weights
    if init is False or not_drawn(init):
        raise InputError(f"init_lora_weights: must draw A at random and set B = 0, as X4 asks, got {init!r}")
    stored = stored_scaling(adapter)
    gauges = {}
    for layer, (shape, r, s, _) in linear_layers(stored).items():
        sigma = initial_sigma(init, shape[1], r)
        wider = kaiming_sigma(shape[1]) / sigma
        p, q = {"nnx": (1.0, s), "kohya": (wider, wider)}.get(to, (1.0, 1.0))
        gauges[layer] = Gauge(r, s / (p * q), p * sigma, p, q)
    embeddings = [layer for layer in stored if layer not in gauges]
    left = (*_of_optimizer(gauges), *_of_settings(adapter, to, gauges, embeddings, dropout))
    return Translation(to, _settings(adapter, to, gauges, dropout), gauges, left)


def as_tool(to: str) -> Tool:
    """Return the tool of a name; raise `InputError`, which names all, for another."""
    if to not in get_args(Tool):
        raise InputError(f"to: must be one of {', '.join(get_args(Tool))}, got {shown(to)}")
    return cast(Tool, to)


def _check_linear(adapter: AdapterFiles, to: Tool) -> None:
    for place in adapter.layout.places:
        shape = adapter.layout.tensors[place.A].shape
        if to != "peft-rslora" and len(shape) > 2:
            needed = (
                "kohya needs conv_dim and conv_alpha for it" if to == "kohya" else f"{to} has no setting for it here"
            )
            raise InputError(f"folder: {shown(place.layer)} must be linear, got a convolution, A {shape}; {needed}")


def _settings(adapter: AdapterFiles, to: Tool, gauges: Mapping[str, Gauge], dropout: float) -> Any:
    if to == "peft-rslora":
        return rescaled_config(adapter, "s", use_rslora=True)
    if to == "kohya":
        (r, alpha), _ = Counter((g.r, g.s * g.r) for g in gauges.values()).most_common(1)[0]
        return {"network_module": "networks.lora", "network_dim": r, "network_alpha": alpha}
    if to == "nnx":
        return {k: {"lora_rank": g.r, "a_initializer": _initializer(adapter, to, g.r)} for k, g in gauges.items()}
    if to == "keras":
        return {
            k: {"rank": g.r, "lora_alpha": g.s * g.r, "a_initializer": _initializer(adapter, to, g.r)}
            for k, g in gauges.items()
        }
    rules = qwix_scaling({k: LayerScaling(g.r, g.s * g.r) for k, g in gauges.items()})
    return [
        {**rule, **({"dropout": dropout} if dropout else {}), "lora_a_initializer": _initializer(adapter, to, g.r)}
        for rule, g in zip(rules, gauges.values(), strict=True)
    ]


def _initializer(adapter: AdapterFiles, to: Tool, r: int) -> str:
    """PEFT's way to draw A as an expression, for A stored as (d_in, r): uniform of variance 1/(3 d_in), or normal."""
    if isinstance(adapter.config.init_lora_weights, bool):
        kind = "keras.initializers.VarianceScaling" if to == "keras" else "jax.nn.initializers.variance_scaling"
        return f"{kind}(1/3, 'fan_in', 'uniform')"
    return f"keras.initializers.RandomNormal(stddev=1/{r})" if to == "keras" else f"jax.nn.initializers.normal(1/{r})"


def _of_optimizer(gauges: Mapping[str, Gauge]) -> Iterator[str]:
    """Name what sees the scale of A and B, or of their gradients, which are 1/p and 1/q times as large."""
    every = {(g.p, g.q) for g in gauges.values()}
    if every == {(1.0, 1.0)}:
        return
    p, q = (span(np.array([x[i] for x in sorted(every)])) for i in (0, 1))
    yield f"Adam's ε: as ε/p for A and ε/q for B, p = {p}, q = {q}; one ε for both is another trajectory"
    yield "decoupled weight decay λ (AdamW): as λ/p for A and λ/q for B; one λ for both is another trajectory"
    if len(every) == 1 and len({*next(iter(every))}) == 1:
        yield "clipping by the norm of the gradients: at 1/p of the threshold"
    else:
        yield "clipping by the norm of all gradients: at no threshold, for those of A and of B change by other factors"


def _of_settings(
    adapter: AdapterFiles, to: Tool, gauges: Mapping[str, Gauge], embeddings: list[str], dropout: float
) -> Iterator[str]:
    if to == "peft-rslora":
        return
    if to == "kohya":
        if not isinstance(adapter.config.init_lora_weights, bool):
            yield "the draw of A: kohya's is uniform, this one normal; σ_A is the same"
        for name, values in (
            ("network_dim", {g.r for g in gauges.values()}),
            ("network_alpha", {g.s * g.r for g in gauges.values()}),
            ("the rate, in multiples of PEFT's,", {g.p for g in gauges.values()}),
        ):
            if len(values) > 1:
                yield f"{name} of every layer: {span(np.array(sorted(values)))}, of which kohya takes one"
    if dropout and to != "qwix":
        yield f"lora_dropout = {dropout:g}, of the inputs of A, which {to} has not"
    if embeddings:
        yield f"the embeddings {some(embeddings)}"
    yield from adapter.config.notes


def _dropout(config: LoraConfig) -> float:
    value = config.stored.get("lora_dropout")
    if value is None:
        return 0.0
    if not is_real(value) or not 0 <= value < 1:
        raise InputError(f"{CONFIG}: lora_dropout must be at least 0 and below 1, got {shown(value)}")
    return float(value)


def _entry(g: Gauge) -> dict[str, Any]:
    return {
        "r": g.r,
        "alpha": g.s * g.r,
        "s": g.s,
        "sigma_a": g.sigma_a,
        "rates": {
            "Adam (ε → 0), sign descent, Muon": {"A": g.p, "B": g.q},
            "gradient descent": {"A": g.p**2, "B": g.q**2},
        },
    }
