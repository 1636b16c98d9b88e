"""Define what problems with a pretrained model share: it is costly, has a tiny stand-in, and A is drawn in float32."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import jax
from jax import Array

from experiments.lab.problem import Dtype, Problem, Tuning, cast
from signal_drift.lora.adapters import Adapter, init_adapters

RANDOM = "random"
"""The name of the tiny model for tests."""
AFFORDED = Tuning(
    rate_shares=(1.0,), own_rates=(1.0,), alphas=(4.0, 16.0, 64.0, 256.0, 1024.0), grid_alphas=(), grid_ranks=(8,)
)
"""What is tuned where every run takes minutes, without a grid; how many runs and steps is each problem's own."""


@dataclass(frozen=True)
class Pretrained(Problem):
    """Adapt a pretrained model, or for tests a tiny one, which is "random"."""

    model: str = RANDOM
    """The model."""

    costly: ClassVar[bool] = True
    known: ClassVar[dict[str, dict[str, int]]] = {}
    """d_in of every adapted layer of models whose records are reported where their files were not fetched."""

    @property
    def dense(self) -> bool:
        return self.model == RANDOM

    @abstractmethod
    def base(self, dtype: Dtype) -> Mapping[str, Array]:
        """Return W₀ of every adapted matrix."""

    def adapters(self, seed: int, rank: int | None = None, dtype: Dtype = "float64") -> dict[str, Adapter]:
        """Draw A ~ N(0, 1/d_in) in float32, whose random numbers differ from those of float64, and set B = 0."""
        key = jax.random.fold_in(jax.random.key(seed), 2)
        return cast(init_adapters(key, self.base("float32"), rank or self.rank), dtype)

    def fan_in(self) -> dict[str, int]:
        """Return d_in of every adapted layer, of a known model without its files."""
        if self.model in self.known:
            return dict(sorted(self.known[self.model].items()))
        return {layer: W0.shape[1] for layer, W0 in self.base("float32").items()}
