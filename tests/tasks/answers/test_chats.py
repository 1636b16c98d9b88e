"""Chats as tokens, one byte each: read back they are the text, and what is trained on is the answer alone."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from problems import rejects

from signal_drift.tasks.answers.chats import prompt, tokenise_chats
from signal_drift.tasks.answers.worked_answers import WorkedAnswer

ANSWERS = [WorkedAnswer("1 + 1?", "1 + 1 = 2\n#### 2", "2", 0), WorkedAnswer("A long question?", "#### 0", "0", 1)]
WHOLE = [
    b"<|im_start|>user\n1 + 1?<|im_end|>\n<|im_start|>assistant\n1 + 1 = 2\n#### 2<|im_end|>",
    b"<|im_start|>user\nA long question?<|im_end|>\n<|im_start|>assistant\n#### 0<|im_end|>",
]
REPLIES = [b"1 + 1 = 2\n#### 2<|im_end|>", b"#### 0<|im_end|>"]


def as_bytes(text: str) -> list[int]:
    return list(text.encode())


def test_chats_have_the_form_of_the_model_and_zeros_after_the_end() -> None:
    chats = tokenise_chats(as_bytes, ANSWERS, 100)
    assert chats.tokens.dtype == jnp.int32
    assert [bytes(row.tolist()) for row in chats.tokens] == [text.ljust(100, b"\0") for text in WHOLE]


def test_what_is_answered_is_the_answer_and_the_end_of_the_turn() -> None:
    chats = tokenise_chats(as_bytes, ANSWERS, 100)
    found = [bytes(row[mask].tolist()) for row, mask in zip(*map(np.asarray, chats), strict=True)]
    assert found == REPLIES


def test_a_prompt_is_what_comes_before_the_answer() -> None:
    assert [prompt(x.question).encode() + reply for x, reply in zip(ANSWERS, REPLIES, strict=True)] == WHOLE


def test_chats_are_taken_in_the_shape_of_the_rows() -> None:
    chats = tokenise_chats(as_bytes, ANSWERS, 100)
    found = chats.at(np.array([[1], [0], [1]]))
    assert found.tokens.shape == found.answered.shape == (3, 1, 100)
    assert np.array_equal(found.tokens[2, 0], chats.tokens[1])
    assert np.array_equal(found.answered[1, 0], chats.answered[0])


def test_the_length_of_the_longest_is_enough_and_one_less_is_not() -> None:
    longest = max(map(len, WHOLE))
    assert tokenise_chats(as_bytes, ANSWERS, longest).tokens.shape == (2, longest)
    with rejects(f"length: must be at least {longest} for the question ", longest - 1):
        tokenise_chats(as_bytes, ANSWERS, longest - 1)


class Encoding:
    """What a tokenizer returns where its `ids` were forgotten."""


@pytest.mark.parametrize("given", [[], Encoding(), None], ids=["nothing", "an object", "None"])
@pytest.mark.parametrize("of", ["<|im_start|>user", "1 + 1 ="])
def test_text_without_tokens_is_named(given: Any, of: str) -> None:
    with rejects("encode: must return a list of token ids", of):
        tokenise_chats(lambda text: given if text.startswith(of) else [1], ANSWERS, 100)


def test_no_answers_are_refused() -> None:
    with rejects("answers: none to tokenise", "[]"):
        tokenise_chats(as_bytes, [], 100)
