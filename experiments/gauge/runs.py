"""Runs of Adam with a factor on each of α, A₀, η_A and η_B, and how far two of them are apart in w (X4)."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.tree_util import Partial

import signal_drift as sd
from experiments.lab.problem import Setting
from signal_drift.lora.adapters import Adapters
from signal_drift.propositions import VANISHING_EPSILON

FLOOR = 1e-18
"""Where an exact zero is drawn on a logarithmic axis."""


class Knobs(NamedTuple):
    """Hold factors on α, A₀, η_A and η_B, and what is added to Adam: ε, weight decay, clipping of the global norm."""

    alpha: float = 1.0
    A: float = 1.0
    eta_a: float = 1.0
    eta_b: float = 1.0
    epsilon: float = VANISHING_EPSILON
    decay: float = 0.0
    clip: float = float("inf")


def gauge(p: float, q: float) -> Knobs:
    """Return the factors (p, q) that leave the trajectory of w where it is (X4)."""
    return Knobs(alpha=1 / (p * q), A=p, eta_a=p, eta_b=q)


@dataclass(frozen=True)
class Runs(Setting):
    """Runs of Adam on one problem before any factor is applied, and the factor c."""

    alpha: float = 16.0
    """α."""
    learning_rate: float = 1e-3
    """η of A and of B."""
    factor: float = 8.0
    """c, a power of two, so that rounding is scaled exactly."""
    steps: int = 100
    """Training steps."""


class Trajectory(NamedTuple):
    """Hold the adapters after every step, s, and the loss before the first and after every step; w − w₀ = s·BA."""

    adapters: Adapters
    scaling: Array
    loss: Array


def trajectory(config: Runs, seed: int, knobs: Knobs) -> Trajectory:
    """Train with one setting of the knobs, from B = 0."""
    problem = config.problem
    base, training = problem.draw(seed).base, problem.training(seed, config.steps)
    start = {layer: sd.Adapter(knobs.A * A, B) for layer, (A, B) in problem.adapters(seed).items()}
    s = jnp.asarray(problem.scaling(config.alpha) * knobs.alpha)
    rates = config.learning_rate * knobs.eta_a, config.learning_rate * knobs.eta_b
    added = knobs.epsilon, knobs.decay, knobs.clip
    return _trained(training.loss, base, start, s, rates, added, training.batches, steps=config.steps)


@jax.jit(static_argnames="steps")
def _trained(
    loss: Partial,
    base: dict[str, Array],
    start: Adapters,
    s: Array,
    rates: tuple[float, float],
    added: tuple[float, float, float],
    batches: Any,
    *,
    steps: int,
) -> Trajectory:
    epsilon, decay, clip = added
    for_A, for_B = (optax.adamw(eta, eps=epsilon, weight_decay=decay) for eta in rates)
    optimizer = optax.chain(optax.clip_by_global_norm(clip), sd.separate_rates(for_A, for_B))
    found = sd.train(loss, base, start, s, optimizer, steps, batches, record=lambda step: step.after)
    return Trajectory(found.recorded, s, found.loss)


def distance(left: Trajectory, right: Trajectory) -> np.ndarray:
    """Return ‖w_t − w'_t‖ / ‖w_t − w_0‖ after every step.

    One step at a time, so that two w are held and not all. Each is rounded before they are subtracted: compiled
    together, one of the products would not be.
    """
    steps = range(len(left.loss) - 1)
    return np.array([_apart(_moved(left, t), _moved(right, t)) for t in steps])


@jax.jit
def _moved(trajectory: Trajectory, t: int) -> Array:
    """Return w_{t+1} − w₀ = s·BA, all layers in one vector."""
    products = [trajectory.scaling * (B[t] @ A[t]) for A, B in trajectory.adapters.values()]
    return jnp.concatenate([product.ravel() for product in products])


@jax.jit
def _apart(ours: Array, theirs: Array) -> Array:
    return jnp.linalg.norm(ours - theirs) / jnp.linalg.norm(ours)
