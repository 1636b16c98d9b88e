"""The small transformer on rotated digits, the second model on which statements are measured."""

from dataclasses import dataclass
from functools import lru_cache

import jax
from jax import Array
from jax.tree_util import Partial

import signal_drift as sd
from experiments.lab.errors import OptionError, check_positive
from signal_drift.tasks.digits import cross_entropy, rotated_digit_rows


@dataclass(frozen=True)
class Setting:
    """A transformer that reads 8×8 digits row by row, pre-trained upright; LoRA on all layers of its blocks."""

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
    rank: int = 2
    """r of every adapter."""
    seeds: int = 5
    """Independent draws of images, pre-trained weights and A."""

    def __post_init__(self) -> None:
        check_positive(self, "width", "heads", "blocks", "samples", "pretraining", "rank", "seeds")
        if self.width % self.heads:
            raise OptionError(f"heads: must divide the width {self.width}, got {self.heads}")

    def scaling(self, alpha: float, rank: int | None = None) -> float:
        """S = α/r."""
        return alpha / (rank or self.rank)


def problem(setting: Setting, seed: int) -> tuple[Partial, dict[str, Array]]:
    """(loss, base): the mean cross-entropy on the rotated images, and W₀ of the adapted layers."""
    sizes = (setting.width, setting.heads, setting.blocks, setting.angle, setting.samples, setting.pretraining)
    return _problem(*sizes, seed)


@lru_cache(maxsize=16)
def _problem(width: int, heads: int, blocks: int, angle: float, samples: int, steps: int, seed: int):
    drawn = rotated_digit_rows(jax.random.key(seed), width, heads, blocks, angle=angle, samples=samples, steps=steps)
    return cross_entropy(drawn.forward, drawn.training), drawn.base


def adapters(setting: Setting, base: dict[str, Array], seed: int, rank: int | None = None) -> dict[str, sd.Adapter]:
    """A ~ N(0, 1/d_in), B = 0."""
    return sd.init_adapters(jax.random.fold_in(jax.random.key(seed), 2), base, rank or setting.rank)


def sigma_a(base: dict[str, Array]) -> dict[str, float]:
    """Standard deviation of the entries of A, 1/√d_in of each layer."""
    return {layer: W0.shape[1] ** -0.5 for layer, W0 in base.items()}


TINY = {"width": 4, "blocks": 1, "samples": 12, "pretraining": 20, "rank": 2, "seeds": 2}
"""The size used in tests."""
