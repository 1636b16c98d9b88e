"""The encoder against one written in plain NumPy, against `transformers`, and at what is no BERT."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from problems import rejects
from published import SIZES, encoder, tensors
from safetensors.numpy import save_file
from scipy.special import erf

import signal_drift as sd
from experiments.problems.fetch import PACKAGES, cache, missing
from signal_drift.models.bert import Bert, load_bert, mean_pooled
from signal_drift.propositions import drift_alignment, drift_spectrum, hessian_splits, update_has_no_remainder
from signal_drift.propositions.subject import Instance
from signal_drift.tasks.rated_text import tokenise

TOKENS = np.array([[1, 5, 3, 0, 0], [2, 2, 9, 10, 4], [7, 0, 0, 0, 0]])
MASK = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]], bool)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return encoder(tmp_path)


def by_hand(w: dict[str, np.ndarray]) -> np.ndarray:
    """The last hidden states, one text and one head at a time."""

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True)) * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    texts = []
    for ids, counts in zip(TOKENS, MASK, strict=True):
        x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][: len(ids)]
        x = norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        for i in range(2):
            at = f"encoder.layer.{i}"
            q, k, v = (linear(x, f"{at}.attention.self.{name}") for name in ("query", "key", "value"))
            heads = []
            for h in (slice(0, 4), slice(4, 8)):
                weight = np.exp(q[:, h] @ k[:, h].T / math.sqrt(4)) * counts
                heads.append(weight / weight.sum(1, keepdims=True) @ v[:, h])
            x = norm(x + linear(np.hstack(heads), f"{at}.attention.output.dense"), f"{at}.attention.output.LayerNorm")
            y = linear(x, f"{at}.intermediate.dense")
            y = y * (1 + erf(y / math.sqrt(2))) / 2
            x = norm(x + linear(y, f"{at}.output.dense"), f"{at}.output.LayerNorm")
        texts.append(x)
    return np.array(texts)


@nnx.jit
def hidden(model: Bert, tokens: jax.Array, mask: jax.Array) -> jax.Array:
    """Compiled once for all tests of one dtype."""
    return model(tokens, mask)


def error(folder: Path, weights: dict[str, np.ndarray]) -> float:
    """Compare the stored encoder with one of these weights, over a rounding of ten thousand operations."""
    model, wanted = load_bert(folder, jnp.float64), by_hand(weights)
    found = hidden(model, jnp.asarray(TOKENS), jnp.asarray(MASK))
    return np.abs(found[MASK] - wanted[MASK]).max() / (1e4 * np.finfo(float).eps * np.abs(wanted).max())


def test_hidden_states_are_those_by_hand(folder: Path) -> None:
    assert error(folder, tensors()) <= 1


@pytest.mark.parametrize("name", ["encoder.layer.1.attention.self.query.weight", "encoder.layer.0.output.dense.weight"])
def test_a_transposed_weight_would_be_seen(folder: Path, name: str) -> None:
    """Control."""
    wrong = tensors()
    wrong[name] = wrong[name].T.reshape(wrong[name].shape)
    assert error(folder, wrong) > 1


def test_masked_tokens_change_nothing(folder: Path) -> None:
    model, other = load_bert(folder), np.where(MASK, TOKENS, 9)
    states = [hidden(model, jnp.asarray(tokens), jnp.asarray(MASK)) for tokens in (TOKENS, other)]
    pooled = [mean_pooled(x, jnp.asarray(MASK)) for x in states]
    assert np.array_equal(pooled[0], pooled[1])
    np.testing.assert_allclose(pooled[0][0], states[0][0, :3].mean(0), rtol=1e-5)


def test_names_may_begin_with_bert(folder: Path) -> None:
    before = hidden(load_bert(folder), jnp.asarray(TOKENS), jnp.asarray(MASK))
    save_file({f"bert.{name}": x for name, x in tensors().items()}, folder / "model.safetensors")
    assert np.array_equal(hidden(load_bert(folder), jnp.asarray(TOKENS), jnp.asarray(MASK)), before)


def test_statements_are_held_against_it_as_against_the_mlp(folder: Path) -> None:
    """Adapters on all linear layers of a block: attention in three axes, feed-forward in two."""
    base, forward = sd.base_and_forward(load_bert(folder, jnp.float64), "layers.1.*")
    assert len(base) == 6
    tokens, mask, head = jnp.asarray(TOKENS), jnp.asarray(MASK), jnp.linspace(-1, 1, 8)

    def loss(weights: dict) -> jax.Array:
        return jnp.mean((mean_pooled(forward(weights, tokens, mask), mask) @ head - jnp.array([1.0, -1.0, 0.0])) ** 2)

    adapters = sd.init_adapters(jax.random.key(0), base, 1)
    delta = jax.tree.map(lambda x: 0.1 * jnp.ones_like(x), adapters)
    x = Instance(loss, base, jax.tree.map(jnp.add, adapters, delta), 2.0, delta)
    for statement in (update_has_no_remainder, hessian_splits, drift_spectrum, drift_alignment):
        check = statement(x)
        assert check.holds, check
        assert check.refutes_control, check


def change(**entries: Any) -> Callable[[Path], Any]:
    return lambda folder: (folder / "config.json").write_text(json.dumps(SIZES | entries))


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: save_file({k: x for k, x in tensors().items() if k != name}, folder / "model.safetensors")


BROKEN: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), "folder: ", "has no config.json"),
    "no JSON": (lambda f: (f / "config.json").write_text("{"), "config.json: cannot be read", "JSONDecodeError"),
    "another model": (change(model_type="gpt2"), "config.json: must be of a BERT", "'gpt2'"),
    "another activation": (change(hidden_act="relu"), "config.json: must be of a BERT", "'relu'"),
    "no width": (change(hidden_size=None), "config.json: has no 'hidden_size'", ""),
    "a width of nothing": (change(hidden_size=0), "config.json: hidden_size must be a positive integer", "0"),
    "heads that do not divide": (change(num_attention_heads=3), "config.json: num_attention_heads", "3"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "folder: ", "has neither model.safetensors nor"),
    "truncated": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-1]),
        "model.safetensors: is damaged or no safetensors file",
        "",
    ),
    "a layer missing": (
        without("encoder.layer.1.output.dense.bias"),
        "model.safetensors: has no 'encoder.layer.1.output.dense.bias'",
        "",
    ),
    "another width": (change(hidden_size=6), "model.safetensors: 'embeddings.word_embeddings.weight'", "(11, 8)"),
}


@pytest.mark.parametrize(("breaks", "begins", "names"), BROKEN.values(), ids=BROKEN)
def test_what_is_no_bert_is_one_line(folder: Path, breaks: Callable[[Path], Any], begins: str, names: str) -> None:
    breaks(folder)
    with rejects(begins, names):
        load_bert(folder)


@pytest.mark.filterwarnings("ignore")
def test_hidden_states_are_those_of_transformers(folder: Path) -> None:
    transformers: Any = pytest.importorskip("transformers", reason="needs the extra peers", exc_type=ImportError)
    torch: Any = pytest.importorskip("torch", reason="needs the extra peers", exc_type=ImportError)
    save_file({k: x.astype(np.float32) for k, x in tensors().items()}, folder / "model.safetensors", {"format": "pt"})
    model = transformers.BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
    with torch.no_grad():
        wanted = model(torch.tensor(TOKENS), torch.tensor(MASK)).last_hidden_state.numpy()
    found = load_bert(folder)(jnp.asarray(TOKENS), jnp.asarray(MASK))
    np.testing.assert_allclose(found[MASK], wanted[MASK], atol=1e-5)


TEXTS = ("The film is a quiet triumph.", "Tepid, overlong and oddly proud of it!")
MINILM = {
    (0, 0): [-0.2285303, -0.0404147, 0.4173346, -0.0190318],
    (0, 5): [0.7682012, -0.6520439, 0.6327019, -0.151653],
    (1, 0): [-0.3527394, 0.5079258, -0.3181781, 0.1688476],
    (1, 9): [-0.5717292, 0.62137, -0.0441521, 0.5653053],
}
"""The first entries of hidden states of all-MiniLM-L6-v2 by (text, token), as `transformers` 5.23 has them."""


def test_hidden_states_of_minilm_are_those_of_transformers() -> None:
    """Where `make minilm` has fetched it."""
    if missing(PACKAGES["minilm"], cache()):
        pytest.skip("needs make minilm")
    tokens, mask = map(jnp.asarray, tokenise(cache(), TEXTS))
    model = load_bert(cache())
    assert len(sd.base_and_forward(model, "layers.*")[0]) == 36
    found = model(tokens, mask)
    assert np.asarray(mask).sum(1).tolist() == [9, 13]
    for place, numbers in MINILM.items():
        np.testing.assert_allclose(found[place][:4], numbers, atol=1e-5)
