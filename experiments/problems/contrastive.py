"""Pose a contrastive objective, InfoNCE (Sec. 5.2): MiniLM learns which two sentences are of one editorial.

The pairs come from the archive of VADER's rated text, whose editorials and product reviews are published sentence by
sentence and numbered by their document. Two sentences of one document are a pair that nobody had to label, and one that
shared words alone do not find: an answer of GSM-symbolic repeats its question's names and numbers. An editorial has a
subject of its own, so that the other pairs of a batch are true negatives; reviews are of a few products, and are a
harder set of another kind. Whether MiniLM itself saw any of these texts before is not known; all methods start from it.
"""

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
from experiments.problems.fetch import cache
from experiments.problems.minilm import ARCHIVE, FAN_IN, MINILM, folder_of
from experiments.problems.pretrained import AFFORDED, RANDOM, Pretrained
from signal_drift.models.bert import Bert, BertConfig, load_bert
from signal_drift.models.bridge import Forward
from signal_drift.tasks.contrastive_pairs import Texts, batch_info_nce, info_nce, recall, similarities
from signal_drift.tasks.documents import Document, distinct_documents, read_documents, split_documents
from signal_drift.tasks.rated_text import tokenise

TRAINING, HELD_OUT, OTHER = "editorials, training", "held-out editorials", "product reviews"
DEPTHS = (1, 5)
"""k of recall@k."""


class Corpus(NamedTuple):
    """Hold the sentences of all documents, and the number of each one's document."""

    sentences: Texts
    document: np.ndarray


class Matcher(NamedTuple):
    """Hold W₀ of every linear layer, the frozen rest, what is trained on, and the pairs to judge by."""

    base: dict[str, Array]
    forward: Forward
    training: Corpus
    judged: dict[str, Texts]


@dataclass(frozen=True)
class Contrastive(Pretrained):
    """Adapt every linear layer of the encoder; embeddings, norms and biases are frozen.

    A batch has one pair of sentences each of as many editorials, in an order that the seed draws and all methods share;
    no sentence is trained on twice. Judged by recall: how often the second sentence of a pair is among the k nearest to
    the first, one pair a document, in held-out editorials and in product reviews. No sentence is in two documents.
    """

    rank: int = 8
    """r of every adapter, where an experiment does not vary it."""
    model: str = MINILM
    """all-MiniLM-L6-v2 as `make minilm` fetched it, the folder of another BERT in Hugging Face's form, or "random": a
    tiny one with random weights and documents of random words, for tests."""
    temperature: float = 0.05
    """τ of the loss, which divides cosines; the usual one for sentence embeddings."""
    length: int = 24
    """Tokens of a sentence; what is longer is cut."""
    judged: int = 96
    """Pairs of each set by which a trained model is judged, the candidates of every recall."""
    pairs: int = 8
    """Pairs of the loss whose curvature is taken: the first that the training run of a seed sees."""
    batch: int = 16
    """Pairs of a training step."""

    known: ClassVar[dict[str, dict[str, int]]] = {MINILM: FAN_IN}
    reproduced: ClassVar[tuple[str, ...]] = (
        *("spectra_at_scale", "is_it_curvature"),
        *("rates", "protocol_comparison", "where_alpha_pays"),
    )
    tuning: ClassVar[Tuning | None] = replace(
        AFFORDED,
        steps=25,
        seeds=3,
        fft_rates=tuple(10.0 ** (k / 2) for k in range(-11, -5)),
        ranks=(8,),
        protocol_ranks=(4, 32),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "length", "judged", "pairs", "batch")
        if not 0 < self.temperature < float("inf"):
            raise OptionError(f"temperature: must be positive and finite, got {self.temperature}")
        if not 2 <= self.pairs <= self.batch:
            raise OptionError(f"pairs: must be from 2 to those of a batch, {self.batch}, got {self.pairs}")

    @property
    def name(self) -> str:
        return "contrastive"

    @property
    def label(self) -> str:
        known = {MINILM: "MiniLM on pairs of sentences (InfoNCE)", RANDOM: "tiny encoder (InfoNCE)"}
        return known.get(self.model, f"{Path(self.model).name} (InfoNCE)")

    def matcher(self, dtype: Dtype) -> Matcher:
        """Load it in either precision. Raises `OptionError` if it is not there, `InputError` if it is no encoder."""
        return cast(_matcher(self.model, self.length, self.judged), dtype)

    def base(self, dtype: Dtype) -> dict[str, Array]:
        return self.matcher(dtype).base

    def draw(self, seed: int, dtype: Dtype = "float64") -> Drawn:
        matcher = self.matcher(dtype)
        first = jax.tree.map(lambda x: x[0, : self.pairs], pairs_of(matcher.training, seed, 1, self.batch))
        return Drawn(matcher.base, info_nce(matcher.forward, first, self._temperature(dtype)))

    def training(self, seed: int, steps: int, dtype: Dtype = "float64") -> Training:
        matcher = self.matcher(dtype)
        loss = batch_info_nce(matcher.forward, self._temperature(dtype))
        batches = pairs_of(matcher.training, seed, steps, self.batch)
        every = max(1, steps * self.batch // self.judged)
        fit = Partial(_mean_loss, loss, jax.tree.map(lambda x: x[::every], batches))
        scores = {
            f"recall@{k}, {name}": Partial(_recall, matcher.forward, pairs, jnp.asarray(k))
            for name, pairs in matcher.judged.items()
            for k in DEPTHS
        }
        return Training(loss, batches, fit, scores)

    def _temperature(self, dtype: Dtype) -> Array:
        return jnp.asarray(self.temperature, dtype)

    def tiny(self) -> Self:
        return replace(self, model=RANDOM, length=6, judged=16, rank=2, batch=8)


def pairs_of(corpus: Corpus, seed: int, steps: int, batch: int) -> Texts:
    """Draw batches of pairs: no sentence twice, and in one batch no two of a document.

    Every document's sentences are paired at random; first come one pair of each, in random order, then second ones.
    What is left of a round and makes no batch is passed over. Raises `OptionError` where there are not enough.
    """
    draws = np.random.default_rng(seed)
    documents = [draws.permutation(np.flatnonzero(corpus.document == k)) for k in np.unique(corpus.document)]
    found = []
    for first in range(0, max(map(len, documents)) - 1, 2):
        left = draws.permutation([rows[first : first + 2] for rows in documents if len(rows) > first + 1])
        found += [left[i : i + batch] for i in range(0, len(left) - batch + 1, batch)]
    if steps > len(found):
        raise OptionError(f"steps: {steps} batches of {batch} pairs are more than the {len(found)} there are")
    return corpus.sentences.at(np.array(found[:steps]))


def _mean_loss(loss: Partial, batches: Texts, weights: dict[str, Array]) -> Array:
    return jnp.mean(jax.lax.map(lambda batch: loss(weights, batch), batches))


def _recall(forward: Forward, pairs: Texts, k: Array, weights: dict[str, Array]) -> Array:
    return recall(similarities(forward, weights, pairs), k)


@lru_cache(maxsize=2)
def _matcher(model: str, length: int, judged: int) -> Matcher:
    """In float32. The pairs to judge by are the same for every seed."""
    bert, corpora = _random(length) if model == RANDOM else _loaded(model, length)
    base, forward = sd.base_and_forward(bert)
    pairs = {}
    for name in (HELD_OUT, OTHER):
        count = min(judged, len(np.unique(corpora[name].document)))
        pairs[name] = jax.tree.map(lambda x: x[0], pairs_of(corpora[name], 0, 1, count))
    return Matcher(base, forward, corpora[TRAINING], pairs)


def _loaded(model: str, length: int) -> tuple[Bert, dict[str, Corpus]]:
    folder = folder_of(model)
    domains = read_documents(cache() / ARCHIVE)
    editorials = distinct_documents(domains["editorials"])
    training, held_out = split_documents(editorials)
    others = distinct_documents(domains["products"], apart_from=domains["editorials"])
    sides = {TRAINING: training, HELD_OUT: held_out, OTHER: others}
    return load_bert(folder), {name: _corpus(folder, documents, length) for name, documents in sides.items()}


def _corpus(folder: Path, documents: list[Document], length: int) -> Corpus:
    numbers = np.repeat(np.arange(len(documents)), [len(sentences) for sentences in documents])
    tokens = tokenise(folder, tuple(sentence for sentences in documents for sentence in sentences), length)
    return Corpus(Texts(*map(jnp.asarray, tokens)), numbers)


def _random(length: int) -> tuple[Bert, dict[str, Corpus]]:
    """One block of width 8, and documents of ten sentences each, whose words are from five of its own."""
    words, documents, sentences, draws = 50, 64, 10, np.random.default_rng(0)
    corpora = {}
    for name in (TRAINING, HELD_OUT, OTHER):
        own = draws.integers(1, words, (documents, 5))
        numbers = np.repeat(np.arange(documents), sentences)
        ids = own[numbers[:, None], draws.integers(0, 5, (len(numbers), length))]
        mask = np.arange(length) < draws.integers(1, length + 1, (len(numbers), 1))
        corpora[name] = Corpus(Texts(jnp.asarray(ids * mask), jnp.asarray(mask)), numbers)
    return Bert(BertConfig(words, 8, 1, 2, 8, length), rngs=nnx.Rngs(0)), corpora


PROBLEM = Contrastive()
