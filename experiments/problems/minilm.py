"""A pretrained encoder on text that people rated: what is adapted, to what, and what a training run is judged by."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

import signal_drift as sd
from experiments.lab.errors import OptionError, check_positive
from experiments.problems import fetch_minilm
from experiments.problems.adaptation import Dtype
from signal_drift.models.bert import Bert, BertConfig, load_bert
from signal_drift.models.bridge import Forward
from signal_drift.tasks.rated_text import DOMAINS, Rated, Tokens, apart_from, read_ratings, split_by_digest, tokenise
from signal_drift.tasks.rating_head import Examples, Head, embeddings, ridge_head

MINILM, DRAWN = "all-MiniLM-L6-v2", "drawn"
TRAINING, HELD_OUT = "movies, training", "movies, held out"
SETS = (TRAINING, HELD_OUT, *(name for name in DOMAINS if name != "movies"))
"""Where a model is judged: texts it was trained on, others of their kind, and three other kinds."""


@dataclass(frozen=True)
class Setting:
    """Every linear layer of the encoder gets an adapter; embeddings, norms, biases and the ridge head are frozen."""

    model: str = MINILM
    """all-MiniLM-L6-v2 as `make minilm` fetched it, the folder of another BERT in Hugging Face's form, or "drawn": a
    tiny one with random weights and texts of random words, for tests."""
    length: int = 32
    """Tokens of a text; what is longer is cut."""
    head_texts: int = 2048
    """Training texts that the ridge head is fitted to, at the pretrained weights."""
    judged: int = 256
    """Texts of each set by which a trained model is judged."""

    def __post_init__(self) -> None:
        check_positive(self, "length", "head_texts", "judged")

    @property
    def name(self) -> str:
        """What figures and tables call the model."""
        return {MINILM: "MiniLM", DRAWN: "tiny encoder"}.get(self.model, Path(self.model).name)

    def encoder(self, dtype: Dtype) -> "Encoder":
        """The same in either precision. Raises `OptionError` if it is not there, `InputError` if it is no encoder."""
        return _cast(_encoder(self.model, self.length, self.head_texts, self.judged), dtype)


def _cast(tree: Any, dtype: str) -> Any:
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


class Encoder(NamedTuple):
    """W₀ of every linear layer, the frozen rest, the texts to train on and the others to judge by."""

    base: dict[str, Array]
    forward: Forward
    head: Head
    training: Examples
    judged: dict[str, Examples]

    def sigma_a(self) -> dict[str, float]:
        """The standard deviation of A, 1/√d_in of each layer."""
        return {layer: W0.shape[1] ** -0.5 for layer, W0 in self.base.items()}

    def fan_in(self) -> dict[str, int]:
        return {layer: W0.shape[1] for layer, W0 in self.base.items()}

    def adapters(self, seed: int, rank: int) -> dict[str, sd.Adapter]:
        """A ~ N(0, 1/d_in) drawn in float32, B = 0."""
        base = _cast(self.base, "float32")
        drawn = sd.init_adapters(jax.random.fold_in(jax.random.key(seed), 2), base, rank)
        return _cast(drawn, str(self.head.weight.dtype))


@lru_cache(maxsize=2)
def _encoder(model: str, length: int, head_texts: int, judged: int) -> Encoder:
    """In float32, with the head that goes with it."""
    bert, texts = _drawn(length) if model == DRAWN else _loaded(model, length)
    base, forward = sd.base_and_forward(bert)
    first = jax.tree.map(lambda x: x[:head_texts], texts[TRAINING])
    head = ridge_head(embeddings(forward, base, first), first.ratings)
    others = {k: jax.tree.map(lambda x: x[:judged], texts[k]) for k in SETS if k != TRAINING}
    return Encoder(base, forward, head, texts[TRAINING], others)


def _loaded(model: str, length: int) -> tuple[Bert, dict[str, Examples]]:
    """The encoder, and the texts in the order of a shuffle that is the same everywhere."""
    cache = fetch_minilm.cache()
    archive = cache / "vaderSentiment.tar.gz"
    folder = cache if model == MINILM else Path(model)
    missing = fetch_minilm.missing(cache) if model == MINILM else [archive.name] * (not archive.exists())
    if missing:
        raise OptionError(f"model: {model!r} needs {cache / missing[0]}, which is not there; run: make minilm")
    rated = read_ratings(archive)
    inside, held_out = map(_shuffled, split_by_digest(rated["movies"]))
    others = {k: apart_from(_shuffled(rated[k]), inside) for k in SETS if k in rated}
    domains = {TRAINING: inside, HELD_OUT: held_out} | others
    bert = load_bert(folder)
    return bert, {k: _examples(x, tokenise(folder, x.texts, length)) for k, x in domains.items()}


def _shuffled(rated: Rated) -> Rated:
    order = np.random.default_rng(0).permutation(len(rated.texts))
    return Rated(tuple(rated.texts[i] for i in order), rated.ratings[order])


def _examples(rated: Rated, tokens: Tokens) -> Examples:
    return Examples(*map(jnp.asarray, (tokens.ids, tokens.mask, rated.ratings.astype(np.float32))))


def _drawn(length: int) -> tuple[Bert, dict[str, Examples]]:
    """One block of width 8 and words with a rating each; a text is rated by the mean of its words."""
    words, draws = 50, np.random.default_rng(0)
    config = BertConfig(words, 8, 1, 2, 8, length)
    value = draws.normal(0, 2, words)
    texts = {}
    for name in SETS:
        ids = draws.integers(1, words, (64, length))
        mask = np.arange(length) < draws.integers(1, length + 1, (64, 1))
        ratings = np.sum(value[ids] * mask, axis=1) / mask.sum(1)
        texts[name] = _examples(Rated(("",) * 64, ratings), Tokens((ids * mask).astype(np.int32), mask))
    return Bert(config, rngs=nnx.Rngs(0)), texts


TINY = {"model": DRAWN, "length": 6, "head_texts": 40, "judged": 20}
"""The size used in tests."""
