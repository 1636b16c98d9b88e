"""Pose rotated digits: an MLP pre-trained on scikit-learn's upright digits is adapted to them turned by 45°."""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar, Self

import jax
from jax.tree_util import Partial

import signal_drift as sd
from experiments.lab.errors import check_positive
from experiments.lab.problem import Drawn, Dtype, Problem, Training, Tuning, cast
from signal_drift.tasks.digits import Adaptation, accuracy, cross_entropy, rotated_digits


@dataclass(frozen=True)
class Digits(Problem):
    """Adapt the MLP 64 → 64 → 64 → 10 under cross-entropy, full batch, judged on held-out rotated images as well."""

    samples: int = 300
    """Rotated images to adapt to; 900 upright ones are for pre-training, the rest for validation."""
    angle: float = 45.0
    """Rotation of the digits, in degrees."""

    reproduced: ClassVar[tuple[str, ...]] = ("drift_knockout",)
    tuning: ClassVar[Tuning | None] = Tuning()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "samples")

    @property
    def name(self) -> str:
        return "digits"

    @property
    def label(self) -> str:
        return f"digits rotated by {self.angle:g}°"

    @property
    def dense(self) -> bool:
        return False

    def draw(self, seed: int, dtype: Dtype = "float64") -> Drawn:
        drawn = _drawn(self.angle, self.samples, seed)
        return cast(Drawn(drawn.base, cross_entropy(drawn.forward, drawn.training)), dtype)

    def training(self, seed: int, steps: int, dtype: Dtype = "float64") -> Training:
        drawn, loss = _drawn(self.angle, self.samples, seed), self.draw(seed, dtype).loss
        judge = Partial(accuracy, cast(drawn.forward, dtype), cast(drawn.validation, dtype))
        return Training(loss, None, loss, {"held-out accuracy": judge})

    def fan_in(self) -> dict[str, int]:
        return {"layers.0": 64, "layers.1": 64, "layers.2": 64}

    def adapters(self, seed: int, rank: int | None = None, dtype: Dtype = "float64") -> dict[str, sd.Adapter]:
        """Draw A ~ N(0, 1/d_in) anew for every rank."""
        r = rank or self.rank
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 2), r)
        return sd.init_adapters(key, self.draw(seed, dtype).base, r)

    def tiny(self) -> Self:
        return replace(self, samples=30, rank=2)


@lru_cache(maxsize=16)
def _drawn(angle: float, samples: int, seed: int) -> Adaptation:
    return rotated_digits(jax.random.key(seed), angle=angle, samples=samples)


PROBLEM = Digits()
