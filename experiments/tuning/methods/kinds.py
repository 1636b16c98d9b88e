"""Define the kinds of method: the base and the factors that one starts from, and the map that it trains through."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

import signal_drift as sd
from experiments.lab.problem import Training
from signal_drift.lora.adapters import Adapter, Adapters, Weights
from signal_drift.maps import Dora

Scalings = dict[str, Array]


class Trained(NamedTuple):
    """Hold W after the last step, and ‖ΔW_Signal‖ and ‖ΔW_Drift‖ of every step; NaN where they are not recorded."""

    weights: dict[str, Array]
    signal: Array
    drift: Array


class Started(NamedTuple):
    """Hold what one run begins with: the frozen base, A and B, s of every layer, η_A and η_B."""

    base: dict[str, Array]
    adapters: dict[str, Adapter]
    scaling: Scalings
    rate_a: Array
    rate_b: Array


class Kind(NamedTuple):
    """Say what a method starts from, (W₀, the seed's adapters) ↦ (base, A and B), and how it trains from there."""

    start: Callable[[Weights, Adapters], tuple[dict[str, Array], dict[str, Adapter]]]
    train: Callable[[Training, Started, int], Trained]


def drawn(base: Weights, adapters: Adapters) -> tuple[dict[str, Array], dict[str, Adapter]]:
    """Start from W₀ and the adapters as they were drawn."""
    return dict(base), dict(adapters)


def principal(base: Weights, adapters: Adapters) -> tuple[dict[str, Array], dict[str, Adapter]]:
    """Start as PiSSA does at s = 1: B = U√S and A = √S Vᵀ of the r largest singular values, base W₀ − BA.

    r is that of the adapters, whose entries play no part (arXiv 2404.02948). W is W₀ at the start, and what stays
    frozen is the best that rank r leaves. A layer with fewer singular values than r has as many directions.
    """
    rest, found = {}, {}
    for layer, W0 in base.items():
        r = len(adapters[layer].A)
        U, S, Vt = jnp.linalg.svd(W0, full_matrices=False)
        root = jnp.sqrt(S[:r])
        whole = sd.pad_rank({layer: Adapter(root[:, None] * Vt[:r], U[:, :r] * root)}, r)[layer]
        rest[layer], found[layer] = W0 - whole.B @ whole.A, whole
    return rest, found


def factors(training: Training, begun: Started, steps: int) -> Trained:
    """Train A and B by Adam, W = W₀ + s·BA."""
    base, start, s, rate_a, rate_b = begun
    optimizer = sd.separate_rates(optax.adam(rate_a), optax.adam(rate_b))
    run = sd.train(training.loss, base, start, s, optimizer, steps, training.batches)
    return Trained(sd.effective_weights(base, run.trained, s), run.signal_norm, run.drift_norm)


def directions_and_lengths(training: Training, begun: Started, steps: int) -> Trained:
    """Train A, B and the length m of every row by Adam as DoRA does, m at the rate of A.

    W = diag(m) diag(‖V_i‖)⁻¹ V with V = W₀ + s·BA, one length for each output as in PEFT, and m = ‖V_i‖ at the start.
    The gradient holds ‖V_i‖ fixed, as PEFT and the paper do (arXiv 2402.09353, Sec. 4.3): it is that of no function
    of θ, for which signal and drift would be defined, so that none are recorded.
    """
    base, start, s, rate_a, rate_b = begun
    theta = {k: Dora(A, B, _lengths(base[k] + s[k] * (B @ A))) for k, (A, B) in start.items()}
    optimizer = optax.partition(
        {"A": optax.adam(rate_a), "B": optax.adam(rate_b)},
        {k: Dora("A", "B", "A") for k in theta},  # pyright: ignore[reportArgumentType]
    )

    def loss(theta: dict[str, Dora], batch: Any) -> Array:
        weights = {k: with_lengths(s[k], base[k], x) for k, x in theta.items()}
        return training.loss(weights) if training.batches is None else training.loss(weights, batch)

    def step(carry: tuple[dict[str, Dora], optax.OptState], batch: Any) -> tuple[Any, None]:
        theta, state = carry
        updates, state = optimizer.update(jax.grad(loss)(theta, batch), state, theta)
        return (optax.apply_updates(theta, updates), state), None

    (theta, _), _ = jax.lax.scan(step, (theta, optimizer.init(theta)), training.batches, length=steps)
    unknown = jnp.full(steps, jnp.nan, rate_a.dtype)
    return Trained({k: with_lengths(s[k], base[k], x) for k, x in theta.items()}, unknown, unknown)


def with_lengths(s: Array | float, W0: Array, theta: Dora) -> Array:
    """Return DoRA's W of one layer, its ‖V_i‖ held fixed in the gradient."""
    V = W0 + s * (theta.B @ theta.A)
    return (theta.m / jax.lax.stop_gradient(_lengths(V)))[:, None] * V


def _lengths(V: Array) -> Array:
    return jnp.linalg.norm(V, axis=1)
