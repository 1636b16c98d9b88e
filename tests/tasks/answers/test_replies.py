"""Exact match by tokens, against decoding by hand and a regular expression on the letters that were said."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import signal_drift as sd
from signal_drift.errors import InputError
from signal_drift.models.llama import Llama, LlamaConfig
from signal_drift.tasks.answers.chats import END, Chats, prompt, tokenise_chats
from signal_drift.tasks.answers.replies import end_alike, endings_of, replied
from signal_drift.tasks.answers.worked_answers import WorkedAnswer

SYMBOLS = "0123456789# \nab."
STOP = SYMBOLS.index(".")
CONFIG = LlamaConfig(len(SYMBOLS), 8, 12, 1, num_attention_heads=2, num_key_value_heads=1, head_dim=4)
LENGTH = 24
QUESTIONS = ("a", "bb", "aba", "b#### ")


def encode(text: str) -> list[int]:
    """The letters of a question, without what marks the turns, and of an answer, a full stop for its end."""
    asked = re.fullmatch(r"<\|im_start\|>user\n(.*)<\|im_end\|>\n<\|im_start\|>assistant\n", text)
    return [SYMBOLS.index(x) for x in (asked[1] if asked else text.replace(END, "."))]


def written(ids) -> str:
    return "".join(SYMBOLS[i] for i in ids)


def chats(answers: list[str]) -> tuple[Chats, jax.Array]:
    """Ask the questions with these solutions."""
    asked = [WorkedAnswer(q, x, "", 0) for q, x in zip(QUESTIONS, answers, strict=True)]
    return tokenise_chats(encode, asked, LENGTH), endings_of(encode, asked)


def right_by_hand(said: str, solution: str) -> bool:
    """The number of the last line, where the answer ends."""
    numbers = [re.fullmatch(r"(?:.*\n)?#### (\d+)\.", x, re.DOTALL) for x in (said, solution + ".")]
    return numbers[0] is not None and numbers[1] is not None and numbers[0][1] == numbers[1][1]


SOLUTIONS = ["aa\n#### 12", "#### 7", "b 3\n#### 40", "a\n#### 5"]


@pytest.mark.parametrize(
    ("said", "right"),
    [
        (["aa\n#### 12.", "#### 7.", "b 3\n#### 40.", "a\n#### 5."], [1, 1, 1, 1]),
        (["b\n#### 12.", "aaa a\n#### 7.", "#### 40.", "a\nb\n#### 5."], [1, 1, 1, 1]),
        (["aa\n#### 13.", "#### 8.", "b 3\n#### 41.", "a\n#### 4."], [0, 0, 0, 0]),
        (["aa\n#### 12", "#### 7", "b 3\n#### 40", "a\n#### 5"], [0, 0, 0, 0]),
        (["aa\n#### 112.", "#### 77.", "b 3\n#### 4.", "a\n#### 55."], [0, 0, 0, 0]),
        (["aa\n#### 12a.", "#### 7 .", "b 3\n#### 40\n.", "a\n#### 5b."], [0, 0, 0, 0]),
        (["12.", "7.", "40.", "5."], [0, 0, 0, 0]),
        ([".", "#### 7.", "a.", "#### 5."], [0, 1, 0, 1]),
    ],
)
def test_right_is_who_ends_with_the_number_of_the_solution(said, right):
    """Others' steps are right too; off by one, cut before the end, a digit more or less, and what follows are not.

    Nor is what is a line with the number only together with the question.
    """
    solutions, endings = chats(SOLUTIONS)
    assert endings.tolist() == [len(x.split("\n")[-1]) + 1 for x in SOLUTIONS]
    tokens, own = np.zeros((4, LENGTH), np.int32), np.zeros((4, LENGTH), bool)
    for i, (q, x) in enumerate(zip(QUESTIONS, said, strict=True)):
        begins = len(encode(prompt(q)))
        tokens[i, :begins] = encode(prompt(q))
        tokens[i, begins : begins + len(x)] = encode(x)
        own[i, begins : begins + len(x)] = True
    found = jax.jit(end_alike)(Chats(jnp.asarray(tokens), jnp.asarray(own)), solutions, endings)
    assert found.tolist() == [bool(x) for x in right]
    assert found.tolist() == [right_by_hand(*pair) for pair in zip(said, SOLUTIONS, strict=True)]


def test_nobody_is_right_who_says_nothing():
    solutions, endings = chats(SOLUTIONS)
    assert not end_alike(Chats(solutions.tokens, jnp.zeros_like(solutions.answered)), solutions, endings).any()


@pytest.fixture(scope="module")
def decoder():
    base, forward = sd.base_and_forward(Llama(CONFIG, rngs=nnx.Rngs(7), dtype=jnp.float64))
    return {k: 4 * W for k, W in base.items()}, forward


def reply_by_hand(decoder, question: str, length: int = LENGTH) -> list[int]:
    """Question and answer, every token by numpy from the whole sequence before it."""
    base, forward = decoder
    ids = encode(prompt(question))
    begins = len(ids)
    while len(ids) < length and (len(ids) == begins or ids[-1] != STOP):
        padded = jnp.array([ids + [0] * (LENGTH - len(ids))])
        ids.append(int(np.argmax(np.asarray(forward(base, padded))[0, len(ids) - 1])))
    return ids


def test_replies_are_the_most_likely_tokens_whatever_the_solution(decoder):
    base, forward = decoder
    for solutions in (SOLUTIONS, ["#### 0"] * 4):
        said = replied(forward, CONFIG, base, chats(solutions)[0], STOP)
        for row, own, question in zip(*map(np.asarray, said), QUESTIONS, strict=True):
            expected = reply_by_hand(decoder, question)
            assert row.tolist() == expected + [0] * (LENGTH - len(expected))
            begins = len(encode(prompt(question)))
            assert np.flatnonzero(own).tolist() == list(range(begins, len(expected)))
    assert len({len(reply_by_hand(decoder, q)) for q in QUESTIONS}) > 1, "take another seed"


def test_a_question_without_room_is_named(decoder):
    full = Chats(jnp.zeros((1, 4), jnp.int32), jnp.zeros((1, 4), bool))
    with pytest.raises(InputError, match=r"^questions: must leave room for an answer in 4 tokens, got one that does"):
        replied(decoder[1], CONFIG, decoder[0], full, STOP)


def test_a_solution_without_a_final_number_is_named():
    for answer in ("7", "#### 7\n", "#### seven", "#### 7 or 8"):
        with pytest.raises(InputError, match=r'^answers: must end in a line "#### number", got '):
            endings_of(encode, [WorkedAnswer("a", answer, "7", 0)])


def test_a_tokeniser_that_joins_the_final_line_to_what_is_before_is_named():
    def joined(text: str) -> list[int]:
        return [len(x) for x in re.findall(r"\n#+|.", text, re.DOTALL)]

    assert endings_of(joined, [WorkedAnswer("a", "#### 7", "7", 0)]).tolist() == [len("#### 7" + END)]
    with pytest.raises(InputError, match=r"^encode: must begin a token with the last line of "):
        endings_of(joined, [WorkedAnswer("a", "b\n#### 7", "7", 0)])
