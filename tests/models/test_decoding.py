"""Continuations with kept keys and values, against the whole sequence computed again for every token."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import signal_drift as sd
from signal_drift.errors import InputError
from signal_drift.models.bridge import Forward
from signal_drift.models.llama import Llama, LlamaConfig, continued
from signal_drift.models.llama.decoder import KeysValues

CONFIG = LlamaConfig(11, 8, 12, 2, num_attention_heads=4, num_key_value_heads=2, head_dim=4, max_position_embeddings=12)
LENGTH, END = 12, 8
PROMPTS, LENGTHS = jnp.array([[1, 5, 3, 7], [2, 9, 0, 0], [4, END, 6, 0]]), jnp.array([4, 2, 3])


@pytest.fixture(scope="module")
def decoder() -> tuple[dict[str, jax.Array], Forward]:
    base, forward = sd.base_and_forward(Llama(CONFIG, rngs=nnx.Rngs(3), dtype=jnp.float64))
    return {k: 3 * W for k, W in base.items()}, forward


def by_hand(decoder: Any, choose: Callable[[int, np.ndarray], int], row: int, end: int) -> list[int]:
    """Token after token, the logits those of the whole sequence so far."""
    base, forward = decoder
    tokens = PROMPTS[row, : LENGTHS[row]].tolist()
    while len(tokens) < LENGTH and (len(tokens) == LENGTHS[row] or tokens[-1] != end):
        padded = jnp.array([tokens + [0] * (LENGTH - len(tokens))])
        tokens.append(choose(len(tokens) - 1, np.asarray(forward(base, padded)[0, len(tokens) - 1])))
    return tokens


def test_logits_of_parts_are_those_of_the_whole(decoder):
    """Three tokens, then one, then four: to rounding; with the positions one off they are not."""
    base, forward = decoder
    tokens = jnp.array([[1, 5, 3, 0, 6, 6, 2, 4]])
    whole = np.asarray(forward(base, tokens))
    empty = jnp.zeros((1, 9, 2, 4))

    def in_parts(off: int) -> np.ndarray:
        seen, found = (KeysValues(empty, empty),) * 2, []
        for first, last in ((0, 3), (3, 4), (4, 8)):
            logits, seen = forward(base, tokens[:, first:last], seen, first + off * (first > 0))
            found.append(logits)
        return np.concatenate(found, axis=1)

    assert np.max(np.abs(in_parts(0) - whole)) < 1e3 * np.finfo(float).eps * np.max(np.abs(whole))
    assert np.max(np.abs(in_parts(1)[:, :7] - whole[:, :7])) > 1e-3


@pytest.mark.parametrize("end", [END, 99])
def test_greedy_continuation_is_that_of_the_most_likely_tokens(decoder, end):
    tokens, own = continued(decoder[1], CONFIG, decoder[0], PROMPTS, LENGTHS, LENGTH, end)
    for row in range(len(PROMPTS)):
        expected = by_hand(decoder, lambda _, logits: int(logits.argmax()), row, end)
        assert tokens[row].tolist() == expected + [0] * (LENGTH - len(expected))
        assert own[row].tolist() == [LENGTHS[row] <= i < len(expected) for i in range(LENGTH)]


def test_it_stops_with_the_end_and_not_before(decoder):
    """The token that comes third by itself is made the end."""
    free, _ = continued(decoder[1], CONFIG, decoder[0], PROMPTS, LENGTHS, LENGTH, 99)
    end = int(free[0, 6])
    stopped = free[0, 4:].tolist().index(end) + 5
    tokens, own = continued(decoder[1], CONFIG, decoder[0], PROMPTS, LENGTHS, LENGTH, end)
    assert tokens[0].tolist() == free[0, :stopped].tolist() + [0] * (LENGTH - stopped)
    assert int(own[0].sum()) == stopped - 4


def test_drawn_tokens_have_the_probabilities_of_the_logits(decoder):
    """Pairs of the first two drawn over 4000 keys: within five standard errors; at twice the temperature they are not.

    The same noise at both places would make the pairs dependent.
    """
    base, forward = decoder
    keys, size = jax.random.split(jax.random.key(0), 4000), CONFIG.vocab_size

    def first(key: jax.Array) -> jax.Array:
        return continued(forward, CONFIG, base, PROMPTS[:1], LENGTHS[:1], 6, 99, key, temperature=0.5)[0][0, 4:]

    one, two = np.asarray(jax.vmap(first)(keys)).T
    counts = np.bincount(size * one + two, minlength=size**2).reshape(size, size) / len(keys)
    pairs = np.concatenate([np.tile(PROMPTS[0], (size, 1)), np.arange(size)[:, None]], axis=1)
    logits = np.asarray(forward(base, jnp.asarray(pairs)))
    for temperature, fits in ((0.5, True), (1.0, False)):
        p = probabilities(logits[0, 3] / temperature)[:, None] * probabilities(logits[:, 4] / temperature)
        assert np.all(np.abs(counts - p) < 5 * np.sqrt(p * (1 - p) / len(keys)) + 1 / len(keys)) == fits


def probabilities(logits: np.ndarray) -> np.ndarray:
    p = np.exp(logits - logits.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def test_one_key_gives_the_same_tokens_and_another_others(decoder):
    runs = [
        continued(decoder[1], CONFIG, decoder[0], PROMPTS, LENGTHS, LENGTH, END, jax.random.key(k)) for k in (0, 0, 1)
    ]
    assert np.array_equal(runs[0][0], runs[1][0])
    assert not np.array_equal(runs[0][0], runs[2][0])


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"length": 4}, "length: must be more than the 4 tokens of the prompts, got 4"),
        ({"length": 13}, "tokens: 13 a sequence, more than max_position_embeddings = 12"),
        ({"lengths": jnp.array([4, 0, 3])}, "lengths: must be from 1 to 4"),
        ({"temperature": 0.0}, "temperature: must be a positive number, got 0.0"),
    ],
)
def test_bad_input_is_named(decoder, change, line):
    arguments = {"prompts": PROMPTS, "lengths": LENGTHS, "length": LENGTH, "end": END} | change
    with pytest.raises(InputError, match=f"^{line}"):
        continued(decoder[1], CONFIG, decoder[0], **arguments)
