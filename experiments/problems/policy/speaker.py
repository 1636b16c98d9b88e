"""Pre-train a small decoder that knows sums of two numbers and differences, and sums of three only sometimes."""

from collections.abc import Iterable
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.tree_util import Partial

import signal_drift as sd
from experiments.lab.errors import OptionError
from signal_drift.models import Llama, LlamaConfig
from signal_drift.models.bridge import Forward
from signal_drift.tasks.answers.chats import Chats
from signal_drift.tasks.criteria import masked_cross_entropy
from signal_drift.tasks.policy import SYMBOLS, completion_probabilities, tokenise_sums
from signal_drift.tasks.pretraining import pretrained

APART = 5
"""Of so many sums of three numbers one is neither pre-trained nor trained on."""
ROWS, RATE = {"trained": 4, "sums of two": 30, "differences": 30}, 5e-3
"""Questions of each kind in one step of pre-training, and its learning rate."""
LEAST, MOST = 0.05, 0.6
"""The probability of a right answer, over questions to be trained on, that a start must have."""
LONGER = 500
"""Sums of four numbers to be judged by, at most."""


class Sizes(NamedTuple):
    """Hold what a speaker is made by: d_model, heads, layers, the largest number that is added, pre-training steps."""

    width: int
    heads: int
    layers: int
    largest: int
    pretraining: int

    @property
    def config(self) -> LlamaConfig:
        """Return the decoder's own sizes."""
        d = self.width // self.heads
        return LlamaConfig(len(SYMBOLS), self.width, 2 * self.width, self.layers, self.heads, self.heads, d)


class Speaker(NamedTuple):
    """Hold W₀ of the layers, the frozen rest, the questions by what they are for."""

    base: dict[str, Array]
    forward: Forward
    trained: Chats
    held_out: Chats
    longer: Chats
    differences: Chats


@lru_cache(maxsize=2)
def speaker(sizes: Sizes) -> Speaker:
    """Pre-train in float32. Raises `OptionError` where the start would solve hardly any sum, or nearly all."""
    sets = questions(sizes.largest)
    of_model, of_rows = jax.random.split(jax.random.fold_in(jax.random.key(0), 200))
    model = Llama(sizes.config, rngs=nnx.Rngs(of_model))
    loss = Partial(_pretraining_loss, [sets[kind] for kind in ROWS], of_rows)
    base, forward = sd.base_and_forward(pretrained(model, loss, RATE, sizes.pretraining), "layers.*")
    solves = float(jnp.mean(jax.jit(completion_probabilities)(forward, sets["trained"], base)))
    if not LEAST <= solves <= MOST:
        raise OptionError(
            f"pretraining: must leave a model that solves from {LEAST:.0%} to {MOST:.0%} of the sums, got {solves:.1%} "
            f"after {sizes.pretraining} steps"
        )
    kept = (sets[kind] for kind in ("trained", "held out", "longer", "differences"))
    return Speaker(base, forward, *kept)


def questions(largest: int) -> dict[str, Chats]:
    """Write all sums of two and three numbers from 0 to `largest`, differences of at least 0, and some sums of four."""
    numbers, draws = range(largest + 1), np.random.default_rng(0)
    three = _sums(product(numbers, repeat=3))
    order, apart = draws.permutation(len(three)), len(three) // APART
    four = _sums(product(numbers, repeat=4))
    written = {
        "trained": [three[i] for i in order[apart:]],
        "held out": [three[i] for i in order[:apart]],
        "sums of two": _sums(product(numbers, repeat=2)),
        "differences": [f"{a}-{b}" for a, b in product(numbers, repeat=2) if a >= b],
        "longer": [four[i] for i in draws.permutation(len(four))[:LONGER]],
    }
    length = len("9+9+9=27.")
    return {kind: tokenise_sums(sums, length + 2 * (kind == "longer")) for kind, sums in written.items()}


def _sums(terms: Iterable[tuple[int, ...]]) -> list[str]:
    return ["+".join(map(str, x)) for x in terms]


def _pretraining_loss(sets: list[Chats], key: Array, model: Llama, t: Array) -> Array:
    keys = jax.random.split(jax.random.fold_in(key, t), len(sets))
    rows = [
        x.at(jax.random.randint(k, (count,), 0, len(x.tokens)))
        for x, k, count in zip(sets, keys, ROWS.values(), strict=True)
    ]
    chats = Chats(*(jnp.concatenate(x) for x in zip(*rows, strict=True)))
    return masked_cross_entropy(chats.tokens[:, 1:], chats.answered[:, 1:], model(chats.tokens)[:, :-1])
