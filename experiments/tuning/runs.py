"""A run of Adam on batches of rated text, for LoRA or all weights of the layers, and how well the result rates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jax import Array

import signal_drift as sd
from experiments.lab.errors import OptionError, check_ascending, check_positive
from experiments.problems.minilm import SETS, TRAINING, Encoder, Setting
from experiments.tuning.methods import Recipe
from signal_drift.tasks.rating_head import Examples, batch_error, embeddings


@dataclass(frozen=True)
class Training(Setting):
    """Less than one pass over the training texts, in an order that the seed draws and all methods share."""

    steps: int = 50
    """Training steps."""
    batch: int = 32
    """Texts of a step."""
    seeds: int = 3
    """Draws of the order of the texts and of A."""
    fft_rates: tuple[float, ...] = tuple(10.0 ** (k / 2) for k in range(-11, -5))
    """Learning rates of the full fine-tuning sweep that finds η_FFT."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "steps", "batch", "seeds")
        if min(self.fft_rates, default=0) <= 0 or len(self.fft_rates) < 3:
            raise OptionError(f"fft_rates: need at least three positive rates, got {self.fft_rates}")
        check_ascending(self, "fft_rates")

    def batches(self, training: Examples, seed: int) -> Examples:
        """No text twice. Raises `OptionError` where there are not enough."""
        count, wanted = len(training.ratings), self.steps * self.batch
        if wanted > count:
            raise OptionError(f"steps: {self.steps} batches of {self.batch} texts are more than the {count} there are")
        rows = np.random.default_rng(seed).permutation(count)[:wanted]
        return training.at(rows.reshape(self.steps, self.batch))


def outcome(config: Training, seed: int, rate: float, recipe: Recipe | None = None, rank: int = 0) -> xr.Dataset:
    """The run of one recipe at the learning rate `rate`, or of full fine-tuning without one; in float32.

    Stored are the loss of every batch, ‖ΔW_Signal‖ and ‖ΔW_Drift‖ of every step, and for each set of texts the
    mean squared error and the correlation with people's ratings after the last step. A run that diverged has inf.
    """
    encoder = config.encoder("float32")
    run = adapted(config, encoder, seed, rate, recipe, rank)
    weights = sd.effective_weights(encoder.base, run.trained, recipe.scaling) if recipe else run.trained
    own = _sample(config.batches(encoder.training, seed), config.judged)
    sets = {TRAINING: own, **encoder.judged}
    errors, correlations = judged(encoder, weights, [sets[name] for name in SETS])
    return xr.Dataset(
        {
            "loss": ("time", np.asarray(run.loss, float)),
            "signal": ("step", np.asarray(run.signal_norm, float)),
            "drift": ("step", np.asarray(run.drift_norm, float)),
            "error": ("set", errors),
            "correlation": ("set", correlations),
        },
        coords={"time": np.arange(config.steps + 1), "step": np.arange(1, config.steps + 1), "set": list(SETS)},
        attrs={"training_dtype": "float32"},
    )


def adapted(config: Training, encoder: Encoder, seed: int, rate: float, recipe: Recipe | None, rank: int) -> sd.Run:
    """The run itself."""
    start: Any = encoder.adapters(seed, rank) if recipe else None
    chosen = recipe or Recipe({})
    s = {k: jnp.float32(x) for k, x in chosen.scaling.items()} or 1.0
    rates = jnp.float32(rate * chosen.rate), jnp.float32(rate * chosen.rate * chosen.ratio)
    loss, batches = batch_error(encoder.forward, encoder.head), config.batches(encoder.training, seed)
    return _trained(loss, encoder.base, start, s, rates, batches, steps=config.steps)


@partial(jax.jit, static_argnames="steps")
def _trained(loss, base, start, s, rates: tuple[Array, Array], batches: Examples, *, steps: int) -> sd.Run:
    optimizer = optax.adam(rates[0]) if start is None else sd.separate_rates(*map(optax.adam, rates))
    return sd.train(loss, base, start, s, optimizer, steps, batches)


def _sample(batches: Examples, count: int) -> Examples:
    """About `count` texts of all batches, evenly over the steps."""
    texts = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batches)
    return jax.tree.map(lambda x: x[:: max(1, len(x) // count)], texts)


def judged(encoder: Encoder, weights: Mapping[str, Array], sets: Sequence[Examples]) -> tuple[list[float], list[float]]:
    """(mean squared error, correlation) on every set of texts; inf and NaN where the ratings are not finite."""
    errors, correlations = [], []
    for texts in sets:
        given = np.asarray(embeddings(encoder.forward, weights, texts) @ encoder.head.weight + encoder.head.bias, float)
        stated = np.asarray(texts.ratings, float)
        finite = bool(np.all(np.isfinite(given)))
        errors.append(float(np.mean((given - stated) ** 2)) if finite else np.inf)
        correlations.append(float(np.corrcoef(given, stated)[0, 1]) if finite and np.std(given) > 0 else np.nan)
    return errors, correlations
