"""Pose a small transformer, pre-trained on scikit-learn's digits row by row, adapted to the same digits rotated."""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar, Self

import jax
from jax.tree_util import Partial

from experiments.lab.errors import OptionError, check_positive
from experiments.lab.problem import Drawn, Dtype, Problem, Training, cast
from signal_drift.tasks.digits import Adaptation, accuracy, cross_entropy, rotated_digit_rows


@dataclass(frozen=True)
class Transformer(Problem):
    """Adapt a transformer that reads 8×8 digits row by row, pre-trained upright; LoRA on all layers of its blocks."""

    rank: int = 2
    """r of every adapter, where an experiment does not vary it."""
    width: int = 12
    """d_model."""
    heads: int = 2
    """Attention heads."""
    blocks: int = 2
    """Blocks of attention and MLP; the MLP is twice as wide."""
    samples: int = 64
    """Rotated images to adapt to; 900 upright ones are for pre-training."""
    angle: float = 45.0
    """Rotation of the digits, in degrees."""
    pretraining: int = 600
    """Steps of pre-training."""

    reproduced: ClassVar[tuple[str, ...]] = (
        *("algebra", "spectral_suppression", "purification", "residual_curvature", "asymmetric_scaling", "layers"),
        *("dynamics", "update_scaling"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "width", "heads", "blocks", "samples", "pretraining")
        if self.width % self.heads:
            raise OptionError(f"heads: must divide the width {self.width}, got {self.heads}")

    @property
    def name(self) -> str:
        return "transformer"

    @property
    def label(self) -> str:
        return f"transformer on rotated digits, {self.blocks} blocks of width {self.width}"

    @property
    def dense(self) -> bool:
        return True

    def draw(self, seed: int, dtype: Dtype = "float64") -> Drawn:
        drawn = _drawn(*self._sizes(), seed)
        return cast(Drawn(drawn.base, cross_entropy(drawn.forward, drawn.training)), dtype)

    def training(self, seed: int, steps: int, dtype: Dtype = "float64") -> Training:
        drawn, loss = _drawn(*self._sizes(), seed), self.draw(seed, dtype).loss
        judge = Partial(accuracy, cast(drawn.forward, dtype), cast(drawn.validation, dtype))
        return Training(loss, None, loss, {"held-out accuracy": judge})

    def fan_in(self) -> dict[str, int]:
        return fan_in_of_blocks(self.blocks, self.width)

    def _sizes(self) -> tuple[int, int, int, float, int, int]:
        return self.width, self.heads, self.blocks, self.angle, self.samples, self.pretraining

    def tiny(self) -> Self:
        return replace(self, width=4, blocks=1, samples=12, pretraining=20, rank=2)


def fan_in_of_blocks(blocks: int, width: int) -> dict[str, int]:
    """Return d_in of every layer of blocks whose MLP is twice as wide, without the pre-training that a draw takes."""
    inputs = {f"attention.{x}": width for x in ("key", "out", "query", "value")}
    inputs |= {"contract": 2 * width, "expand": width}
    return {f"blocks.{i}.{name}": d_in for i in range(blocks) for name, d_in in inputs.items()}


@lru_cache(maxsize=16)
def _drawn(width: int, heads: int, blocks: int, angle: float, samples: int, steps: int, seed: int) -> Adaptation:
    return rotated_digit_rows(jax.random.key(seed), width, heads, blocks, angle=angle, samples=samples, steps=steps)


PROBLEM = Transformer()
