"""Advises on an adapter before it is trained, from its configuration and one gradient at W₀.

Where training begins B = 0 and A is random: what is computed is that of this start, whatever factors are stored.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from signal_drift.display import LINES, Table, displayed_as, number, span
from signal_drift.errors import InputError
from signal_drift.errors.words import printable, shown
from signal_drift.files import find_weights, read_tensor
from signal_drift.files.tensors import Stored, list_tensors
from signal_drift.lora.adapters import Adapter, init_adapters, kaiming_uniform
from signal_drift.lora.scaling_rules import alpha_base, crossover_alpha, empirical_alpha_base
from signal_drift.models.llama import load_llama
from signal_drift.models.llama.hugging_face import matrix_names
from signal_drift.peft.config import LoraConfig, start_notes
from signal_drift.peft.planned import Plan, PlannedLayer, plan_layers
from signal_drift.peft.settings import some
from signal_drift.propositions.closed_forms import first_step_descent, first_step_size
from signal_drift.spectra.exact import spectral_norm
from signal_drift.text_audit import Point, finite_gradient, signal_largest, text_task

EPSILON = 1e-8
"""Adam's ε by default, beside which a smaller entry of G moves by less than η."""
Seen = Callable[[str, int], None]
"""What is told the name of each layer before it is looked at, and how many there are."""
SEED = 0
"""Of A, where λmax[H_Signal] is searched at one draw of it."""


class LayerAdvice(NamedTuple):
    """Describes one layer where training begins, with W = W₀ + s·BA, B = 0, α = s·r and G = ∇_W ℓ there.

    `gradient_norm` is σ₁(G), and `drift_largest` = s·σ₁(G) is λmax[H_Drift] (X1). `signal_largest` is λmax[H_Signal],
    to ± `signal_error`, at one draw of A, and `crossover` the α_c at which both are equal (X16); NaN where only G is
    known, or the search leaves open whether it is positive. `sigma` is σ_A, `v1` and `v2` are the α of both rules.
    `step_size` is √E‖ΔW₁‖_F²/‖ΔW_FFT‖_F and `step_descent` E⟨ΔW₁, −G⟩/⟨ΔW_FFT, −G⟩ of a first step by signs against
    that of full fine-tuning at the same η, over Gaussian A (X8); both are ∝ α, and `step_alpha` is the α with a size
    of 1. For a uniform A they are as near as rows of G have many entries of note. `below_epsilon` is the share of the
    entries that are not 0 but below ε = 1e-8, by which full fine-tuning steps less far than by signs.
    """

    layer: str
    shape: tuple[int, int]
    rank: int
    scaling: float
    alpha: float
    sigma: float
    gradient_norm: float
    drift_largest: float
    signal_largest: float
    signal_error: float
    crossover: float
    v1: float
    v2: float
    step_alpha: float
    step_size: float
    step_descent: float
    below_epsilon: float


@dataclass(frozen=True, repr=False)
class Advice:
    """Holds every adapted layer, in the order of their names, and what has to be known to read them.

    `loss` is that of the text over `predicted` tokens; both are None where only a gradient was given.
    """

    layers: tuple[LayerAdvice, ...]
    notes: tuple[str, ...]
    loss: float | None = None
    predicted: int | None = None


def advise_from_gradient(adapter: str | Path, gradient: str | Path, seen: Seen | None = None) -> Advice:
    """Compute what a saved gradient tells of an adapter's scaling, a layer at a time: all but λmax[H_Signal] and α_c.

    `gradient` is a safetensors file, or a folder with model.safetensors or its shards and their index, with ∇_W ℓ of
    each layer as (d_out, d_in), named as the layer or as its parameter `.weight`. It takes the memory of the largest
    layer. Raises `InputError` where `plan_layers` does, for a damaged file, and for a gradient that is not finite.
    """
    path = Path(gradient)
    stored = _by_layer(find_weights(path) if path.is_dir() else list_tensors(path)[0], "gradient")
    plan = plan_layers(adapter, "gradient", {layer: x.shape for layer, (_, x) in stored.items()})
    layers = []
    for x in _told(plan.layers, seen):
        layers.append(_advice(x, _finite(*stored[x.layer])))
    alone = "λmax[H_Signal] and α_c are not known from a gradient alone: they need the loss, --model and --text"
    return Advice(tuple(layers), (alone, *_notes(plan, layers)))


def advise_on_text(adapter: str | Path, model: str | Path, text: str, seen: Seen | None = None) -> Advice:
    """Compute the same of a text's mean next-token loss, with λmax[H_Signal] and α_c of each layer's own block.

    `model` is a Hugging Face folder as `audit_on_text` takes it, and A is drawn as the configuration says, once. Raises
    `InputError` as `advise_from_gradient` and `audit_on_text` do.
    """
    decoder = load_llama(model)
    paths = matrix_names(decoder)
    stored = _by_layer(find_weights(Path(model)), "model")
    plan = plan_layers(adapter, "model", {layer: stored[layer][1].shape for layer in paths})
    task = text_task(decoder, Path(model), {paths[x.layer] for x in plan.layers}, text)
    value, gradient = finite_gradient(task.loss, task.base)
    theta = start(plan.config, task.base, {paths[x.layer]: x.rank for x in plan.layers})
    point = Point(task.loss, task.base, theta, {paths[x.layer]: x.scaling for x in plan.layers})
    layers = []
    for x in _told(plan.layers, seen):
        signal = None if math.isnan(x.sigma) else signal_largest(point, paths[x.layer])
        layers.append(_advice(x, np.asarray(gradient[paths[x.layer]]), signal))
    return Advice(tuple(layers), _notes(plan, layers), value, task.predicted)


def start(config: LoraConfig, base: Mapping[str, Array], rank: Mapping[str, int]) -> dict[str, Adapter]:
    """Draw A as the configuration's initialiser does, for the seed `SEED`, and set B = 0."""
    gaussian = str(config.init_lora_weights).lower() == "gaussian"
    return init_adapters(jax.random.key(SEED), base, rank, _gaussian if gaussian else kaiming_uniform)


def _told(layers: tuple[PlannedLayer, ...], seen: Seen | None) -> Iterator[PlannedLayer]:
    for x in layers:
        if seen is not None:
            seen(x.layer, len(layers))
        yield x


def _gaussian(key: Array, shape: Any, dtype: Any = None, out_sharding: Any = None) -> Array:
    """A ~ N(0, 1/r²), PEFT's "gaussian"."""
    return jax.random.normal(key, shape, dtype, out_sharding=out_sharding) / shape[0]


def _by_layer(tensors: Mapping[str, Stored], where: str) -> dict[str, tuple[str, Stored]]:
    """The tensors with their keys, by the layer that each is the weight of."""
    found: dict[str, tuple[str, Stored]] = {}
    for key, stored in tensors.items():
        layer = key.removesuffix(".weight")
        if layer in found:
            raise InputError(f"{where}: has {shown(layer)} twice, {shown(found[layer][0])} and {shown(key)}")
        found[layer] = key, stored
    return found


def _finite(key: str, stored: Stored) -> Float[np.ndarray, "d_out d_in"]:
    G = read_tensor(key, stored)
    if not np.isfinite(G).all():
        raise InputError(f"gradient: {shown(key)} must be finite, got {float(G[~np.isfinite(G)][0])}")
    return G


def _advice(
    x: PlannedLayer, G: Float[np.ndarray, "d_out d_in"], signal: tuple[float, float] | None = None
) -> LayerAdvice:
    """All of one layer, from its gradient and λmax[H_Signal] with its error, where it was searched."""
    alpha, top = x.scaling * x.rank, spectral_norm(G)
    largest, error = signal or (math.nan, math.nan)
    entries, rows = np.count_nonzero(G), np.count_nonzero(G.any(axis=1))
    size = descent = math.nan
    if entries and not math.isnan(x.sigma):
        # X8 is for a G without zeros: a zero row moves under neither, a zero entry rests in full fine-tuning
        squares = first_step_size(x.rank, x.scaling, x.sigma, G.shape[1]) * rows * G.shape[1] / entries
        size = math.sqrt(squares)
        descent = first_step_descent(G, alpha, x.sigma) / float(np.sum(np.abs(G), dtype=float))
    return LayerAdvice(
        layer=x.layer,
        shape=x.shape,
        rank=x.rank,
        scaling=x.scaling,
        alpha=alpha,
        sigma=x.sigma,
        gradient_norm=top,
        drift_largest=x.scaling * top,
        signal_largest=largest,
        signal_error=error,
        crossover=crossover_alpha(alpha, x.scaling * top, largest) if largest > error else math.nan,
        v1=empirical_alpha_base(x.rank),
        v2=math.nan if math.isnan(x.sigma) else alpha_base(x.rank, x.sigma),
        step_alpha=alpha / size,
        step_size=size,
        step_descent=descent,
        below_epsilon=float(np.mean((np.abs(G) < EPSILON) & (G != 0))),
    )


def _notes(plan: Plan, layers: list[LayerAdvice]) -> tuple[str, ...]:
    still = [x.layer for x in layers if not x.gradient_norm]
    zero = (f"G = 0, which has no curvature of the drift and no first step: {some(still)}",) if still else ()
    small = max(x.below_epsilon for x in layers)
    if small >= 0.01:  # which is seen in three digits
        zero += (f"up to {small:.0%} of a layer's G is below Adam's ε = {EPSILON:g}, where its step is not by signs",)
    return (*zero, *start_notes(plan.config.init_lora_weights), *plan.notes)


def _table(found: Advice) -> Table:
    """One row a layer, or one a kind where there are more layers than a table shows."""
    kinds: dict[tuple[str, ...], list[LayerAdvice]] = {}
    many = len(found.layers) > LINES
    for x in found.layers:
        name = re.sub(r"\d+", "*", x.layer) if many else x.layer
        kinds.setdefault((printable(name), "×".join(map(str, x.shape)), str(x.rank), number(x.scaling)), []).append(x)
    columns = {
        "α": "alpha",
        "σ₁(G)": "gradient_norm",
        "s·σ₁(G)": "drift_largest",
        **({} if found.loss is None else {"λmax[H_Signal]": "signal_largest", "±": "signal_error", "α_c": "crossover"}),
        "V1: α": "v1",
        "V2: α": "v2",
        "FFT's step: α": "step_alpha",
        "first step/FFT": "step_size",
        "its descent/FFT": "step_descent",
    }
    rows = [
        (*kind, *(span(np.array([getattr(x, field) for x in alike])) for field in columns.values()))
        for kind, alike in kinds.items()
    ]
    loss = "" if found.loss is None else f", loss {number(found.loss)} over {found.predicted} predicted tokens"
    by_kind = ", by kind" if many else ""
    return Table(
        f"{len(found.layers)} layers where training begins, B = 0{by_kind}{loss}",
        ("layer", "W", "r", "s", *columns),
        rows,
    )


displayed_as(_table)(Advice)
