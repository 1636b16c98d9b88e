"""Exact match of final numbers, by a decoder whose answers are made readable as numbers."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import signal_drift as sd
from signal_drift.errors import InputError
from signal_drift.models.llama import Llama, LlamaConfig
from signal_drift.tasks.answers.chats import END, prompt
from signal_drift.tasks.answers.exact_match import answered_right
from signal_drift.tasks.answers.worked_answers import WorkedAnswer

CONFIG = LlamaConfig(6, 8, 12, 1, num_attention_heads=2, num_key_value_heads=1, head_dim=4)
LENGTH, LAST = 40, 5
QUESTIONS = ("a", "bc", "ddd")


def encode(text: str) -> list[int]:
    """The letters of the question and the end of its turn, one token."""
    return [LAST] if text == END else [*(ord(x) - ord("a") for x in text.split("\n")[1].removesuffix(END)), LAST]


def decode(ids: list[int]) -> str:
    return f"so it is\n#### {sum(ids)}"


@pytest.fixture(scope="module")
def decoder():
    base, forward = sd.base_and_forward(Llama(CONFIG, rngs=nnx.Rngs(17), dtype=jnp.float64))
    return {k: 4 * W for k, W in base.items()}, forward


def number(decoder, question: str) -> int:
    """Return what the model answers."""
    return sum(answer(decoder, question)[len(encode(prompt(question))) :])


def ended(decoder, question: str) -> int:
    """How many tokens question and answer have."""
    return len(answer(decoder, question))


def answer(decoder, question: str) -> list[int]:
    """Question and answer, each token from the whole sequence before it."""
    base, forward = decoder
    ids = encode(prompt(question))
    begins = len(ids)
    while len(ids) < LENGTH and (len(ids) == begins or ids[-1] != LAST):
        padded = jnp.array([ids + [0] * (LENGTH - len(ids))])
        ids.append(int(np.asarray(forward(base, padded))[0, len(ids) - 1].argmax()))
    assert ids[-1] == LAST, "take another seed"
    return ids


def test_right_is_who_gives_the_number(decoder):
    base, forward = decoder
    numbers = [number(decoder, q) for q in QUESTIONS]
    for off in (0, 1):
        asked = [
            WorkedAnswer(q, "", str(n + off * (k == 1)), 0)
            for k, (q, n) in enumerate(zip(QUESTIONS, numbers, strict=True))
        ]
        found = answered_right(forward, CONFIG, base, encode, decode, asked, LENGTH)
        assert found.tolist() == [True, not off, True]


def test_an_answer_that_is_cut_is_wrong(decoder):
    """Cut one token before its end, with the number that it has there."""
    base, forward = decoder
    shown = [WorkedAnswer(QUESTIONS[0], "", str(number(decoder, QUESTIONS[0])), 0)]
    for cut, right in ((0, True), (1, False)):
        ends = ended(decoder, QUESTIONS[0]) - cut
        asked = [shown[0]._replace(number=str(int(shown[0].number) - cut * LAST))]
        assert answered_right(forward, CONFIG, base, encode, decode, asked, ends).tolist() == [right]


def test_a_tokeniser_without_the_end_is_named(decoder):
    with pytest.raises(InputError, match=r"^encode: must make one token of '<\|im_end\|>', got "):
        answered_right(
            decoder[1],
            CONFIG,
            decoder[0],
            lambda text: encode(text) * 2,
            decode,
            [WorkedAnswer("a", "", "1", 0)],
            LENGTH,
        )


def test_nothing_to_answer_is_named(decoder):
    with pytest.raises(InputError, match=r"^questions: none to answer"):
        answered_right(decoder[1], CONFIG, decoder[0], encode, decode, [], LENGTH)
