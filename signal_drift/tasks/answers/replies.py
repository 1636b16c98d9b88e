"""Lets a decoder answer the questions of chats, and tells which of its answers end as the solutions do."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Bool, Int, Key

from signal_drift.errors import InputError
from signal_drift.errors.arguments import function
from signal_drift.errors.words import shown
from signal_drift.lora.adapters import Weights
from signal_drift.models.bridge import Forward
from signal_drift.models.llama import LlamaConfig, continued
from signal_drift.tasks.answers.chats import END, Chats
from signal_drift.tasks.answers.worked_answers import FINAL, WorkedAnswer


def replied(
    forward: Forward,
    config: LlamaConfig,
    weights: Weights,
    questions: Chats,
    end: int,
    key: Key[Array, ""] | None = None,
) -> Chats:
    """Answer every question by the most likely tokens, or by drawn ones where there is a `key`.

    A question is what stands before the answer in `questions`; the answer itself is not read. In what is returned
    `answered` are the model's own tokens, the `end` included; an answer without it is cut at the length of `questions`.
    Traceable. Raises `InputError` for questions that leave no room for an answer, and as `continued` does.
    """
    begins, room = questions.answered.argmax(1), questions.tokens.shape[1]
    if not isinstance(begins, Tracer) and not bool(jnp.all(begins)):
        raise InputError(f"questions: must leave room for an answer in {room} tokens, got one that does not")
    return Chats(*continued(forward, config, weights, questions.tokens[:, :-1], begins, room, end, key))


def end_alike(said: Chats, solutions: Chats, endings: Int[Array, "*n"]) -> Bool[Array, "*n"]:
    """Tell of every answer whether its last `endings` tokens are those of its solution.

    With the tokens of the line "#### number<|im_end|>" it is the exact match of the final number, as it is spelled
    there: an answer that is cut has no such line, nor has one that goes on after it. Traceable.
    """
    same = _from_the_end(said) == _from_the_end(solutions)
    return jnp.all(same | (jnp.arange(same.shape[1]) >= endings[:, None]), axis=1)


def endings_of(encode: Callable[[str], list[int]], answers: Sequence[WorkedAnswer]) -> Int[Array, "*n"]:
    """Count the tokens of the line "#### number<|im_end|>" with which every answer ends.

    Raises `InputError` for an answer that ends in no such line, and for an `encode` that does not begin a token there.
    """
    function("encode", encode)
    return jnp.array([_ending(encode, x.answer + END) for x in answers])


def _ending(encode: Callable[[str], list[int]], text: str) -> int:
    begins = text.rfind("\n") + 1
    if not FINAL.fullmatch(text[begins:].removesuffix(END)):
        raise InputError(f'answers: must end in a line "#### number", got {shown(text)}')
    line = encode(text[begins:])
    if encode(text)[-len(line) :] != line:
        raise InputError(f"encode: must begin a token with the last line of {shown(text)}")
    return len(line)


def _from_the_end(chats: Chats) -> Int[Array, "n t"]:
    """The tokens of every answer, the last one first; −1 after its first."""
    tokens, answered = (x[:, ::-1] for x in chats)
    order = jnp.arange(tokens.shape[1]) + answered.argmax(1)[:, None]
    rows = jnp.where(answered, tokens, -1)
    return jnp.take_along_axis(rows, order, axis=1, mode="fill", fill_value=-1)
