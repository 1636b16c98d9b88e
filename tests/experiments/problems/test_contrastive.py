"""The contrastive problem: which sentences are paired and seen, and what a judge says."""

import jax
import jax.numpy as jnp
import numpy as np
import published
import pytest

from experiments.lab.errors import OptionError
from experiments.problems.contrastive import HELD_OUT, OTHER, Contrastive, Corpus, pairs_of
from signal_drift.models.bert import mean_pooled
from signal_drift.tasks.contrastive_pairs import Texts

TINY = Contrastive().tiny()
SIZES = np.array([2, 5, 4, 1, 7, 2, 3])
"""Sentences of every document."""
DOCUMENTS = np.repeat(np.arange(len(SIZES)), SIZES)
NUMBERED = Corpus(Texts(jnp.arange(SIZES.sum())[:, None], jnp.ones((SIZES.sum(), 1), bool)), DOCUMENTS)
"""The only token of a sentence is its number."""


def rows(seed: int, steps: int, batch: int = 2) -> np.ndarray:
    return np.asarray(pairs_of(NUMBERED, seed, steps, batch).ids)[..., 0]


def test_a_pair_is_of_one_document_and_a_batch_of_as_many_as_it_has_pairs():
    """Two rounds of 6 and 3 documents, then one of a single pair, which makes no batch: four batches of two."""
    for seed in range(5):
        found = rows(seed, 4)
        assert found.shape == (4, 2, 2)
        owners = DOCUMENTS[found]
        assert np.all(owners[..., 0] == owners[..., 1])
        assert np.all(owners[:, 0] != owners[:, 1])
        assert len(np.unique(found)) == found.size, "no sentence twice"
        assert set(owners[:3].ravel()) == {0, 1, 2, 4, 5, 6}, "one pair of every document before a second one"


def test_all_methods_see_the_same_and_a_longer_run_begins_alike():
    assert np.array_equal(rows(0, 4)[:2], rows(0, 2))
    assert not np.array_equal(rows(0, 4), rows(1, 4))


def test_each_sentence_of_a_pair_asks_as_often_as_it_is_found():
    """The first sentence of a document of two, over 200 seeds: a binomial to five standard deviations."""
    first = sum(int(rows(seed, 1, 6)[0, :, 0].min() == 0) for seed in range(200))
    assert abs(first - 100) < 5 * np.sqrt(50)


def test_more_steps_than_pairs_are_named():
    with pytest.raises(OptionError, match=r"^steps: 5 batches of 2 pairs are more than the 4 there are$"):
        rows(0, 5)
    with pytest.raises(OptionError, match=r"^steps: 1 batches of 7 pairs are more than the 0 there are$"):
        rows(0, 1, 7)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"temperature": 0.0}, "temperature: must be positive and finite, got 0.0"),
        ({"pairs": 1}, "pairs: must be from 2 to those of a batch, 16, got 1"),
        ({"pairs": 17}, "pairs: must be from 2 to those of a batch, 16, got 17"),
        ({"judged": 0}, "judged: must be at least 1, got 0"),
    ],
)
def test_sizes_that_do_not_fit_are_named(change, line):
    with pytest.raises(OptionError, match=f"^{line}$"):
        Contrastive(**change)


def test_model_that_is_not_there_or_is_another_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("SIGNAL_DRIFT_CACHE", str(tmp_path))
    for name in ("config.json", "vaderSentiment.tar.gz"):
        (tmp_path / name).write_text("altered")
    with pytest.raises(OptionError, match=r"needs .*config.json, which is not there; run: make minilm"):
        Contrastive().draw(0)


def test_no_sentence_is_trained_on_and_judged(tmp_path, monkeypatch):
    """Read by another encoder. An editorial that repeats one, and a review that quotes one, are left out whole."""
    pytest.importorskip("tokenizers", reason="needs the extra minilm")
    published.tokenizer(published.encoder(tmp_path / "model"), list("abcdefghi"))
    published.published(tmp_path / "vaderSentiment.tar.gz", {name: lines(texts) for name, texts in TEXTS.items()})
    monkeypatch.setenv("SIGNAL_DRIFT_CACHE", str(tmp_path))
    problem = Contrastive(model=str(tmp_path / "model"), length=7, judged=100)
    found = problem.matcher("float64")
    seen = texts_of(found.training.sentences)
    assert len(seen) == len(found.training.document)
    judged = {name: texts_of(Texts(*(x.reshape(-1, 7) for x in pairs))) for name, pairs in found.judged.items()}
    assert not seen & judged[HELD_OUT]
    assert not seen & judged[OTHER]
    assert not judged[HELD_OUT] & judged[OTHER]
    documents = len(np.unique(found.training.document)) + len(judged[HELD_OUT]) // 2
    assert documents == len(EDITORIALS) - 1, "the last repeats the first"
    assert len(judged[OTHER]) == 2 * (len(REVIEWS) - 1), "the last quotes an editorial"
    assert found.base["layers.0.expand"].dtype == jnp.float64
    assert problem.training(0, 1).batches.ids.shape == (1, 16, 2, 7)


def lines(documents: list[list[str]]) -> str:
    return "".join(f"{i}_{k}\t0.5\t{x}\r\n" for i, texts in enumerate(documents) for k, x in enumerate(texts))


def words(number: int, *rest: str) -> str:
    """Five words, another sentence for every number below 8⁴."""
    return " ".join("abcdefgh"[number // 8**k % 8] for k in range(4)) + "".join(f" {word}" for word in rest)


EDITORIALS = [[words(i, "a"), words(i, "b"), words(i, "c"), "too short"] for i in range(60)]
EDITORIALS.append([words(100, "a"), words(0, "A"), words(101, "a")])
REVIEWS = [[words(i, "d"), words(i, "e")] for i in range(9)]
REVIEWS.append([words(30, "d"), f" {words(7, 'B')}", words(31, "d")])
TEXTS = {"movies": [["a"]], "tweets": [["a"]], "products": REVIEWS, "editorials": EDITORIALS}


def texts_of(texts: Texts) -> set[tuple[int, ...]]:
    return {tuple(ids) for ids in np.asarray(texts.ids).tolist()}


def test_a_model_is_judged_as_it_says():
    """Recall by sorting cosines, text by text, and the mean loss of some of its batches; higher k finds no less."""
    matcher, training = TINY.matcher("float64"), TINY.training(1, 4)
    hidden = jax.jit(lambda ids, mask: mean_pooled(matcher.forward(matcher.base, ids, mask), mask))

    def cosines(pairs):
        z, y = (np.asarray(hidden(pairs.ids[:, k], pairs.mask[:, k])) for k in (0, 1))
        return z @ y.T / np.outer(np.linalg.norm(z, axis=1), np.linalg.norm(y, axis=1))

    for name, pairs in matcher.judged.items():
        order = np.argsort(-cosines(pairs), axis=1)
        for k in (1, 5):
            share = np.mean([i in row[:k] for i, row in enumerate(order)])
            assert float(training.scores[f"recall@{k}, {name}"](matcher.base)) == pytest.approx(share, abs=1e-12)
    assert len(training.scores) == 2 * len(matcher.judged)
    every = 4 * TINY.batch // TINY.judged
    losses = [
        float(training.loss(matcher.base, jax.tree.map(lambda x, k=k: x[k], training.batches)))
        for k in range(0, 4, every)
    ]
    assert every == 2
    assert float(training.fit(matcher.base)) == pytest.approx(np.mean(losses), rel=1e-12)
