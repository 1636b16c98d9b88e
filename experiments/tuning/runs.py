"""Run Adam to tune a problem: compiled loops over learning rates and over (α, η)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jax import Array
from jax.tree_util import Partial

import signal_drift as sd
from experiments.analysis.sweeps import Best, best_point
from experiments.lab.errors import OptionError, check_ascending, check_positive
from experiments.lab.problem import Dtype, Problem, Setting, Training, Tuning
from signal_drift.lora.adapters import Adapters

HOMES = ("digits", "teacher64", "teacher256")
"""The problems on which Sec. 2 and 4 are decided."""
SMALL = {"seeds": 2, "rate_seeds": 2, "steps": 20, "fft_rates": tuple(10.0 ** (k / 2) for k in range(-10, 1))}
"""The size used in tests."""
STAGES = (1, 2, 4)
"""Seeds are added up to four times as many as at first, until every claim is decided."""


@dataclass(frozen=True)
class Tuned(Setting):
    """Set runs of one length on one problem, and the sweep of full fine-tuning that finds their learning rate."""

    steps: int = Tuning.steps
    """Training steps."""
    fft_rates: tuple[float, ...] = Tuning.fft_rates
    """Learning rates of the full fine-tuning sweep that finds η_FFT."""
    rate_seeds: int = Tuning.seeds
    """Seeds whose mean finds η_FFT: a number of its own, so that more seeds of the runs do not move it."""
    dtype: Dtype = "float32"
    """Precision of the training runs; the loss of a run is read to far fewer digits."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "steps", "rate_seeds")
        if min(self.fft_rates, default=0) <= 0 or len(self.fft_rates) < 3:
            raise OptionError(f"fft_rates: need at least three positive rates, got {self.fft_rates}")
        check_ascending(self, "fft_rates")


def tuning_of(problem: Problem) -> Tuning:
    """Return the sizes of the sweeps on a problem. Raises `OptionError` where there are none."""
    if problem.tuning is None:
        raise OptionError(f"problem: {problem.name!r} has no sweep to tune it by")
    return problem.tuning


class Outcome(NamedTuple):
    """Hold the end of a run, and ‖ΔW_Signal‖ and ‖ΔW_Drift‖ of its every step; stacked where there are several runs."""

    loss: Array
    scores: dict[str, Array]
    signal: Array
    drift: Array

    @property
    def log_loss(self) -> np.ndarray:
        """Take ln ℓ, inf where a run diverged."""
        return log_loss(np.asarray(self.loss))


def log_loss(losses: np.ndarray) -> np.ndarray:
    """Take the logarithm of ℓ, inf where a run ended non-finite; ℓ counts as 1e-38 below that."""
    values = np.asarray(losses, float)
    return np.where(np.isfinite(values), np.log(np.maximum(values, np.finfo(np.float32).tiny)), np.inf)


def purity(signal: Array, drift: Array) -> Array:
    """Return the geometric mean of ‖ΔW_Signal‖/‖ΔW_Drift‖ over steps (last axis), without the first.

    The drift of the first step is zero (X3). A run that diverged, or stopped moving, has none: NaN.
    """
    mean = jnp.mean(jnp.log(signal[..., 1:]) - jnp.log(drift[..., 1:]), axis=-1)
    return jnp.exp(jnp.where(jnp.isfinite(mean), mean, jnp.nan))


def full_runs(config: Tuned, seed: int, rates: Sequence[float]) -> Outcome:
    """Train all weights of the adapted layers at every learning rate."""
    problem = config.problem
    base, training = problem.draw(seed, config.dtype).base, problem.training(seed, config.steps, config.dtype)
    return _full(training, base, jnp.asarray(rates, config.dtype), steps=config.steps)


@partial(jax.jit, static_argnames="steps")
def _full(training: Training, base: dict[str, Array], rates: Array, *, steps: int) -> Outcome:
    def one(rate: Array) -> Outcome:
        run = sd.train(training.loss, base, None, 1.0, optax.adam(rate), steps, training.batches)
        return judged(training, run.trained, run.signal_norm, run.drift_norm)

    return jax.lax.map(one, rates)


def judged(training: Training, weights: dict[str, Array], signal: Array, drift: Array) -> Outcome:
    """Judge the weights that a run ended with."""
    return Outcome(training.fit(weights), _scores(training.scores, weights), signal, drift)


def _scores(judges: Mapping[str, Partial], weights: dict[str, Array]) -> dict[str, Array]:
    return {name: judge(weights) for name, judge in judges.items()}


class Sweep(NamedTuple):
    """Hold runs from one start at the first `runs` of the pairs (s, η).

    What differs is traced: ranks, seeds and any number of pairs share one compilation per (model, steps, capacity).
    """

    training: Training
    base: dict[str, Array]
    start: Adapters
    scalings: Array
    rates: Array
    runs: int | Array


def sweep_of(
    config: Tuned, seed: int, rank: int, padded: int, points: Sequence[tuple[float, float]], capacity: int
) -> Sweep:
    """Prepare the runs of adapters of one rank at every (α, η) in `points`, at most `capacity` of them."""
    problem, dtype = config.problem, config.dtype
    alphas, rates = np.array(points).T
    scalings = np.array([problem.scaling(alpha, rank) for alpha in alphas])
    s, eta = (jnp.asarray(np.resize(x, capacity), dtype) for x in (scalings, rates))
    base, training = problem.draw(seed, dtype).base, problem.training(seed, config.steps, dtype)
    return Sweep(training, base, padded_adapters(problem, seed, rank, padded, dtype), s, eta, len(points))


def swept_losses(config: Tuned, sweep: Sweep) -> np.ndarray:
    """Return ln ℓ after training at every pair."""
    return log_loss(np.asarray(final_losses(sweep, steps=config.steps))[: sweep.runs])


def swept_losses_and_purity(config: Tuned, sweep: Sweep) -> tuple[np.ndarray, np.ndarray]:
    """Return ln ℓ after training and the purity at every pair; on a small model it costs twice the losses alone."""
    losses, pure = final_losses_and_purity(sweep, steps=config.steps)
    return log_loss(np.asarray(losses)[: sweep.runs]), np.asarray(pure, float)[: sweep.runs]


@partial(jax.jit, static_argnames="steps")
def final_losses(sweep: Sweep, *, steps: int) -> Array:
    """Return the loss after `steps` of Adam at every pair; the compiler drops the norms, which nothing reads here."""
    return _swept(sweep, steps)[0]


@partial(jax.jit, static_argnames="steps")
def final_losses_and_purity(sweep: Sweep, *, steps: int) -> tuple[Array, Array]:
    """Return the loss after `steps` of Adam, and the purity of the run, at every pair."""
    return _swept(sweep, steps)


def _swept(sweep: Sweep, steps: int) -> tuple[Array, Array]:
    """Train one run after another, which is faster on a CPU than a batch of small products.

    The result of a run does not depend on which others were asked for.
    """
    training, base = sweep.training, sweep.base

    def one(i: Array, found: tuple[Array, Array]) -> tuple[Array, Array]:
        (losses, pure), s = found, sweep.scalings[i]
        run = sd.train(training.loss, base, sweep.start, s, optax.adam(sweep.rates[i]), steps, training.batches)
        loss = training.fit(sd.effective_weights(base, run.trained, s))
        return losses.at[i].set(loss), pure.at[i].set(purity(run.signal_norm, run.drift_norm))

    nothing = jnp.full(sweep.scalings.shape, jnp.nan, sweep.scalings.dtype)
    return jax.lax.fori_loop(0, sweep.runs, one, (nothing, nothing))


def padded_adapters(problem: Problem, seed: int, rank: int, padded: int, dtype: Dtype) -> Adapters:
    """Draw the adapters of one rank, padded with zeros to one shape for all ranks."""
    return sd.pad_rank(problem.adapters(seed, rank, dtype), padded)


def fft_optimum(losses: xr.DataArray) -> Best:
    """Return η_FFT: the best learning rate of the mean log-loss over seeds, by interpolation."""
    return best_point(losses.rate.values, losses.mean("seed").values)


def fft_rate(losses: xr.DataArray) -> float:
    """Return η_FFT to three digits, which every machine finds alike; on an edge of the sweep, that edge."""
    best = fft_optimum(losses)
    return float(f"{float(losses.mean('seed').idxmin('rate')) if best.flag else best.x:.3g}")


def start_scores(config: Tuned, seed: int) -> dict[str, Array]:
    """Judge the weights before training."""
    problem, dtype = config.problem, config.dtype
    return jax.jit(_scores)(problem.training(seed, config.steps, dtype).scores, problem.draw(seed, dtype).base)


def scored(scores: Mapping[str, Array], *runs: str, name: str = "score") -> dict[str, xr.DataArray]:
    """Label scores by their judge and the axes of the runs; nothing where the problem has no judge."""
    if not scores:
        return {}
    values = np.array([np.asarray(score, float) for score in scores.values()])
    return {name: xr.DataArray(values, {"judge": list(scores)}, ("judge", *runs))}


def score_names(data: xr.Dataset) -> list[str]:
    """Name the scores that were stored."""
    return [str(name) for name in data.judge.values] if "score" in data else []


def training_attributes(config: Tuned) -> dict[str, str]:
    """Note beside a record in which precision its runs were trained."""
    return {"training_dtype": config.dtype}
