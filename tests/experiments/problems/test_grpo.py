"""The language model's policy problem with a tiny decoder in its place: what is asked, what judges, what is refused."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.lab.errors import OptionError
from experiments.problems import PROBLEMS, fetch
from experiments.problems.policy import LanguagePolicy
from experiments.problems.policy.judges import experience, first_of
from experiments.problems.policy.learner import EXAMPLES, divided, without
from signal_drift.tasks.answers.chats import Chats
from signal_drift.tasks.policy import completion_probabilities
from signal_drift.tasks.policy.lines import chain_sums, products

TINY = LanguagePolicy().tiny()


def test_no_line_is_for_two_things_and_examples_are_for_none():
    trained, apart = divided(without(chain_sums(2), EXAMPLES["sums"]))
    assert (len(trained), len(apart)) == (159, 39)
    assert not set(trained) & set(apart)
    assert not set(EXAMPLES["sums"]) & {*trained, *apart}
    assert set(chain_sums(2)) == {*trained, *apart, *EXAMPLES["sums"]}


def test_examples_are_right():
    known = {"sums": chain_sums(2), "sums of three": chain_sums(3), "products": products()}
    assert all(set(shown) < set(known[kind]) for kind, shown in EXAMPLES.items())


def test_a_step_asks_what_is_trained_on_after_prompts_that_are_read_once():
    start, reading = TINY.learner("float32")
    long, short = (TINY.training(3, steps, "float32").batches for steps in (5, 2))
    assert long.prompts.shape == (5, TINY.questions, reading.prompt - 1)
    rows = np.concatenate([long.prompts, long.questions.tokens], axis=-1).reshape(-1, start.trained.tokens.shape[1])
    assert {tuple(row) for row in rows.tolist()} <= {tuple(row) for row in np.asarray(start.trained.tokens).tolist()}
    np.testing.assert_array_equal(short.questions.tokens, long.questions.tokens[:2])
    assert bool(jnp.all(short.key == long.key[:2]))


def test_completions_are_right_as_often_as_fit_says():
    """The rewards of 8 × 8 groups at the start, against 1 less the exact rate of failure of the same questions.

    The bound is four standard errors of as many independent completions; of √p in the place of p it must refute.
    """
    start, reading = TINY.learner("float64")
    rules, stream = TINY._rules(reading), TINY._stream(0, 8)
    rewards = [
        np.asarray(experience(start.forward, rules, start.base, jax.tree.map(lambda x, t=t: x[t], stream)).rewards) + 1
        for t in range(8)
    ]
    assert stream.prompts is not None
    rows = np.concatenate([stream.prompts, stream.questions.tokens], axis=-1)
    own = np.pad(np.asarray(stream.questions.answered), ((0, 0), (0, 0), (reading.prompt - 1, 0)))
    chats = Chats(*(jnp.asarray(x.reshape(-1, x.shape[-1])) for x in (rows, own)))
    p = np.asarray(completion_probabilities(start.forward, chats, start.base))
    error = np.sqrt(np.mean(p * (1 - p)) / (p.size * TINY.group))
    assert abs(np.mean(rewards) - p.mean()) < 4 * error
    assert abs(np.mean(rewards) - np.sqrt(p).mean()) > 4 * error


def test_variance_is_that_of_the_rewards_of_one_question():
    """Over right and wrong, counted out; that of all questions together, p̄(1 − p̄), is more."""
    start, _ = TINY.learner("float64")
    p = np.asarray(completion_probabilities(*start.fit, start.base))
    exact = np.mean([q * (1 - q) ** 2 + (1 - q) * q**2 for q in p])
    found = float(TINY.training(0, 2).scores["variance of a reward"](start.base))
    assert found == pytest.approx(exact, rel=1e-12)
    assert abs(found - p.mean() * (1 - p.mean())) > 1e-3


def test_curvature_is_taken_of_the_first_step():
    training, drawn = TINY.training(0, 2), TINY.draw(0)
    here, first = drawn.base, first_of(training.batches)
    step = jax.jit(jax.grad(training.loss))
    g, stepped = jax.jit(jax.grad(drawn.loss))(here), step(here, first)
    size = max(float(jnp.max(jnp.abs(x))) for x in g.values())
    assert max(float(jnp.max(jnp.abs(g[k] - stepped[k]))) for k in g) < 1e-10 * size
    second = step(here, jax.tree.map(lambda x: x[1], training.batches))
    assert max(float(jnp.max(jnp.abs(g[k] - second[k]))) for k in g) > 1e-3 * size


def test_a_first_step_without_a_gradient_is_named():
    """One question, answered twice: alike more often than not."""
    alone, refused = replace(TINY, questions=1, group=2), []
    for seed in range(5):
        try:
            alone.draw(seed)
        except OptionError as error:
            refused.append((seed, str(error)))
    assert len(refused) > 0
    assert all(line == f"group: all rewards at seed {seed} are equal, there is no gradient" for seed, line in refused)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"group": 1}, "group: must be at least 2, got 1"),
        ({"beta": -0.1}, "beta: must be at least 0, got -0.1"),
        ({"questions": 0}, "questions: must be at least 1, got 0"),
        ({"judged": 0}, "judged: must be at least 1, got 0"),
    ],
)
def test_sizes_that_do_not_fit_are_named(change, line):
    with pytest.raises(OptionError, match=f"^{line}"):
        LanguagePolicy(**change)


def test_what_is_not_there_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("SIGNAL_DRIFT_CACHE", str(tmp_path))
    with pytest.raises(OptionError, match=r"model: .*SmolLM2-135M-Instruct.Q4_1.gguf, which is not there; run: make"):
        LanguagePolicy(judged=23).draw(0)


def test_typical_sigma_is_known_without_the_files(monkeypatch, tmp_path):
    monkeypatch.setenv("SIGNAL_DRIFT_CACHE", str(tmp_path))
    assert PROBLEMS["grpo"].typical_sigma() == pytest.approx((576**6 * 1536) ** (-1 / 14))


@pytest.mark.slow
def test_the_real_model_solves_some():
    """On the fetched files where they are: pass@1 from 5% to 60% on what is trained on and on the held-out sums."""
    if fetch.missing(fetch.needed("smollm"), fetch.cache()):
        pytest.skip("SmolLM2 is not fetched")
    start, _ = LanguagePolicy().learner("float32")
    for quiz in (start.fit, start.judged["held-out sums"]):
        assert 0.05 < float(jnp.mean(completion_probabilities(*quiz, start.base))) < 0.6
