"""Checks a few steps of real optimizers: X3, X4, X8 and X9."""

import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from signal_drift.lora.adapters import Adapter, effective_weights, normal_fan_in
from signal_drift.lora.updates import decompose_update
from signal_drift.operators.operator import Point
from signal_drift.optimizers import separate_rates
from signal_drift.propositions import closed_forms
from signal_drift.propositions.check import Check, exact, largest, standard_errors, worst
from signal_drift.propositions.subject import Instance, flat
from signal_drift.propositions.traces import DRAWS, ERRORS
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
    runs = [trajectory(rescaled_point(x), rate, rate, optimizer) for optimizer in OPTIMIZERS]
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
    rate_A, rate_B = small_rates(x)
    here, there = rescaled_point(x), rescaled_point(x, scale=1 / (p * q), p=p, q=q)
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
    rate_A, rate_B = small_rates(x)
    return Check.equality(
        "X4",
        "Adam from B = 0: α×c gives the same w as η_B×c",
        trajectory(rescaled_point(x, scale=c), rate_A, rate_B, ADAM).weights,
        trajectory(rescaled_point(x), rate_A, c * rate_B, ADAM).weights,
        exact(POWERS),
        control=("as both rates ×c", trajectory(rescaled_point(x), c * rate_A, c * rate_B, ADAM).weights),
        assumptions={**x.begins, **x.descending},
    )


def frozen_A_makes_alpha_the_rate(x: Instance, c: float = 4.0) -> Check:
    """Check that with A frozen at B = 0 α×c is η×c under Adam with ε → 0, and that there is no drift (X9).

    w is then linear in B.
    """
    _, rate = small_rates(x)
    scaled, faster = (
        trajectory(rescaled_point(x, scale=c), 0.0, rate, ADAM),
        trajectory(rescaled_point(x), 0.0, c * rate, ADAM),
    )
    trained = trajectory(rescaled_point(x), c * small_rates(x)[0], c * rate, ADAM)
    return Check.equality(
        "X9",
        "Adam with A frozen at B = 0: α×c gives the same w as η×c, and no drift",
        jnp.stack([scaled.weights, scaled.drift]),
        jnp.stack([faster.weights, jnp.zeros_like(faster.drift)]),
        exact(POWERS),
        control=("as η×c with A trained", jnp.stack([trained.weights, trained.drift])),
        assumptions={**x.begins, **x.descending},
    )


def first_step_has_a_size(x: Instance) -> Check:
    """Check E‖ΔW₁‖_F² = α²(σ_A²/r)[1 + 2(r − 1)/(π d_in)]·‖ΔW_FFT‖_F² of Adam's first step from B = 0 (X8).

    Over Gaussian A, the sum over layers of the ratio of both sides' squares.
    """
    shares, full = _first_steps(x), _adam_step(x.gradient)
    sizes = sum(np.sum(moved**2, axis=(1, 2)) / float(jnp.sum(full[k] ** 2)) for k, moved in shares.items())
    factors = [
        closed_forms.first_step_size(len(x.adapters[k].A), x.s[k], d_in**-0.5, d_in)
        for k, W0 in x.base.items()
        for d_in in (W0.shape[1],)
    ]
    return _first_step(x, "E‖ΔW₁‖² = Σ_l α²(σ_A²/r)[1 + 2(r − 1)/(π d_in)]‖ΔW_FFT‖²", np.asarray(sizes), sum(factors))


def first_step_has_a_descent(x: Instance) -> Check:
    """Check E⟨ΔW₁, −G⟩ = α σ_A √(2/π) η Σ_o ‖g_o‖₂ of Adam's first step from B = 0, over Gaussian A (X8)."""
    descents = sum(-np.einsum("noi,oi->n", moved, np.asarray(x.gradient[k])) for k, moved in _first_steps(x).items())
    stated = [
        closed_forms.first_step_descent(x.gradient[k], x.s[k] * len(x.adapters[k].A), W0.shape[1] ** -0.5)
        for k, W0 in x.base.items()
    ]
    return _first_step(x, "E⟨ΔW₁, −G⟩ = α σ_A √(2/π) η Σ_o ‖g_o‖₂", np.asarray(descents), sum(stated))


def _first_step(x: Instance, statement: str, drawn: np.ndarray, predicted: float) -> Check:
    """The mean of the draws against the prediction and, as control, twice that."""
    entries = np.abs(flat(x.gradient))
    return Check.equality(
        "X8",
        f"the first step of Adam from B = 0: {statement}",
        float(np.mean(drawn)),
        predicted,
        standard_errors(ERRORS, float(np.std(drawn)), DRAWS),
        control=("twice that", 2 * predicted),
        assumptions={**x.begins, "no entry of G is 0": bool(np.min(entries) > 0)},
    )


def _first_steps(x: Instance) -> dict[str, Float[np.ndarray, "draws _d_out _d_in"]]:
    """ΔW₁ = s ΔB A of every draw of A and layer, ΔB Adam's first step at the rate 1 on ∇_B ℓ = s GAᵀ."""
    key = jax.random.key(zlib.crc32(flat(x.gradient).tobytes()))
    drawn = {}
    for i, (k, G) in enumerate(sorted(x.gradient.items())):
        r, d_in = x.adapters[k].A.shape
        A = normal_fan_in(jax.random.fold_in(key, i), (DRAWS * r, d_in), jnp.float64).reshape(DRAWS, r, d_in)
        dB = _adam_step(x.s[k] * jnp.einsum("oi,nri->nor", G, A))
        drawn[k] = np.asarray(x.s[k] * dB @ A)
    return drawn


def _adam_step(gradient: Any) -> Any:
    """Adam's first step at the rate 1."""
    adam = ADAM(jnp.asarray(1.0))
    return adam.update(gradient, adam.init(gradient))[0]


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


def rescaled_point(x: Instance, scale: float = 1.0, p: float = 1.0, q: float = 1.0) -> Point:
    """Multiply s, A and B of the instance by these factors."""
    point = x.parts.lora.point
    return replace(
        point,
        adapters={k: Adapter(p * A, q * B) for k, (A, B) in point.adapters.items()},
        scaling={k: scale * s for k, s in point.scaling.items()},
    )


def small_rates(x: Instance) -> tuple[float, float]:
    """Return η_A and η_B of Adam at which s·BA moves by about a hundredth a step, whatever s."""
    return 0.01, 0.01 / (1 + max(x.s.values()))
