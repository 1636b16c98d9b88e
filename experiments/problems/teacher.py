"""Pose the teacher tasks of Sec. 2: the MLP of App. E at two widths, tuned by its training loss."""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import jax

import signal_drift as sd
from experiments.lab.problem import Dtype, Tuning
from experiments.problems.mlp import MLP


@dataclass(frozen=True)
class Teacher64(MLP):
    """Pose the regression of App. E as a task to be tuned, at d = 64."""

    width: int = 64
    """d, inputs, outputs and hidden units of every layer."""

    paper: ClassVar[bool] = False
    reproduced: ClassVar[tuple[str, ...]] = ("drift_knockout",)
    tuning: ClassVar[Tuning | None] = Tuning()

    @property
    def name(self) -> str:
        return "teacher64"

    @property
    def label(self) -> str:
        return f"teacher task, MLP with d = {self.width}"

    def adapters(self, seed: int, rank: int | None = None, dtype: Dtype = "float64") -> dict[str, sd.Adapter]:
        """Draw A ~ N(0, 1/d_in) anew for every rank."""
        r = rank or self.rank
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 2), r)
        return sd.init_adapters(key, self.draw(seed, dtype).base, r)

    def resized(self, width: int) -> Self:
        return self

    def tiny(self) -> Self:
        return replace(self, width=8, depth=3, samples=20, rank=3)


@dataclass(frozen=True)
class Teacher256(Teacher64):
    """Pose that task at d = 256, where a run costs twenty times as much: fewer ranks, and one for the (α, η) grid."""

    width: int = 256
    """d, inputs, outputs and hidden units of every layer."""

    reproduced: ClassVar[tuple[str, ...]] = ()
    tuning: ClassVar[Tuning | None] = Tuning(ranks=(1, 4, 16, 64), grid_ranks=(16,))

    @property
    def name(self) -> str:
        return "teacher256"


PROBLEMS = (Teacher64(), Teacher256())
