"""Load a language model with the sums that it is asked: those to train on, and those to judge by."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

import signal_drift as sd
from experiments.problems.policy.speaker import APART, Sizes, speaker
from experiments.problems.pretrained import RANDOM
from experiments.problems.smollm import Encode, decoder
from signal_drift.models import LlamaConfig
from signal_drift.models.bridge import Forward
from signal_drift.tasks.answers.chats import Chats
from signal_drift.tasks.policy import END, after_prompts
from signal_drift.tasks.policy.lines import LINE_END, Line, chain_sums, opening, products, tokenise_lines

TINY = Sizes(width=8, heads=2, layers=1, largest=2, pretraining=60)
EXAMPLES = {
    "sums": (Line("0 - 4", -4), Line("4 - 1", 3)),
    "sums of three": (Line("0 - 4 - 8", -12), Line("4 - 1 - 7", -4)),
    "products": (Line("0 * 4", 0), Line("4 * 1", 4)),
}
"""What stands before a question of each kind: the first two that reasoning-gym draws from seed 0."""


class Quiz(NamedTuple):
    """Hold questions with their answers, and what reads them."""

    forward: Forward
    chats: Chats


class Learner(NamedTuple):
    """Hold W₀ of every adapted matrix, the frozen rest, the sums to train on and those apart, and what judges."""

    base: dict[str, Array]
    forward: Forward
    trained: Chats
    held_out: Chats
    fit: Quiz
    judged: dict[str, Quiz]


class Reading(NamedTuple):
    """Hold the sizes of the decoder, how many tokens a prompt of those trained on has, and which ends an answer."""

    config: LlamaConfig
    prompt: int
    end: int


@lru_cache(maxsize=2)
def learner(model: str, judged: int) -> tuple[Learner, Reading]:
    """Load it in float32; so many questions of each kind judge it, and twice as many of those trained on."""
    return _tiny(judged) if model == RANDOM else _loaded(model, judged)


def _tiny(judged: int) -> tuple[Learner, Reading]:
    """The small decoder of the problem `policy`, whose prompts have no examples in them."""
    known = speaker(TINY)
    quizzes = {"held-out sums": known.held_out, "sums of four": known.longer, "differences": known.differences}
    kinds = {name: Quiz(known.forward, chats.at(np.arange(judged))) for name, chats in quizzes.items()}
    fit = Quiz(known.forward, known.trained)
    found = Learner(known.base, known.forward, known.trained, known.held_out, fit, kinds)
    return found, Reading(TINY.config, _prompt(known.trained), END)


def _loaded(model: str, judged: int) -> tuple[Learner, Reading]:
    llama, encode = decoder(model)
    base, forward = sd.base_and_forward(llama)
    sums, three, times = chain_sums(2), chain_sums(3), products()
    trained, apart = divided(without(sums, EXAMPLES["sums"]))
    chats = {name: _written(encode, lines, EXAMPLES["sums"]) for name, lines in (("to", trained), ("apart", apart))}

    def quiz(lines: Sequence[Line], kind: str) -> Quiz:
        """Read the examples once for all questions."""
        examples = EXAMPLES[kind]
        before = encode(opening(examples))
        reads = after_prompts(forward, llama.config, jnp.array([before]), len(lines))
        rows = _written(encode, lines, examples)
        return Quiz(reads, Chats(*(x[:, len(before) :] for x in rows)))

    def some(lines: Sequence[Line], kind: str) -> Quiz:
        left = without(lines, EXAMPLES[kind])
        return quiz([left[i] for i in _order(len(left))[:judged]], kind)

    kinds = {
        "held-out sums": quiz(apart[:judged], "sums"),
        "sums of three": some(three, "sums of three"),
        "products": some(times, "products"),
    }
    fit = quiz(trained[: 2 * judged], "sums")
    found = Learner(base, forward, chats["to"], chats["apart"], fit, kinds)
    return found, Reading(llama.config, _prompt(chats["to"]), encode(LINE_END)[0])


def divided(lines: Sequence[Line]) -> tuple[list[Line], list[Line]]:
    """Divide lines into those trained on and a fifth that is not, both in an order that is the same everywhere."""
    order, apart = _order(len(lines)), len(lines) // APART
    return [lines[i] for i in order[apart:]], [lines[i] for i in order[:apart]]


def without(lines: Sequence[Line], examples: Sequence[Line]) -> list[Line]:
    """Leave out the lines that are shown with their values."""
    return [line for line in lines if line not in examples]


def _order(count: int) -> np.ndarray:
    return np.random.default_rng(0).permutation(count)


def _written(encode: Encode, lines: Sequence[Line], examples: Sequence[Line]) -> Chats:
    longest = max(len(encode(f"{line.expression} =")) + len(encode(f" {line.value}{LINE_END}")) for line in lines)
    return tokenise_lines(encode, lines, examples, len(encode(opening(examples))) + longest)


def _prompt(chats: Chats) -> int:
    """Count the tokens before an answer, of which all have the same number."""
    (count,) = set(np.asarray(chats.answered).argmax(axis=1).tolist())
    return count
