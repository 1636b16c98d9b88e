"""The adaptation tasks of Sec. 2: what is adapted, its η_FFT by sweep, and LoRA runs that share one compilation."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.tree_util import Partial

import signal_drift as sd
from experiments.analysis.sweeps import Best, best_point
from experiments.lab.errors import OptionError
from experiments.problems import mlp
from signal_drift.models.bridge import Forward
from signal_drift.tasks.digits import Classification, cross_entropy, rotated_digits

Dtype = Literal["float32", "float64"]


@dataclass(frozen=True)
class Task:
    """One adaptation task at one training length; hashable, so that what depends on it is computed once."""

    name: str
    width: int
    depth: int
    samples: int
    angle: float
    steps: int
    seeds: int
    fft_rates: tuple[float, ...]
    dtype: Dtype


@dataclass(frozen=True)
class Adaptations:
    """Teacher MLPs and rotated digits, trained full batch with Adam at a constant learning rate."""

    tasks: tuple[str, ...] = ("digits", "mlp64", "mlp256")
    """What is adapted: mlp<d>, the teacher MLP of App. E at width d (MSE), or digits (cross-entropy)."""
    depth: int = 5
    """Linear layers of the teacher MLP."""
    samples: int = 100
    """Training inputs of the teacher MLP."""
    digits_samples: int = 300
    """Rotated images to adapt to; 900 upright ones are for pre-training, the rest for validation."""
    angle: float = 45.0
    """Rotation of the digits, in degrees."""
    steps: int = 100
    """Training steps."""
    seeds: int = 5
    """Independent draws of data, teacher, W₀ (or pre-training) and A."""
    fft_rates: tuple[float, ...] = tuple(10.0 ** (k / 4) for k in range(-20, -3))
    """Learning rates of the full fine-tuning sweep that finds η_FFT."""
    dtype: Dtype = "float32"
    """Precision of the training runs; the loss of a run is read to far fewer digits."""

    def __post_init__(self) -> None:
        for name in ("depth", "samples", "digits_samples", "steps", "seeds"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name}: must be at least 1, got {getattr(self, name)}")
        if not self.tasks or min(self.fft_rates, default=0) <= 0 or len(self.fft_rates) < 3:
            raise OptionError(f"fft_rates: need at least three positive rates and a task, got {self.fft_rates}")
        for name in self.tasks:
            width_of(name)

    def task(self, name: str) -> Task:
        samples = self.digits_samples if name == "digits" else self.samples
        shape = (width_of(name), self.depth, samples, self.angle)
        return Task(name, *shape, self.steps, self.seeds, self.fft_rates, self.dtype)


def width_of(name: str) -> int:
    """The width d of mlp<d>; 64 for the digits, whose images have 64 pixels."""
    if name == "digits":
        return 64
    if not name.startswith("mlp") or not name[3:].isdecimal() or int(name[3:]) < 1:
        raise OptionError(f"tasks: must be digits or mlp<d>, got {name!r}")
    return int(name[3:])


class Problem(NamedTuple):
    """A loss over weights and where it starts; what only the digits have is None elsewhere."""

    loss: Partial
    base: dict[str, Array]
    forward: Forward | None = None
    validation: Classification | None = None


@lru_cache(maxsize=16)
def problem(task: Task, seed: int) -> Problem:
    """Everything random but the adapters, drawn from `seed`, in the task's precision."""
    if task.name == "digits":
        drawn = rotated_digits(jax.random.key(seed), angle=task.angle, samples=task.samples)
        loss = cross_entropy(drawn.forward, drawn.training)
        return _cast(Problem(loss, drawn.base, drawn.forward, drawn.validation), task.dtype)
    chosen = mlp.Setting(width=task.width, depth=task.depth, samples=task.samples)
    return _cast(Problem(*mlp.problem(chosen, seed)), task.dtype)


def adapters(task: Task, seed: int, rank: int, padded: int) -> dict[str, sd.Adapter]:
    """A ~ N(0, 1/d_in) of the given rank, B = 0, padded with zeros to one shape for all ranks."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 2), rank)
    return sd.pad_rank(sd.init_adapters(key, problem(task, seed).base, rank), padded)


def _cast(tree: Any, dtype: Dtype) -> Any:
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


@cache
def fft_losses(task: Task) -> np.ndarray:
    """The logarithm of the final loss of full fine-tuning, (seed, rate); a run that diverged has inf."""
    rates = jnp.asarray(task.fft_rates, task.dtype)
    runs = [_full_runs(*problem(task, seed)[:2], rates, task.steps) for seed in range(task.seeds)]
    return log_loss(np.array(runs))


def fft_optimum(task: Task) -> Best:
    """η_FFT: the best rate of the mean log-loss over seeds, by interpolation."""
    return best_point(task.fft_rates, fft_losses(task).mean(0))


def fft_rate(task: Task) -> float:
    """η_FFT to three digits, which every machine finds alike; on an edge of the sweep, that edge (and flagged)."""
    best, lowest = fft_optimum(task), task.fft_rates[int(np.argmin(fft_losses(task).mean(0)))]
    return float(f"{lowest if best.flag else best.x:.3g}")


def log_loss(losses: np.ndarray) -> np.ndarray:
    """The logarithm of ℓ, inf where a run ended non-finite; ℓ counts as 1e-38 below that."""
    values = np.asarray(losses, float)
    return np.where(np.isfinite(values), np.log(np.maximum(values, np.finfo(np.float32).tiny)), np.inf)


@partial(jax.jit, static_argnames="steps")
def _full_runs(loss: Partial, base: dict[str, Array], rates: Array, steps: int) -> Array:
    return jax.lax.map(lambda rate: sd.train(loss, base, None, 1.0, optax.adam(rate), steps).loss[-1], rates)


def lora_losses(
    task: Task, seed: int, rank: int, padded: int, runs: Sequence[tuple[float, float]], capacity: int
) -> np.ndarray:
    """The logarithm of the final loss of every (α, η) in `runs`, at most `capacity` of them, s = α/r.

    Ranks, seeds and any number of runs share one compilation per (model, steps, capacity).
    """
    alphas, rates = np.array(runs).T
    points = [jnp.asarray(np.resize(x, capacity), task.dtype) for x in (alphas / rank, rates)]
    loss, base, *_ = problem(task, seed)
    start = adapters(task, seed, rank, padded)
    return log_loss(np.asarray(final_losses(loss, base, start, *points, len(runs), steps=task.steps))[: len(runs)])


@partial(jax.jit, static_argnames="steps")
def final_losses(
    loss: Partial,
    base: dict[str, Array],
    start: dict[str, sd.Adapter],
    scalings: Array,
    rates: Array,
    count: int | Array,
    *,
    steps: int,
) -> Array:
    """The loss after `steps` of Adam for the first `count` pairs (s, η), one after another.

    One run at a time is faster on a CPU than a batch of small products, and its result does not depend on which
    other runs were asked for.
    """

    def one(i: Array, losses: Array) -> Array:
        run = sd.train(loss, base, start, scalings[i], optax.adam(rates[i]), steps)
        return losses.at[i].set(run.loss[-1])

    return jax.lax.fori_loop(0, count, one, jnp.full(scalings.shape, jnp.nan, scalings.dtype))
