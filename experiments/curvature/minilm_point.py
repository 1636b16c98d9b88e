"""Where the curvature of the pretrained encoder is taken: a few texts, and θ before or after LoRA at η_FFT."""

from dataclasses import dataclass

import jax
import numpy as np
import xarray as xr
from jax.tree_util import Partial

import signal_drift as sd
from experiments.lab.errors import check_positive
from experiments.problems.adaptation import Dtype
from experiments.problems.minilm import Encoder
from experiments.tuning.methods import Recipe
from experiments.tuning.rates import fft_rate
from experiments.tuning.runs import Training, adapted
from signal_drift.tasks.rating_head import rating_error


@dataclass(frozen=True)
class Curvature(Training):
    """The error on a few texts as a function of the weights, at one rank and one α."""

    texts: int = 8
    """Texts of the loss whose curvature is taken: the first that the training run of this seed sees."""
    draws: int = 1
    """Draws of the texts and of A."""
    rank: int = 8
    """r of every adapter."""
    alpha: float = 16.0
    """α of the training and of the operators."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "texts", "draws", "rank")

    def scaling(self, alpha: float) -> float:
        """S = α/r."""
        return alpha / self.rank

    def point(self, first: xr.Dataset, seed: int, state: str, dtype: Dtype) -> "Point":
        """θ as drawn ("initial"), or after training at α and η_FFT in float32."""
        encoder = self.encoder(dtype)
        rows = np.random.default_rng(seed).permutation(len(encoder.training.ratings))[: self.texts]
        loss = rating_error(encoder.forward, encoder.head, encoder.training.at(rows))
        if state == "initial":
            return encoder, loss, encoder.adapters(seed, self.rank)
        recipe = Recipe(dict.fromkeys(encoder.base, self.scaling(self.alpha)))
        run = adapted(self, self.encoder("float32"), seed, fft_rate(first), recipe, self.rank)
        return encoder, loss, jax.tree.map(lambda x: x.astype(dtype), run.trained)


Point = tuple[Encoder, Partial, dict[str, sd.Adapter]]
"""(encoder, loss, θ)."""
