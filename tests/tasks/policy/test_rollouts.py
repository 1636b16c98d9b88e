"""Completions of a small decoder: whose they are, what they are worth, and that no derivative goes through them."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from problems import EPS, rejects

import signal_drift as sd
from signal_drift.models import Llama, LlamaConfig
from signal_drift.tasks.answers.chats import Chats
from signal_drift.tasks.policy import (
    END,
    SYMBOLS,
    Asked,
    Rules,
    exact_match,
    experience_of,
    log_probabilities,
    on_policy_loss,
    rewarded,
    rolled_out,
    tokenise_sums,
)

CONFIG = LlamaConfig(
    len(SYMBOLS), 8, 8, 1, num_attention_heads=1, num_key_value_heads=1, head_dim=8, max_position_embeddings=9
)
SUMS = tokenise_sums(["1+2", "9+8+9", "7-3"], length=9)
G, KEY = 4, jax.random.key(5)


@pytest.fixture(scope="module")
def decoder():
    base, forward = sd.base_and_forward(Llama(CONFIG, rngs=nnx.Rngs(1), dtype=jnp.float64), "layers.*")
    return {k: 2 * W for k, W in base.items()}, forward


@pytest.fixture(scope="module")
def said(decoder):
    return rolled_out(decoder[1], CONFIG, decoder[0], SUMS, G, END, KEY)


def test_sums_are_written_with_their_answers():
    text = ["".join(SYMBOLS[k] for k in row) for row in np.asarray(SUMS.tokens)]
    assert text == ["1+2=3.000", "9+8+9=26.", "7-3=4.000"]
    answers = ["".join(SYMBOLS[k] for k in x[own]) for x, own in zip(*map(np.asarray, SUMS), strict=True)]
    assert answers == ["3.", "26.", "4."]


def test_rows_of_a_group_answer_its_question(said):
    for i, (question, own) in enumerate(zip(*map(np.asarray, SUMS), strict=True)):
        begins = int(np.argmax(own))
        for row in range(i * G, (i + 1) * G):
            tokens, drawn = np.asarray(said.tokens)[row], np.asarray(said.answered)[row]
            assert tokens[:begins].tolist() == question[:begins].tolist()
            ends = tokens[begins:].tolist().index(END) if END in tokens[begins:] else len(tokens) - begins - 1
            assert np.flatnonzero(drawn).tolist() == list(range(begins, begins + ends + 1))


def test_answer_of_the_question_is_not_read(decoder, said):
    """Another answer written there, the same completions; another key, others."""
    told = Chats(jnp.where(SUMS.answered, 7, SUMS.tokens), SUMS.answered)
    again = rolled_out(decoder[1], CONFIG, decoder[0], told, G, END, KEY)
    np.testing.assert_array_equal(again.tokens, said.tokens)
    other = rolled_out(decoder[1], CONFIG, decoder[0], SUMS, G, END, jax.random.key(6))
    assert np.any(np.asarray(other.tokens) != np.asarray(said.tokens))


def test_a_completion_is_right_by_every_token_and_its_end():
    texts = ["9+8+9=26.", "9+8+9=27.", "9+8+9=2.", "9+8+9=260"]
    tokens = np.array([[SYMBOLS.index(x) for x in f"{t:0<9}"] for t in texts], np.int32)
    own = np.array([[6 <= i < len(t) for i in range(9)] for t in texts])
    rewards = rewarded(exact_match, Chats(jnp.asarray(tokens), jnp.asarray(own)), SUMS.at(np.array([1])))
    assert rewards.tolist() == [[1, 0, 0, 0]]


def longest(said: Chats, solutions: Chats) -> jax.Array:
    """A reward that all completions differ in: how long they are and what they begin with."""
    return jnp.sum(said.tokens * said.answered, axis=1) / 10.0


def test_gradient_is_that_of_log_probabilities_times_advantages(decoder):
    """The oracle: −Σ A log π over the kept tokens, differentiated with nothing drawn. The control: A of another key.

    A few hundred roundings in each of 12 sequences of 8 tokens.
    """
    base, forward = decoder
    rules = Rules(CONFIG, longest, G, END)
    batch = Asked(SUMS, KEY)
    kept = experience_of(forward, rules, base, batch)
    assert float(jnp.std(kept.rewards)) > 0

    def weighted(weights: dict[str, jax.Array], advantages: jax.Array) -> jax.Array:
        logits = forward(weights, kept.tokens)[:, :-1]
        each = logits - jax.scipy.special.logsumexp(logits, axis=-1, keepdims=True)
        log = jnp.sum(each * jax.nn.one_hot(kept.tokens[:, 1:], len(SYMBOLS)), axis=-1)
        return -jnp.sum(log * advantages[:, None] * kept.own[:, 1:]) / jnp.sum(kept.own)

    found = jax.jit(jax.grad(on_policy_loss(forward, rules)))(base, batch)
    oracle = jax.jit(jax.grad(weighted))
    exact, wrong = oracle(base, kept.advantages), oracle(base, jnp.roll(kept.advantages, 1))
    size = max(float(jnp.max(jnp.abs(g))) for g in exact.values())
    assert size > 1e-3
    assert max(float(jnp.max(jnp.abs(found[k] - exact[k]))) for k in base) < 1e4 * EPS * size
    assert max(float(jnp.max(jnp.abs(found[k] - wrong[k]))) for k in base) > 1e-2 * size


def test_distance_from_the_start_is_added(decoder):
    """β·mean k₃ over the tokens drawn, from log probabilities in NumPy. The control: the mean over all tokens."""
    base, forward = decoder
    start, batch = {k: W / 2 for k, W in base.items()}, Asked(SUMS, KEY)
    rules = Rules(CONFIG, longest, G, END, beta=0.3)
    kept = experience_of(forward, rules, base, batch)
    off = np.asarray(log_probabilities(kept.tokens, forward(start, kept.tokens)) - kept.drawn)
    estimates, own = np.exp(off) - 1 - off, np.asarray(kept.own[:, 1:])
    with_kl, without = (
        float(on_policy_loss(forward, replace(rules, beta=beta), start)(base, batch)) for beta in (0.3, 0.0)
    )
    assert abs(with_kl - without - 0.3 * estimates[own].mean()) < 1e4 * EPS
    assert abs(with_kl - without - 0.3 * estimates.mean()) > 1e-4


def test_precision_does_not_change_what_is_said(decoder):
    base, forward = decoder
    single = jax.tree.map(lambda x: x.astype("float32") if x.dtype == jnp.float64 else x, (forward, base))
    rules, batch = Rules(CONFIG, exact_match, G, END), Asked(SUMS, KEY)
    exact = experience_of(forward, rules, base, batch)
    rough = experience_of(single[0], rules, single[1], batch)
    np.testing.assert_array_equal(exact.tokens, rough.tokens)
    assert (exact.drawn.dtype, rough.drawn.dtype) == (jnp.float64, jnp.float32)


def test_what_cannot_be_answered_is_named(decoder):
    base, forward = decoder

    def answer(questions: Chats, group: int = G) -> Chats:
        return rolled_out(forward, CONFIG, base, questions, group, END, KEY)

    with rejects("group: must be a whole number of at least 2", "1"):
        answer(SUMS, 1)
    with rejects("questions: must leave room for an answer in 9 tokens"):
        answer(Chats(SUMS.tokens, jnp.zeros_like(SUMS.answered)))
    with rejects("tokens: 10 a sequence, more than max_position_embeddings = 9"):
        answer(tokenise_sums(["1+2"], length=11))
    with rejects("start: needed where beta is not 0", "0.1"):
        on_policy_loss(forward, Rules(CONFIG, exact_match, G, END, beta=0.1))


def raises(said: Chats, solutions: Chats) -> jax.Array:
    raise KeyError("no number in it")


@pytest.mark.parametrize(
    ("scorer", "line", "value"),
    [
        (raises, "scorer: raised KeyError", "no number in it"),
        (lambda said, solutions: jnp.ones(5), "scorer: must return a reward for each of 12 completions", "(5,)"),
        (lambda said, solutions: None, "scorer: must return a reward for each of 12 completions", "None"),
        (lambda said, solutions: jnp.ones(12).at[3].set(jnp.nan), "rewards: must be finite", "1 of 12"),
        (3, "scorer: must be a function", "int"),
    ],
)
def test_a_scorer_that_fails_is_named(said, scorer, line, value):
    with rejects(line, value):
        rewarded(scorer, said, SUMS)


@pytest.mark.parametrize(
    ("sums", "length", "line"),
    [
        (["1+x"], 9, "sums: must be whole numbers"),
        ([], 9, "sums: none to write"),
        (["9+9+9"], 8, "length: must be at least 9 for 9"),
    ],
)
def test_what_is_no_sum_is_named(sums, length, line):
    with rejects(line):
        tokenise_sums(sums, length)
