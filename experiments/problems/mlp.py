"""The setting of App. E and the choices it leaves open, shared by every experiment on the MLP."""

from dataclasses import dataclass
from typing import Literal

import jax
from flax import nnx
from jax import Array
from jax.tree_util import Partial

import signal_drift as sd
from experiments.lab.errors import check_positive
from signal_drift.models.bridge import Forward
from signal_drift.tasks.teacher import Reduction, Regression, squared_error, teacher_regression


@dataclass(frozen=True)
class Setting:
    """App. E: linear layers with SiLU between them, LoRA on every layer, a teacher with σ_i = 1/i."""

    width: int = 32
    """d, inputs, outputs and hidden units of every layer."""
    depth: int = 5
    """Number of linear layers."""
    samples: int = 100
    """n, training inputs, drawn from N(0, 1)."""
    rank: int = 16
    """r of every adapter."""
    seeds: int = 5
    """Independent draws of W₀, A, teacher and data."""
    scaling_rule: Literal["alpha/r", "alpha"] = "alpha/r"
    """s, the factor before BA: the paper writes α/r."""
    activate_output: bool = False
    """Apply SiLU after the last layer as well; the paper does not say, its text places SiLU between layers."""
    reduction: Reduction = "mean"
    """MSE over all entries of Y, or their sum of squares."""
    target_scale: float = 1.0
    """c in Y = c·X W_trueᵀ; the paper has 1."""

    def __post_init__(self) -> None:
        check_positive(self, "width", "depth", "samples", "rank", "seeds")

    def scaling(self, alpha: float, rank: int | None = None) -> float:
        """The factor s before BA, by the scaling rule."""
        return alpha / (rank or self.rank) if self.scaling_rule == "alpha/r" else alpha

    @property
    def sigma_a(self) -> float:
        """Standard deviation of the entries of A: N(0, 1/d)."""
        return self.width**-0.5


def regression(setting: Setting, seed: int) -> tuple[dict[str, Array], Forward, Regression]:
    """(base, forward, data): everything random is drawn from `seed`, except the adapters."""
    model = sd.MLP([setting.width] * (setting.depth + 1), rngs=nnx.Rngs(seed), activate_output=setting.activate_output)
    base, forward = sd.base_and_forward(model)
    key = jax.random.fold_in(jax.random.key(seed), 1)
    data = teacher_regression(key, setting.samples, setting.width, setting.width, setting.target_scale)
    return base, forward, data


def problem(setting: Setting, seed: int) -> tuple[Partial, dict[str, Array]]:
    """(loss, base) of this regression."""
    base, forward, data = regression(setting, seed)
    return squared_error(forward, data, setting.reduction), base


def adapters(setting: Setting, base: dict[str, Array], seed: int) -> dict[str, sd.Adapter]:
    """A ~ N(0, 1/d), B = 0."""
    return sd.init_adapters(jax.random.fold_in(jax.random.key(seed), 2), base, setting.rank)
