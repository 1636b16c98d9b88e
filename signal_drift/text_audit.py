"""Audits a stored adapter on a text: what its scaling is worth to the model that it was trained for.

Each layer is judged by itself, with all the others held at W₀ + s·BA, at the point that is stored.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from signal_drift.display import Table, displayed_as, number
from signal_drift.errors import InputError
from signal_drift.errors.words import printable, shown
from signal_drift.files import load_tokenizer, read_config
from signal_drift.files.hugging_face import CONFIG
from signal_drift.files.tokenizer import TOKENIZER
from signal_drift.hessians import decompose_layer
from signal_drift.lora.adapters import Adapter, adjoint_product, effective_weights
from signal_drift.lora.updates import decompose_update
from signal_drift.losses.arguments import Loss
from signal_drift.models.bridge import base_and_forward
from signal_drift.models.llama import Llama, load_llama
from signal_drift.models.llama.hugging_face import matrix_names
from signal_drift.peft.files import AdapterFiles, open_adapter
from signal_drift.peft.maps import StoredLayer
from signal_drift.spectra import extreme_eigenvalues
from signal_drift.spectra.exact import spectral_norm
from signal_drift.tasks.answers.chats import Chats
from signal_drift.tasks.answers.next_token import next_token_loss

ETA = 1e-4
"""η of the step whose signal and drift are compared; signal over drift falls as 1/η."""
TOLERANCE = 1e-2
"""Residual of an eigenvalue over ‖H_Signal‖ at which its search stops."""


class LayerCurvature(NamedTuple):
    """Describes one layer at the stored point, G = ∇_W ℓ there; its blocks of both Hessians are those of (A, B).

    `drift_largest` is λmax[H_Drift] = s·σ₁(G) (X1), `signal_largest` is λmax[H_Signal] to ± `signal_error`.
    `signal_to_drift` is ‖ΔW_Signal‖_F / ‖ΔW_Drift‖_F along Δθ = −η·sign(∇_θ ℓ), Adam's first step, with η = 1e-4; it is
    infinite where the step has no drift, as at B = 0.
    """

    layer: str
    gradient_norm: float
    drift_largest: float
    signal_largest: float
    signal_error: float
    signal_to_drift: float

    @property
    def crossover(self) -> Literal["above", "below", "open"]:
        """Say on which side α is of the crossover, where λmax[H_Signal] = s·σ₁(G); "open" where the search cannot tell.

        At fixed ∇ℓ, H_ℓ, A and B the first is ∝ α² and the second ∝ α: above the crossover what the largest is made of
        is curvature of the loss, below it the norm of the gradient.
        """
        if self.signal_largest - self.signal_error > self.drift_largest:
            return "above"
        return "below" if self.signal_largest + self.signal_error < self.drift_largest else "open"


@dataclass(frozen=True, repr=False)
class TextAudit:
    """Holds every adapted layer, in the order of their names, with the loss ℓ over so many predicted tokens."""

    loss: float
    predicted: int
    layers: tuple[LayerCurvature, ...]


def audit_on_text(adapter: str | Path, model: str | Path, text: str) -> TextAudit:
    """Compute σ₁(G), λmax of H_Drift and of H_Signal, and signal to drift, for every layer of an adapter.

    ℓ is the mean loss of the text's next tokens; `model` is a Hugging Face folder with a Llama or Qwen2 and its
    tokenizer.json, which is asked for its special tokens too. What the adapter does not adapt stays fixed. Needs the
    `minilm` or the `smollm` extra, and computes in float32. Raises `InputError` where `open_adapter`, `load_llama` and
    `load_tokenizer` do, for an adapter that is not W₀ + s·BA of this model's matrices, for a text without a token to
    predict or longer than the context, and where the loss or its gradient is not finite.
    """
    stored, model = _plain_layers(open_adapter(adapter)), Path(model)
    decoder = load_llama(model)
    names = _names(decoder, stored)
    task = text_task(decoder, model, names, text)
    point = _point(task, names)
    value, gradient = finite_gradient(task.loss, effective_weights(point.base, point.theta, point.s))
    ratios = _signal_to_drift(point, gradient)
    layers = []
    for path, x in names.items():
        top = spectral_norm(np.asarray(gradient[path]))
        largest, error = signal_largest(point, path)
        layers.append(LayerCurvature(x.layer, top, x.scaling * top, largest, error, ratios[path]))
    return TextAudit(value, task.predicted, tuple(layers))


class Task(NamedTuple):
    """Holds a text's mean next-token loss as a function of some matrices of a decoder, and these as they are stored."""

    loss: Loss
    base: dict[str, Array]
    predicted: int


class Point(NamedTuple):
    """Holds a loss and where it is taken, in the order that `decompose_layer` asks for."""

    loss: Loss
    base: dict[str, Array]
    theta: dict[str, Adapter]
    s: dict[str, float]


def text_task(decoder: Llama, folder: Path, paths: Collection[str], text: str) -> Task:
    """Make the loss over the matrices at these paths; raise `InputError` for a text or tokenizer that does not fit."""
    tokens = _tokens(folder, text, decoder.config.vocab_size)
    base, forward = base_and_forward(decoder, lambda path, _: path in paths)
    loss = next_token_loss(forward, Chats(tokens[None], jnp.ones((1, len(tokens)), bool)))
    return Task(loss, base, len(tokens) - 1)


def finite_gradient(loss: Loss, weights: dict[str, Array]) -> tuple[float, dict[str, Array]]:
    """Compute ℓ and G = ∇_W ℓ of every layer; raise `InputError` where one of them is not finite."""
    value, gradient = jax.jit(jax.value_and_grad(loss))(weights)
    if not all(np.isfinite(x).all() for x in (value, *gradient.values())):
        raise InputError(f"text: its loss or gradient at the adapter is not finite, the loss is {float(value)}")
    return float(value), gradient


def signal_largest(point: Point, path: str) -> tuple[float, float]:
    """Search λmax of a layer's own block of H_Signal, and say how far off it may be."""
    found = extreme_eigenvalues(decompose_layer(*point, path).signal, 1, "largest", tolerance=TOLERANCE)
    return float(found.values[0]), float(found.residuals[0]) + found.missed


def _point(task: Task, names: Mapping[str, StoredLayer]) -> Point:
    """The text's loss as a function of the adapted matrices, and the adapter."""
    for path, x in names.items():
        shape = (len(x.B), x.A.shape[1])
        if shape != task.base[path].shape:
            raise InputError(
                f"adapter: {shown(x.layer)} is {shape} in the adapter and {task.base[path].shape} in the model"
            )
    theta = {path: Adapter(jnp.asarray(x.A), jnp.asarray(x.B)) for path, x in names.items()}
    return Point(task.loss, task.base, theta, {path: x.scaling for path, x in names.items()})


def _plain_layers(files: AdapterFiles) -> list[StoredLayer]:
    """The layers, where nothing is noted that W₀ + s·BA with a full A and B would leave out."""
    found = list(files.layers())
    notes = [*files.notes, *(note for x in found for note in x.notes)]
    if notes:
        raise InputError(f"adapter: must be W₀ + s·BA alone to be put into a model, got {notes[0]}")
    return found


def _names(decoder: Llama, stored: list[StoredLayer]) -> dict[str, StoredLayer]:
    """The layers of the adapter by their paths in the decoder."""
    paths = matrix_names(decoder)
    for x in stored:
        if x.layer not in paths:
            first, *_, last = paths
            raise InputError(
                f"adapter: adapts {shown(x.layer)}, which is none of the model's matrices, {first} to {last}"
            )
    return {paths[x.layer]: x for x in stored}


def _tokens(folder: Path, text: str, vocabulary: int) -> Int[Array, "t"]:
    """The text with the special tokens that its tokenizer puts around one, none for a text without tokens."""
    try:
        tokenizer = load_tokenizer(folder)
    except ModuleNotFoundError:
        raise InputError("text: needs the package tokenizers, of the extra minilm, to be split into tokens") from None
    tokenizer.no_truncation()  # which a file may ask for
    tokenizer.no_padding()
    ids, context = tokenizer.encode(text).ids, read_config(folder).get("max_position_embeddings")
    if len(ids) < 2:
        raise InputError(f"text: must have 2 tokens or more for one to be predicted, got {len(ids)}: {shown(text)}")
    if isinstance(context, int) and len(ids) > context:
        raise InputError(f"text: has {len(ids)} tokens, more than max_position_embeddings = {context} of {CONFIG}")
    if max(ids) >= vocabulary:
        raise InputError(f"{TOKENIZER}: has the token {max(ids)}, which is not below the model's {vocabulary}")
    return jnp.asarray(ids, jnp.int32)


def _signal_to_drift(point: Point, gradient: Mapping[str, Array]) -> dict[str, float]:
    slope = adjoint_product(point.theta, gradient, point.s)
    delta = jax.tree.map(lambda g: -ETA * jnp.sign(g), slope)
    signal, drift = decompose_update(point.theta, delta, point.s)
    norms = {path: [float(np.linalg.norm(part[path])) for part in (signal, drift)] for path in slope}
    return {path: over / under if under else np.inf for path, (over, under) in norms.items()}


def _table(found: TextAudit) -> Table:
    header = ("layer", "σ₁(G)", "s·σ₁(G)", "λmax[H_Signal]", "±", "α and the crossover", f"signal/drift, η = {ETA:g}")
    rows = [
        (
            printable(x.layer),
            *map(number, (x.gradient_norm, x.drift_largest, x.signal_largest, x.signal_error)),
            x.crossover,
            number(x.signal_to_drift),
        )
        for x in found.layers
    ]
    return Table(f"loss {number(found.loss)} over {found.predicted} predicted tokens", header, rows)


displayed_as(_table)(TextAudit)
