"""Pose a pretrained sentence encoder, all-MiniLM-L6-v2, on text that people rated, from four domains."""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.tree_util import Partial

import signal_drift as sd
from experiments.lab.errors import OptionError, check_positive
from experiments.lab.problem import Drawn, Dtype, Training, Tuning, cast
from experiments.problems.fetch import PACKAGES, cache, missing
from experiments.problems.pool import batches_of, order_of, sample_of
from experiments.problems.pretrained import AFFORDED, RANDOM, Pretrained
from signal_drift.models.bert import Bert, BertConfig, load_bert
from signal_drift.models.bridge import Forward
from signal_drift.tasks.rated_text import DOMAINS, Rated, Tokens, apart_from, read_ratings, split_by_digest, tokenise
from signal_drift.tasks.rating_head import Examples, Head, batch_error, embeddings, rating_error, ridge_head

MINILM = "all-MiniLM-L6-v2"
ARCHIVE = "vaderSentiment.tar.gz"
FAN_IN = {f"layers.{i}.attention.{name}": 384 for i in range(6) for name in ("query", "key", "value", "out")} | {
    f"layers.{i}.{name}": d_in for i in range(6) for name, d_in in (("expand", 384), ("contract", 1536))
}
"""How many numbers every matrix of MiniLM reads."""
TRAINING, HELD_OUT = "movies, training", "movies, held out"
SETS = (TRAINING, HELD_OUT, *(name for name in DOMAINS if name != "movies"))
"""Where a model is judged: texts it was trained on, others of their kind, and three other kinds."""


class Encoder(NamedTuple):
    """Hold W₀ of every linear layer, the frozen rest, the texts to train on and the others to judge by."""

    base: dict[str, Array]
    forward: Forward
    head: Head
    training: Examples
    judged: dict[str, Examples]


@dataclass(frozen=True)
class MiniLM(Pretrained):
    """Adapt every linear layer of the encoder; embeddings, norms, biases and the ridge head are frozen.

    A run sees less than one pass over the training texts, in an order that the seed draws and all methods share.
    """

    rank: int = 8
    """r of every adapter, where an experiment does not vary it."""
    model: str = MINILM
    """all-MiniLM-L6-v2 as `make minilm` fetched it, the folder of another BERT in Hugging Face's form, or "random": a
    tiny one with random weights and texts of random words, for tests."""
    length: int = 32
    """Tokens of a text; what is longer is cut."""
    head_texts: int = 2048
    """Training texts that the ridge head is fitted to, at the pretrained weights."""
    judged: int = 256
    """Texts of each set by which a trained model is judged."""
    texts: int = 8
    """Texts of the loss whose curvature is taken: the first that the training run of a seed sees."""
    batch: int = 32
    """Texts of a training step."""

    known: ClassVar[dict[str, dict[str, int]]] = {MINILM: FAN_IN}
    reproduced: ClassVar[tuple[str, ...]] = (
        *("layers", "spectra_at_scale", "is_it_curvature", "drift_knockout"),
        *("rates", "rank_law", "protocol_comparison"),
    )
    tuning: ClassVar[Tuning | None] = replace(
        AFFORDED,
        steps=50,
        seeds=3,
        fft_rates=tuple(10.0 ** (k / 2) for k in range(-11, -5)),
        ranks=(8,),
        own_rates=(0.1, 1.0, 10.0),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "length", "head_texts", "judged", "texts", "batch")

    @property
    def name(self) -> str:
        return "minilm"

    @property
    def label(self) -> str:
        return {MINILM: "MiniLM on rated text", RANDOM: "tiny encoder"}.get(self.model, Path(self.model).name)

    def encoder(self, dtype: Dtype) -> Encoder:
        """Load it in either precision. Raises `OptionError` if it is not there, `InputError` if it is no encoder."""
        return cast(_encoder(self.model, self.length, self.head_texts, self.judged), dtype)

    def base(self, dtype: Dtype) -> dict[str, Array]:
        return self.encoder(dtype).base

    def draw(self, seed: int, dtype: Dtype = "float64") -> Drawn:
        encoder = self.encoder(dtype)
        rows = order_of(len(encoder.training.ratings), seed)[: self.texts]
        return Drawn(encoder.base, rating_error(encoder.forward, encoder.head, encoder.training.at(rows)))

    def training(self, seed: int, steps: int, dtype: Dtype = "float64") -> Training:
        encoder = self.encoder(dtype)
        batches = batches_of(encoder.training, seed, steps, self.batch)
        own = Partial(_error, encoder.forward, encoder.head, sample_of(batches, self.judged))
        scores = {
            f"correlation, {name}": Partial(_correlation, encoder.forward, encoder.head, texts)
            for name, texts in encoder.judged.items()
        }
        return Training(batch_error(encoder.forward, encoder.head), batches, own, scores)

    def tiny(self) -> Self:
        return replace(self, model=RANDOM, length=6, head_texts=40, judged=20, rank=2, batch=8)


def _error(forward: Forward, head: Head, texts: Examples, weights: dict[str, Array]) -> Array:
    """The mean squared error of the ratings, a few texts at a time."""
    return jnp.mean((embeddings(forward, weights, texts) @ head.weight + head.bias - texts.ratings) ** 2)


def _correlation(forward: Forward, head: Head, texts: Examples, weights: dict[str, Array]) -> Array:
    given = embeddings(forward, weights, texts) @ head.weight
    return jnp.corrcoef(given, texts.ratings)[0, 1]


def folder_of(model: str) -> Path:
    """Return where an encoder is. Raises `OptionError` where a file of it, or VADER's text, is not in the cache."""
    kept, archive = cache(), cache() / ARCHIVE
    gone = missing(PACKAGES["minilm"], kept) if model == MINILM else [ARCHIVE] * (not archive.exists())
    if gone:
        raise OptionError(f"model: {model!r} needs {kept / gone[0]}, which is not there; run: make minilm")
    return kept if model == MINILM else Path(model)


@lru_cache(maxsize=2)
def _encoder(model: str, length: int, head_texts: int, judged: int) -> Encoder:
    """In float32, with the head that goes with it."""
    bert, texts = _random(length) if model == RANDOM else _loaded(model, length)
    base, forward = sd.base_and_forward(bert)
    first = jax.tree.map(lambda x: x[:head_texts], texts[TRAINING])
    head = ridge_head(embeddings(forward, base, first), first.ratings)
    others = {k: jax.tree.map(lambda x: x[:judged], texts[k]) for k in SETS if k != TRAINING}
    return Encoder(base, forward, head, texts[TRAINING], others)


def _loaded(model: str, length: int) -> tuple[Bert, dict[str, Examples]]:
    """The encoder, and the texts in the order of a shuffle that is the same everywhere."""
    folder = folder_of(model)
    rated = read_ratings(cache() / ARCHIVE)
    inside, held_out = map(_shuffled, split_by_digest(rated["movies"]))
    others = {k: apart_from(_shuffled(rated[k]), inside) for k in SETS if k in rated}
    domains = {TRAINING: inside, HELD_OUT: held_out} | others
    return load_bert(folder), {k: _examples(x, tokenise(folder, x.texts, length)) for k, x in domains.items()}


def _shuffled(rated: Rated) -> Rated:
    order = np.random.default_rng(0).permutation(len(rated.texts))
    return Rated(tuple(rated.texts[i] for i in order), rated.ratings[order])


def _examples(rated: Rated, tokens: Tokens) -> Examples:
    return Examples(*map(jnp.asarray, (tokens.ids, tokens.mask, rated.ratings.astype(np.float32))))


def _random(length: int) -> tuple[Bert, dict[str, Examples]]:
    """One block of width 8 and words with a rating each; a text is rated by the mean of its words."""
    words, count, draws = 50, 256, np.random.default_rng(0)
    config = BertConfig(words, 8, 1, 2, 8, length)
    value = draws.normal(0, 2, words)
    texts = {}
    for name in SETS:
        ids = draws.integers(1, words, (count, length))
        mask = np.arange(length) < draws.integers(1, length + 1, (count, 1))
        ratings = np.sum(value[ids] * mask, axis=1) / mask.sum(1)
        texts[name] = _examples(Rated(("",) * count, ratings), Tokens((ids * mask).astype(np.int32), mask))
    return Bert(config, rngs=nnx.Rngs(0)), texts


PROBLEM = MiniLM()
