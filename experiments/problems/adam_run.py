"""Run Adam on the training stream of a problem, compiled once for all its draws, scalings and rates."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.tree_util import Partial

import signal_drift as sd
from experiments.lab.problem import Dtype, Problem
from signal_drift.lora.adapters import Adapters, Scaling


def adam_run(
    problem: Problem,
    seed: int,
    start: Adapters | None,
    scaling: Scaling,
    learning_rate: float,
    steps: int,
    dtype: Dtype = "float64",
) -> sd.Run:
    """Train from `start` (full fine-tuning where it is None) at a constant learning rate, in the precision given."""
    base, training = problem.draw(seed, dtype).base, problem.training(seed, steps, dtype)
    rate = jnp.asarray(learning_rate, dtype)
    return _run(training.loss, base, start, scaling, rate, training.batches, steps=steps)


@partial(jax.jit, static_argnames="steps")
def _run(
    loss: Partial,
    base: dict[str, Array],
    start: Adapters | None,
    scaling: Scaling,
    learning_rate: Array,
    batches: Any,
    *,
    steps: int,
) -> sd.Run:
    return sd.train(loss, base, start, scaling, optax.adam(learning_rate), steps, batches)
