"""Turns questions with worked answers into the tokens of chats, in the form of SmolLM2-Instruct without system message.

>>> from signal_drift.tasks.answers.worked_answers import WorkedAnswer
>>> answers = [WorkedAnswer("1 + 1?", "#### 2", "2", template=0)]
>>> chats = tokenise_chats(lambda text: list(text.encode()), answers, length=80)
>>> bytes(chats.tokens[0][chats.answered[0]].tolist())
b'#### 2<|im_end|>'
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from signal_drift.errors import InputError
from signal_drift.errors.arguments import function, whole
from signal_drift.errors.words import shown
from signal_drift.tasks.answers.worked_answers import WorkedAnswer

END = "<|im_end|>"
"""Ends a turn, and with it what a model answers."""


class Chats(NamedTuple):
    """Holds token ids, 0 after the end of a chat, and which of them are the answer's, the end of its turn included."""

    tokens: Int[Array, "*n t"]
    answered: Bool[Array, "*n t"]

    def at(self, rows: Int[Array | np.ndarray, "*k"]) -> "Chats":
        """Take these chats in the shape of `rows`: of (steps, batch), one batch for every step."""
        return Chats(*(x[rows] for x in self))


def prompt(question: str) -> str:
    """Write a question as the user's turn, with the assistant's begun: what an answer follows."""
    return f"<|im_start|>user\n{question}{END}\n<|im_start|>assistant\n"


def tokenise_chats(encode: Callable[[str], list[int]], answers: Sequence[WorkedAnswer], length: int) -> Chats:
    """Split every chat into tokens by `encode`, which knows `<|im_start|>` and `<|im_end|>`, and fill it to `length`.

    Raises `InputError` for a chat that is longer, and where `encode` returns no tokens.
    """
    function("encode", encode)
    length = whole("length", length, least=2)
    if not answers:
        raise InputError(f"answers: none to tokenise, got {shown(answers)}")
    turns = [
        Turns(_ids(encode, prompt(x.question)), _ids(encode, x.answer + END), f"the question {shown(x.question)}")
        for x in answers
    ]
    return filled(turns, length)


class Turns(NamedTuple):
    """Holds the tokens of a question, those of its answer, and what an error calls them."""

    question: list[int]
    answer: list[int]
    name: str


def filled(turns: Sequence[Turns], length: int) -> Chats:
    """Lay questions with their answers out as rows of `length` tokens. Raises `InputError` for one that is longer."""
    tokens, answered = np.zeros((len(turns), length), np.int32), np.zeros((len(turns), length), bool)
    for i, (question, answer, name) in enumerate(turns):
        end = len(question) + len(answer)
        if end > length:
            raise InputError(f"length: must be at least {end} for {name}, got {length}")
        tokens[i, :end] = question + answer
        answered[i, len(question) : end] = True
    return Chats(jnp.asarray(tokens), jnp.asarray(answered))


def _ids(encode: Callable[[str], list[int]], text: str) -> list[int]:
    ids = encode(text)
    if not isinstance(ids, list) or not ids:
        raise InputError(f"encode: must return a list of token ids, got {shown(ids)} for {shown(text)}")
    return ids
