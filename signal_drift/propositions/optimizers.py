"""Checks a few steps of real optimizers: X3 and X4."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from signal_drift.lora.adapters import Adapter, effective_weights
from signal_drift.lora.updates import decompose_update
from signal_drift.operators.operator import Point
from signal_drift.optimizers import separate_rates
from signal_drift.propositions.check import Check, exact, largest, worst
from signal_drift.propositions.subject import Instance
from signal_drift.propositions.updates import VANISHING_EPSILON
from signal_drift.training import Step, train

Optimizer = Callable[[Array], optax.GradientTransformation]

ADAM: Optimizer = partial(optax.adam, eps=VANISHING_EPSILON)
OPTIMIZERS: tuple[Optimizer, ...] = (optax.sgd, optax.sign_sgd, ADAM)
STEPS = 4
"""Steps that are taken: enough for both factors to have moved and for Adam to remember it."""
POWERS = "a factor 2ᵏ commutes with rounding"


def first_step_has_no_drift(x: Instance) -> Check:
    """Check that the first step from B = 0 has ΔA = −η s BᵀG = 0, so no drift, if the optimizer keeps zeros (X3).

    The rate is small enough that s·BA stays of order one.
    """
    rate = 0.01 / (1 + max(x.s.values())) ** 2
    runs = [trajectory(_point(x), rate, rate, optimizer) for optimizer in OPTIMIZERS]
    return Check.bound(
        "X3",
        "the first step of SGD, sign descent and Adam from B = 0 has ΔA = 0 and no drift",
        worst(*(largest(part[0]) for run in runs for part in (run.factor, run.drift))),
        exact("sums of products with zeros"),
        control=("so has the second of each", float(np.min([largest(run.drift[1]) for run in runs]))),
        assumptions={**x.begins, **x.descending},
    )


def adam_has_a_gauge(x: Instance, p: float = 4.0, q: float = 0.5) -> Check:
    """Check that (α, A, B, η_A, η_B) and (α/(pq), pA, qB, pη_A, qη_B) have one w under Adam with ε → 0 (X4)."""
    rate_A, rate_B = _rates(x)
    here, there = _point(x), _point(x, scale=1 / (p * q), p=p, q=q)
    w = trajectory(here, rate_A, rate_B, ADAM).weights
    return Check.equality(
        "X4",
        "Adam: (α, A, B, η_A, η_B) and (α/(pq), pA, qB, pη_A, qη_B) give the same w",
        trajectory(there, p * rate_A, q * rate_B, ADAM).weights,
        w,
        exact(POWERS),
        control=("and so do rates left as they are", trajectory(there, rate_A, rate_B, ADAM).weights),
        assumptions=x.descending,
    )


def alpha_is_the_rate_of_B(x: Instance, c: float = 4.0) -> Check:
    """Check that at B = 0 α×c is η_B×c under Adam with ε → 0, and not both rates ×c (X4 with p = 1, q = c)."""
    rate_A, rate_B = _rates(x)
    return Check.equality(
        "X4",
        "Adam from B = 0: α×c gives the same w as η_B×c",
        trajectory(_point(x, scale=c), rate_A, rate_B, ADAM).weights,
        trajectory(_point(x), rate_A, c * rate_B, ADAM).weights,
        exact(POWERS),
        control=("as both rates ×c", trajectory(_point(x), c * rate_A, c * rate_B, ADAM).weights),
        assumptions={**x.begins, **x.descending},
    )


class Trajectory(NamedTuple):
    """Holds one row a step: w after it, its ΔA and its Δw_Drift, each of all layers in one vector."""

    weights: Float[Array, "steps D"]
    factor: Float[Array, "steps _n"]
    drift: Float[Array, "steps D"]


@partial(jax.jit, static_argnames="optimizer")
def trajectory(point: Point, rate_A: float | Array, rate_B: float | Array, optimizer: Optimizer) -> Trajectory:
    """`STEPS` steps with a rate for every A and one for every B; the rates are data, so that all share their code."""
    transform = separate_rates(optimizer(jnp.asarray(rate_A)), optimizer(jnp.asarray(rate_B)))

    def moved(step: Step) -> Trajectory:
        weights = effective_weights(point.base, step.after, point.scaling)
        drift = decompose_update(step.theta, step.delta, point.scaling).drift
        parts = (weights, {k: dA for k, (dA, _) in step.delta.items()}, drift)
        return Trajectory(*(ravel_pytree(part)[0] for part in parts))

    return train(point.loss, point.base, point.adapters, point.scaling, transform, STEPS, record=moved).recorded


def _point(x: Instance, scale: float = 1.0, p: float = 1.0, q: float = 1.0) -> Point:
    """The instance with s, A and B multiplied by these factors."""
    point = x.parts.lora.point
    return replace(
        point,
        adapters={k: Adapter(p * A, q * B) for k, (A, B) in point.adapters.items()},
        scaling={k: scale * s for k, s in point.scaling.items()},
    )


def _rates(x: Instance) -> tuple[float, float]:
    """η_A and η_B at which s·BA moves by about a hundredth a step, whatever s."""
    return 0.01, 0.01 / (1 + max(x.s.values()))
