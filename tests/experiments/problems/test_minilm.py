"""The pretrained encoder with a tiny one in its place: which texts are seen, what a run is and what judges it."""

import jax
import jax.numpy as jnp
import numpy as np
import published
import pytest

import signal_drift as sd
from experiments.lab.errors import OptionError
from experiments.problems import PROBLEMS, fetch
from experiments.problems.adam_run import adam_run
from experiments.problems.minilm import HELD_OUT, SETS, TRAINING, MiniLM
from experiments.problems.pool import batches_of
from signal_drift.models.bert import mean_pooled
from signal_drift.tasks.rating_head import rating_error

TINY = MiniLM().tiny()


def test_no_text_is_trained_on_twice_and_all_methods_see_the_same():
    encoder = TINY.encoder("float32")
    numbered = encoder._replace(training=encoder.training._replace(ratings=jnp.arange(len(encoder.training.ratings))))
    one, again, other = (np.asarray(batches_of(numbered.training, seed, 6, TINY.batch).ratings) for seed in (0, 0, 1))
    assert len(np.unique(one)) == one.size == 6 * TINY.batch
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_curvature_is_taken_on_the_texts_of_the_first_step():
    loss, training = TINY.draw(0, "float32").loss, TINY.training(0, 2, "float32")
    base = TINY.encoder("float32").base
    assert TINY.texts == TINY.batch
    assert float(loss(base)) == pytest.approx(
        float(training.loss(base, jax.tree.map(lambda x: x[0], training.batches)))
    )


def test_more_steps_than_texts_are_named():
    count = len(TINY.encoder("float32").training.ratings)
    steps = count // TINY.batch + 1
    with pytest.raises(OptionError, match=f"steps: {steps} batches of 8 texts are more than the {count} there are"):
        TINY.training(0, steps)


def test_model_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("SIGNAL_DRIFT_CACHE", str(tmp_path / "empty"))
    with pytest.raises(OptionError, match="run: make minilm"):
        MiniLM().draw(0)


def test_another_encoder_is_read_with_its_tokenizer(tmp_path, monkeypatch):
    """Texts are shuffled alike everywhere; one that is trained on is judged nowhere else, whatever its spaces."""
    pytest.importorskip("tokenizers", reason="needs the extra minilm")
    published.tokenizer(published.encoder(tmp_path / "model"), list("abcdefgh"))
    rows = {
        name: "".join(f"{i}\t{i / 10}\t{a} {b}\r\n" for i, (a, b) in enumerate(pairs)) for name, pairs in PAIRS.items()
    }
    published.published(tmp_path / "vaderSentiment.tar.gz", rows)
    monkeypatch.setenv("SIGNAL_DRIFT_CACHE", str(tmp_path))
    found = MiniLM(model=str(tmp_path / "model"), length=4, head_texts=20, judged=100).encoder("float64")
    texts = {
        name: {tuple(ids) for ids in np.asarray(x.ids)}
        for name, x in {TRAINING: found.training, **found.judged}.items()
    }
    assert len(texts[TRAINING]) + len(texts[HELD_OUT]) == len(PAIRS["movies"])
    assert all(not texts[TRAINING] & others for name, others in texts.items() if name != TRAINING)
    assert texts["tweets"] == texts[HELD_OUT]  # the tweets are all of the movies' texts, with other spaces
    assert len(found.base) == 12
    assert found.training.ratings.dtype == jnp.float64


PAIRS = {
    "movies": [(a, b) for a in "abcdefgh" for b in "abcdefgh"],
    "tweets": [(a, f" {b}") for a in "abcdefgh" for b in "abcdefgh"],
    "products": [("h", "zz")],
    "editorials": [("a", "zz")],
}


def test_head_starts_from_what_the_encoder_knows():
    """The ridge head is better than the mean rating on its own texts, and every set is judged."""
    encoder = TINY.encoder("float64")
    first = jax.tree.map(lambda x: x[:40], encoder.training)
    loss = float(rating_error(encoder.forward, encoder.head, first)(encoder.base))
    assert loss < float(jnp.var(first.ratings))
    assert set(encoder.judged) == set(SETS) - {TRAINING}
    assert not np.array_equal(encoder.judged[HELD_OUT].ids[:20], encoder.training.ids[:20])


def test_plain_run_equals_adam_written_out():
    """The first batches' losses of LoRA with α = r, by one step of `optax`-free Adam: Δ = −η·sign(∇) from rest."""
    encoder, eta, start = TINY.encoder("float32"), 1e-2, TINY.adapters(0, dtype="float32")
    batches = batches_of(encoder.training, 0, 2, TINY.batch)

    def loss(W, k):
        texts = jax.tree.map(lambda x: x[k], batches)
        states = encoder.forward(W, texts.ids, texts.mask)
        means = jnp.sum(states * texts.mask[..., None], 1) / jnp.sum(texts.mask, 1, keepdims=True)
        return jnp.mean((means @ encoder.head.weight + encoder.head.bias - texts.ratings) ** 2)

    G = jax.grad(loss)(encoder.base, 0)
    moved = {k: start[k].B - eta * jnp.sign(G[k] @ start[k].A.T) for k in start}
    second = loss({k: W + moved[k] @ start[k].A for k, W in encoder.base.items()}, 1)
    run = adam_run(PROBLEMS["minilm"].tiny(), 0, start, 1.0, eta, 2, "float32")
    assert float(run.loss[0]) == pytest.approx(float(loss(encoder.base, 0)), rel=1e-5)
    assert float(run.loss[1]) == pytest.approx(float(second), rel=1e-3)


def test_a_trained_model_is_judged_as_it_says():
    """The error on its own texts and the correlation on every other set, text by text."""
    encoder, training = TINY.encoder("float32"), TINY.training(1, 3, "float32")
    trained = adam_run(TINY, 1, TINY.adapters(1, dtype="float32"), 2.0, 1e-2, 3, "float32").trained
    weights = sd.effective_weights(encoder.base, trained, 2.0)
    own = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batches_of(encoder.training, 1, 3, TINY.batch))
    own = jax.tree.map(lambda x: x[:: max(1, len(x) // TINY.judged)], own)

    def rated(texts):
        means = [
            mean_pooled(encoder.forward(weights, i[None], m[None]), m[None])[0]
            for i, m in zip(texts.ids, texts.mask, strict=True)
        ]
        return np.array(means) @ np.asarray(encoder.head.weight) + float(encoder.head.bias)

    error = np.mean((rated(own) - np.asarray(own.ratings)) ** 2)
    assert float(training.fit(weights)) == pytest.approx(error, rel=1e-3)
    assert len(training.scores) == len(encoder.judged)
    for name, texts in encoder.judged.items():
        correlation = np.corrcoef(rated(texts), texts.ratings)[0, 1]
        assert float(training.scores[f"correlation, {name}"](weights)) == pytest.approx(correlation, rel=1e-3)


def test_what_every_matrix_reads_is_known_without_the_files(monkeypatch, tmp_path):
    """One of six matrices reads four times as many numbers as the others."""
    monkeypatch.setenv("SIGNAL_DRIFT_CACHE", str(tmp_path))
    assert MiniLM().fan_in() == PROBLEMS["contrastive"].fan_in()
    assert MiniLM().typical_sigma() == pytest.approx((384**5 * 1536) ** (-1 / 12))


@pytest.mark.slow
def test_what_every_matrix_of_the_real_model_reads_is_known():
    problem = MiniLM()
    if fetch.missing(fetch.needed("minilm"), fetch.cache()):
        pytest.skip("MiniLM is not fetched")
    assert {layer: W0.shape[1] for layer, W0 in problem.base("float32").items()} == problem.fan_in()
