"""Pose flow matching (Sec. 5.1): a transformer that draws the digits 0 to 6 learns 7, 8 and 9 from a few images."""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.tree_util import Partial

import signal_drift as sd
from experiments.lab.errors import OptionError, check_positive
from experiments.lab.problem import DENSE, Drawn, Dtype, Problem, Training, Tuning, cast
from experiments.problems.transformer import fan_in_of_blocks
from signal_drift.models import FlowTransformer
from signal_drift.models.bridge import Forward
from signal_drift.tasks.digits import CLASSES, SIDE, Classification, accuracy, rotated_digits, upright_digits
from signal_drift.tasks.flow_matching import Lines, batch_flow_loss, draw_lines, flow_loss, sampled
from signal_drift.tasks.pretraining import pretrained

KNOWN = 7
"""Digits below it are pre-trained on, the others are learned."""
APART = 5
"""Of so many images of a known digit one is not pre-trained on."""
BATCH, RATE = 64, 2e-3
"""Images in one step of pre-training, and its learning rate."""


class Painter(NamedTuple):
    """Hold W₀ of the blocks' layers, the frozen rest, the images by what they are for, and who judges samples."""

    base: dict[str, Array]
    forward: Forward
    few: Classification
    held_out: Classification
    known: Classification
    judge: tuple[Forward, dict[str, Array]]


@dataclass(frozen=True)
class Flow(Problem):
    """Adapt all layers of the blocks; embeddings, norms, biases and head are frozen, the new digits' vectors too.

    A step sees as many of the few images as `batch`, with noise and times of its own, which the seed draws and all
    methods share. Judged by how much of the velocity is explained on other images of the new digits, and on images of
    the known ones, and by how many samples a classifier takes for what they were asked to be.
    """

    rank: int = 4
    """r of every adapter, where an experiment does not vary it."""
    width: int = 32
    """d_model."""
    heads: int = 2
    """Attention heads."""
    blocks: int = 2
    """Blocks of attention and MLP; the MLP is twice as wide."""
    few: int = 10
    """Images of every new digit to learn from."""
    pretraining: int = 3000
    """Steps of pre-training on the known digits."""
    batch: int = 32
    """Lines from noise to an image in a training step."""
    judged: int = 256
    """Lines, and samples, by which a trained model is judged."""
    lines: int = 64
    """Lines of the loss whose curvature is taken."""

    reproduced: ClassVar[tuple[str, ...]] = (
        *("spectra_at_scale", "is_it_curvature"),
        *("rates", "protocol_comparison", "where_alpha_pays"),
    )
    tuning: ClassVar[Tuning | None] = Tuning(
        steps=200, ranks=(1, 4, 16), grid_ranks=(4,), protocol_ranks=(4, 16), rate_shares=(1.0,)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "width", "heads", "blocks", "few", "pretraining", "batch", "judged", "lines")
        if self.width % self.heads:
            raise OptionError(f"heads: must divide the width {self.width}, got {self.heads}")
        if self.few > 100:
            raise OptionError(f"few: must leave images to judge by, at most 100, got {self.few}")

    @property
    def name(self) -> str:
        return "flow"

    @property
    def label(self) -> str:
        return f"flow matching on digits, new ones from {self.few} images each"

    @property
    def dense(self) -> bool:
        return 8 * self.blocks * self.width**2 <= DENSE

    def painter(self, dtype: Dtype) -> Painter:
        """Return the pre-trained model with its images, the same for every seed."""
        return cast(_painter(self.width, self.heads, self.blocks, self.few, self.pretraining), dtype)

    def draw(self, seed: int, dtype: Dtype = "float64") -> Drawn:
        painter = self.painter(dtype)
        stream = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), self._stream(seed, -(-self.lines // self.batch)))
        return Drawn(
            painter.base, flow_loss(painter.forward, cast(jax.tree.map(lambda x: x[: self.lines], stream), dtype))
        )

    def training(self, seed: int, steps: int, dtype: Dtype = "float64") -> Training:
        painter, single = self.painter(dtype), self.painter("float32")
        few, held_out, known = (
            flow_loss(painter.forward, cast(_lines(images, self.judged, _key(use)), dtype))
            for use, images in enumerate((single.few, single.held_out, single.known))
        )
        scores = {
            "velocity explained, held-out images": Partial(_explained, held_out),
            "velocity explained, known digits": Partial(_explained, known),
            "samples taken for what they are": Partial(_recognised, painter, *asked_for(self.judged, dtype)),
        }
        return Training(batch_flow_loss(painter.forward), cast(self._stream(seed, steps), dtype), few, scores)

    def _stream(self, seed: int, steps: int) -> Lines:
        """The lines of every step; those of the first do not depend on how many there are."""
        few, key = self.painter("float32").few, jax.random.fold_in(jax.random.key(seed), 3)
        return jax.vmap(lambda t: _lines(few, self.batch, jax.random.fold_in(key, t)))(jnp.arange(steps))

    def fan_in(self) -> dict[str, int]:
        return fan_in_of_blocks(self.blocks, self.width)

    def adapters(self, seed: int, rank: int | None = None, dtype: Dtype = "float64") -> dict[str, sd.Adapter]:
        """Draw A ~ N(0, 1/d_in) anew for every rank."""
        r = rank or self.rank
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 2), r)
        return sd.init_adapters(key, self.painter(dtype).base, r)

    def tiny(self) -> Self:
        return replace(self, width=4, blocks=1, few=3, pretraining=20, batch=4, judged=6, lines=4, rank=2)


def _lines(images: Classification, count: int, key: Array) -> Lines:
    """So many lines to images drawn with replacement."""
    of_rows, of_lines = jax.random.split(key)
    chosen = images.at(jax.random.randint(of_rows, (count,), 0, len(images.X)))
    return draw_lines(of_lines, chosen.X, chosen.labels)


def _key(use: int) -> Array:
    """Make the key of a use that is the same for every seed, none that a seed has."""
    return jax.random.fold_in(jax.random.key(0), 100 + use)


def _explained(loss: Partial, weights: dict[str, Array]) -> Array:
    """1 − ℓ(w)/mean (x − ε)²: 0 is a velocity of zero, 1 the lines themselves."""
    _, criterion = loss.args
    (velocity,) = criterion.args
    return 1 - loss(weights) / jnp.mean(velocity**2)


def _recognised(painter: Painter, noise: Array, labels: Array, weights: dict[str, Array]) -> Array:
    """The share of samples that the judge takes for what they were asked to be."""
    images = sampled(painter.forward, weights, noise, labels)
    forward, judge = painter.judge
    return accuracy(forward, Classification((images + 1) / 2, labels), judge)


def asked_for(count: int, dtype: Dtype) -> tuple[Array, Array]:
    """Return the noise that samples begin with, always the same, and their digits: the new ones in turn."""
    noise = jax.random.normal(_key(3), (count, SIDE**2), "float32").astype(dtype)
    return noise, KNOWN + jnp.arange(count) % (CLASSES - KNOWN)


@lru_cache(maxsize=2)
def _painter(width: int, heads: int, blocks: int, few: int, steps: int) -> Painter:
    """In float32. The first `few` images of a new digit are the few; one of five of a known one is kept to judge by."""
    pixels, digits = upright_digits()
    images = Classification(jnp.asarray(2 * pixels - 1, "float32"), jnp.asarray(digits))
    places = np.cumsum(digits[:, None] == np.arange(CLASSES), axis=0)[np.arange(len(digits)), digits]
    new, apart = digits >= KNOWN, places % APART == 0
    few_new, held_out, pretraining, known = (
        images.at(jnp.asarray(np.flatnonzero(which)))
        for which in (new & (places <= few), new & (places > few), ~new & ~apart, ~new & apart)
    )
    of_model, of_lines, of_judge = (_key(use) for use in (4, 5, 6))
    model = FlowTransformer(
        SIDE, CLASSES, patch=2, width=width, heads=heads, blocks=blocks, rngs=nnx.Rngs(of_model), dtype="float32"
    )
    trained = pretrained(model, Partial(_pretraining_loss, pretraining, of_lines), RATE, steps)
    base, forward = sd.base_and_forward(trained, "blocks.*")
    judge = rotated_digits(of_judge, angle=0.0)
    return Painter(base, forward, few_new, held_out, known, (judge.forward, judge.base))


def _pretraining_loss(images: Classification, key: Array, model: FlowTransformer, t: Array) -> Array:
    lines = _lines(images, BATCH, jax.random.fold_in(key, t))
    return jnp.mean((model(lines.points, lines.time, lines.labels) - lines.velocity) ** 2)


PROBLEM = Flow()
