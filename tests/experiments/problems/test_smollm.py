"""The language model with a tiny one in its place: what is seen, what judges it, and what is refused."""

import dataclasses
import re
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.lab.errors import OptionError
from experiments.problems import PROBLEMS, fetch
from experiments.problems.pool import batches_of
from experiments.problems.smollm import SmolLM, Speaker
from signal_drift.tasks.answers.chats import Chats

TINY = SmolLM().tiny()


def test_curvature_is_taken_on_the_chats_of_the_first_step():
    training, drawn = TINY.training(0, 2), TINY.draw(0)
    first = jax.tree.map(lambda x: x[0], training.batches)
    assert float(drawn.loss(drawn.base)) == pytest.approx(float(training.loss(drawn.base, first)), rel=1e-12)
    second = jax.tree.map(lambda x: x[1], training.batches)
    assert float(drawn.loss(drawn.base)) != pytest.approx(float(training.loss(drawn.base, second)), rel=1e-6)


def test_loss_is_the_cross_entropy_of_the_answers_tokens_by_numpy():
    tutor, drawn = TINY.tutor("float64"), dataclasses.replace(TINY, texts=1).draw(0)
    chats = tutor.training.at(np.random.default_rng(0).permutation(TINY.pool)[:1])
    logits = np.asarray(tutor.forward(drawn.base, chats.tokens))[0]
    tokens, answered = np.asarray(chats.tokens[0]), np.asarray(chats.answered[0])
    rows = [t for t in range(1, len(tokens)) if answered[t]]
    exact = [np.log(np.exp(logits[t - 1] - logits[t - 1].max()).sum()) + logits[t - 1].max() for t in rows]
    wanted = np.mean([z - logits[t - 1, tokens[t]] for z, t in zip(exact, rows, strict=True)])
    assert float(drawn.loss(drawn.base)) == pytest.approx(wanted, rel=1e-10)
    shifted = np.mean([z - logits[t - 1, tokens[t - 1]] for z, t in zip(exact, rows, strict=True)])
    assert abs(wanted - shifted) > 1e-3, "the near control: the token itself, not the next one"


def test_judges_see_no_chat_of_the_training_and_unseen_templates():
    tutor = TINY.tutor("float32")
    rows = {name: {tuple(row) for row in np.asarray(chats.tokens).tolist()} for name, chats in tutor.judged.items()}
    trained = {tuple(row) for row in np.asarray(tutor.training.tokens).tolist()}
    assert set(rows) == {"held out", "unseen templates"}
    assert all(not trained & found for found in rows.values())
    assert len(trained) == TINY.pool


def test_fit_weighs_every_token_of_the_answers_alike():
    """Over the chats of a run one at a time, against all of them at once."""
    tutor, training = TINY.tutor("float64"), TINY.training(0, 2)
    chats = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batches_of(tutor.training, 0, 2, TINY.batch))
    at_once = training.loss(tutor.base, chats)
    assert float(training.fit(tutor.base)) == pytest.approx(float(at_once), rel=1e-12)


def test_judge_counts_the_answers_tokens_that_are_the_most_likely():
    tutor, training = TINY.tutor("float64"), TINY.training(0, 2)
    for name, chats in tutor.judged.items():
        likely = np.asarray(tutor.forward(tutor.base, chats.tokens)).argmax(-1)[:, :-1]
        right = (likely == np.asarray(chats.tokens)[:, 1:])[np.asarray(chats.answered)[:, 1:]]
        assert float(training.scores[f"tokens right, {name}"](tutor.base)) == pytest.approx(right.mean(), abs=1e-12)


@jax.jit
def logits_of(forward, weights, tokens):
    return forward(weights, tokens[None])[0]


def reply_by_hand(forward, weights, question, end):
    """Return a greedy answer, each token by numpy from the whole chat so far."""
    tokens, words = np.zeros(TINY.length, np.int32), []
    tokens[: len(question)] = question
    for t in range(len(question), TINY.length):
        words.append(int(np.asarray(logits_of(forward, weights, tokens))[t - 1].argmax()))
        tokens[t] = words[-1]
        if words[-1] == end:
            break
    return words


def test_judge_of_answers_decodes_greedily_and_reads_the_last_line():
    """An untrained decoder has nothing right; told that its own words are right, but for every other one, it has half.

    What ends a turn is there what it says most; those others have one token off by one, before that.
    """
    tutor, training = TINY.tutor("float64"), TINY.training(0, 2)
    for name, judged in tutor.judged.items():
        judge = training.scores[f"answered right, {name}"]
        forward, chats, endings = judge.args
        assert np.array_equal(chats.tokens, judged.tokens)
        rows = [(row[: own.argmax()], row[own]) for row, own in zip(*map(np.asarray, chats), strict=True)]
        lines = [re.search(r"#### -?\d+\x03$", "".join(map(chr, solution))) for _, solution in rows]
        assert [len(line[0]) for line in lines if line] == endings.tolist()
        assert float(judge(tutor.base)) == 0
        said = [reply_by_hand(forward, tutor.base, question, -1) for question, _ in rows]
        end = Counter(token for words in said for token in words[1:]).most_common(1)[0][0]
        tokens, own, right = np.zeros(chats.tokens.shape, np.int32), np.zeros(chats.tokens.shape, bool), 0
        for i, (question, _) in enumerate(rows):
            words = reply_by_hand(forward, tutor.base, question, end)
            right += words[-1] == end and i % 2 == 0
            solution = [*words[:-1], end] if i % 2 == 0 else [*words[:-2], words[-2] + 1, end]
            own[i, len(question) : len(question) + len(words)] = True
            tokens[i, : len(question) + len(words)] = [*question, *solution]
        told = Chats(jnp.asarray(tokens), jnp.asarray(own))
        assert isinstance(judge.func, Speaker)
        speaker = dataclasses.replace(judge.func, end=end)
        assert 0 < right <= TINY.judged // 2, "take another seed"
        assert float(speaker(forward, told, jnp.full(TINY.judged, 2), tutor.base)) == right / TINY.judged


def test_precision_is_the_one_asked_for():
    for dtype in ("float32", "float64"):
        drawn = TINY.draw(0, dtype)
        assert {x.dtype for x in jax.tree.leaves(drawn.base)} == {jnp.dtype(dtype)}
        assert jax.eval_shape(drawn.loss, drawn.base).dtype == dtype


def test_what_is_not_there_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("SIGNAL_DRIFT_CACHE", str(tmp_path))
    with pytest.raises(
        OptionError, match=r"model: .*SmolLM2-135M-Instruct.Q4_1.gguf, which is not there; run: make smollm"
    ):
        dataclasses.replace(TINY, model="SmolLM2-135M-Instruct", pool=3).draw(0)


def test_chats_that_are_all_too_long_are_said():
    with pytest.raises(OptionError, match=r"length: of 8 chats only 0 of 1 have at most 4 tokens"):
        dataclasses.replace(TINY, length=4, pool=1).draw(0)


def test_typical_sigma_is_known_without_the_files(monkeypatch, tmp_path):
    monkeypatch.setenv("SIGNAL_DRIFT_CACHE", str(tmp_path))
    tiny = TINY.sigma_a()
    assert TINY.typical_sigma() == pytest.approx(float(np.exp(np.mean(np.log(list(tiny.values()))))))
    assert PROBLEMS["smollm"].typical_sigma() == pytest.approx((576**6 * 1536) ** (-1 / 14))


def test_the_real_model_answers_as_its_first_tokens_say():
    """On the fetched files where they are: 210 matrices, and the loss of a trained model, not ln 49152."""
    if fetch.missing(fetch.needed("smollm"), fetch.cache()):
        pytest.skip("SmolLM2 is not fetched")
    problem = dataclasses.replace(PROBLEMS["smollm"], pool=64, judged=1)
    drawn = problem.draw(0, "float32")
    assert {layer: W0.shape[1] for layer, W0 in drawn.base.items()} == problem.fan_in()
    assert len(drawn.base) == 210
    assert 0.5 < float(jax.jit(drawn.loss)(drawn.base)) < 2.0
