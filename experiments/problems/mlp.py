"""Pose the MLP of App. E, with the choices that the paper leaves open."""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import jax
from flax import nnx

import signal_drift as sd
from experiments.lab.errors import check_positive
from experiments.lab.problem import DENSE, Drawn, Dtype, Problem, Training, cast
from signal_drift.models.bridge import Forward
from signal_drift.tasks.teacher import Reduction, Regression, squared_error, teacher_regression


@dataclass(frozen=True)
class MLP(Problem):
    """Stack linear layers with SiLU between them, LoRA on all; a teacher with σ_i = 1/i, full batch (App. E)."""

    width: int = 32
    """d, inputs, outputs and hidden units of every layer."""
    depth: int = 5
    """Number of linear layers."""
    samples: int = 100
    """n, training inputs, drawn from N(0, 1)."""
    scaling_rule: Literal["alpha/r", "alpha", "alpha/sqrt(r)"] = "alpha/r"
    """s, the factor before BA: the paper writes α/r; rsLoRA's is α/√r."""
    activate_output: bool = False
    """Apply SiLU after the last layer as well; the paper does not say, its text places SiLU between layers."""
    reduction: Reduction = "mean"
    """MSE over all entries of Y, or their sum of squares."""
    target_scale: float = 1.0
    """c in Y = c·X W_trueᵀ; the paper has 1."""

    paper: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "width", "depth", "samples")

    @property
    def name(self) -> str:
        return "mlp"

    @property
    def label(self) -> str:
        return f"MLP of App. E, d = {self.width}"

    @property
    def dense(self) -> bool:
        return self.depth * self.width**2 <= DENSE

    def regression(self, seed: int) -> tuple[dict[str, jax.Array], Forward, Regression]:
        """Draw W₀, the model as a function of its weights, and the data of the teacher."""
        widths, rngs = [self.width] * (self.depth + 1), nnx.Rngs(seed)
        base, forward = sd.base_and_forward(sd.MLP(widths, rngs=rngs, activate_output=self.activate_output))
        key = jax.random.fold_in(jax.random.key(seed), 1)
        return base, forward, teacher_regression(key, self.samples, self.width, self.width, self.target_scale)

    def draw(self, seed: int, dtype: Dtype = "float64") -> Drawn:
        base, forward, data = self.regression(seed)
        return cast(Drawn(base, squared_error(forward, data, self.reduction)), dtype)

    def training(self, seed: int, steps: int, dtype: Dtype = "float64") -> Training:
        loss = self.draw(seed, dtype).loss
        return Training(loss, None, loss, {})

    def fan_in(self) -> dict[str, int]:
        return {f"layers.{i}": self.width for i in range(self.depth)}

    def scaling(self, alpha: float, rank: int | None = None) -> float:
        rank = rank or self.rank
        return alpha / {"alpha/r": rank, "alpha": 1, "alpha/sqrt(r)": rank**0.5}[self.scaling_rule]

    def resized(self, width: int) -> Self:
        return replace(self, width=width, rank=min(self.rank, max(1, width // 2)))

    def tiny(self) -> Self:
        return replace(self, width=6, depth=3, samples=20, rank=3)


PROBLEM = MLP()
