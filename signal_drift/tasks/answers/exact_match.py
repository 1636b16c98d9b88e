"""Judges a language model by the numbers that it answers with, by greedy decoding."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from signal_drift.errors import InputError
from signal_drift.errors.arguments import function
from signal_drift.errors.words import shown
from signal_drift.lora.adapters import Weights
from signal_drift.models.bridge import Forward
from signal_drift.models.llama import LlamaConfig, continued
from signal_drift.tasks.answers.chats import END, prompt
from signal_drift.tasks.answers.worked_answers import WorkedAnswer, is_right


def answered_right(
    forward: Forward,
    config: LlamaConfig,
    weights: Weights,
    encode: Callable[[str], list[int]],
    decode: Callable[[list[int]], str],
    questions: Sequence[WorkedAnswer],
    length: int,
) -> Bool[np.ndarray, "n"]:
    """Tell of every question whether the model's answer ends, and has the right number in its line "#### number".

    The answer is what greedy decoding makes of the question's prompt in at most `length` tokens, prompt included; one
    that is cut there is wrong. `encode` knows `<|im_end|>` as one token, `decode` is its inverse. Raises `InputError`
    as `continued` does, where there is no question, and for an `encode` that knows no such token.
    """
    function("encode", encode)
    function("decode", decode)
    if not questions:
        raise InputError(f"questions: none to answer, got {shown(questions)}")
    prompts = [encode(prompt(x.question)) for x in questions]
    lengths = [len(ids) for ids in prompts]
    padded = jnp.array([ids + [0] * (max(lengths) - len(ids)) for ids in prompts])
    end = encode(END)
    if len(end) != 1:
        raise InputError(f"encode: must make one token of {END!r}, got {shown(end)}")
    found = continued(forward, config, weights, padded, jnp.array(lengths), length, end[0])
    answers = [row[own].tolist() for row, own in zip(*map(np.asarray, found), strict=True)]
    return np.array(
        [ids[-1] == end[0] and is_right(decode(ids), x.number) for ids, x in zip(answers, questions, strict=True)]
    )
