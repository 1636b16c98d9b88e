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
PROMPTS, LENGTHS, LENGTH, END = jnp.array([[1, 5, 3, 7], [2, 9, 0, 0], [4, 4, 6, 0]]), jnp.array([4, 2, 3]), 12, 8


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
    empty = jnp.zeros((1, 8, 2, 4))

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
    """The first drawn token over 4000 keys: within five standard errors; with twice the temperature it is not."""
    base, forward = decoder
    keys = jax.random.split(jax.random.key(0), 4000)

    def first(key: jax.Array) -> jax.Array:
        return continued(forward, CONFIG, base, PROMPTS[:1], LENGTHS[:1], 5, END, key, temperature=0.5)[0][0, 4]

    counts = np.bincount(np.asarray(jax.vmap(first)(keys)), minlength=CONFIG.vocab_size) / len(keys)
    logits = np.asarray(forward(base, PROMPTS[:1])[0, 3])
    for temperature, fits in ((0.5, True), (1.0, False)):
        p = np.exp(logits / temperature - np.max(logits / temperature))
        p /= p.sum()
        assert np.all(np.abs(counts - p) < 5 * np.sqrt(p * (1 - p) / len(keys)) + 1e-12) == fits


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
