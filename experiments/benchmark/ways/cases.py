"""Set up the kernels as JAX computes them, by this project and straightforwardly: each returns the call to time.

The gradient, the products, the extremes and the trace are those of the loss in θ at α = r and B ≠ 0, as after some
training; H_ℓ and its spectrum are taken at the weights of the same θ; the pipeline and the trajectories start at B = 0.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial

import signal_drift as sd
from experiments.benchmark.config import Config
from experiments.lab.problem import cast
from signal_drift.hessians.factored import composed_loss
from signal_drift.lora.adapters import Adapters

Call = Callable[[], Any]
Case = Callable[[Config], Call]
"""What sets up a call at one width."""


class Point(NamedTuple):
    """Hold a problem, its adapters at B ≠ 0, and the same direction in θ for every way."""

    loss: Partial
    base: dict[str, jax.Array]
    adapters: dict[str, sd.Adapter]
    scaling: dict[str, jax.Array]
    direction: jax.Array


def in_turn(layers: Iterable[str]) -> list[str]:
    """Return the names of layers in the order in which an input passes them; θ has layers.10 before layers.2."""
    return sorted(layers, key=lambda name: int(name.rpartition(".")[2]))


def point(config: Config) -> Point:
    """Draw B ~ N(0, 0.01) and set s = 1."""
    (base, loss), start = config.problem.draw(0), config.problem.adapters(0)
    key = jax.random.fold_in(jax.random.key(0), 4)
    keys = dict(zip(base, jax.random.split(key, len(base)), strict=True))
    moved = {k: sd.Adapter(A, 0.1 * jax.random.normal(keys[k], B.shape)) for k, (A, B) in start.items()}
    theta = ravel_pytree(moved)[0]
    direction = jax.random.normal(jax.random.fold_in(key, 1), theta.shape)
    return cast(Point(loss, base, moved, {k: jnp.asarray(1.0) for k in base}, direction), config.dtype)


def _decomposition(config: Config) -> tuple[sd.Decomposition, jax.Array]:
    at = point(config)
    return sd.decompose(at.loss, at.base, at.adapters, at.scaling), at.direction


def gradient_ours(config: Config) -> Call:
    """Compute ∇_θ ℓ(w(θ)) with factored weights."""
    at = point(config)
    return lambda: _gradient(composed_loss, at)


def gradient_merged(config: Config) -> Call:
    """Compute it through W = W₀ + s·BA."""
    at = point(config)
    return lambda: _gradient(_merged_loss, at)


def _merged_loss(
    loss: Partial, base: dict[str, jax.Array], theta: Adapters, scaling: dict[str, jax.Array]
) -> jax.Array:
    return loss(sd.effective_weights(base, theta, scaling))


@partial(jax.jit, static_argnums=0)
def _gradient(composed: Callable, at: Point) -> jax.Array:
    """Take everything as an argument: what is closed over is a constant, whose products the compiler takes."""
    theta, unravel = ravel_pytree(at.adapters)
    return jax.grad(lambda theta: composed(at.loss, at.base, unravel(theta), at.scaling))(theta)


def product_ours(config: Config) -> Call:
    """Compute H_LoRA v, one of many: the operator keeps its linear map."""
    parts, v = _decomposition(config)
    return lambda: parts.lora @ v


def product_merged(config: Config) -> Call:
    """Compute the derivative along v of the gradient through merged weights, linearised once."""
    at = point(config)
    linear, apply = jax.jit(_merged_map)(at), jax.jit(lambda linear, v: linear(v))
    return lambda: apply(linear, at.direction)


def product_once(config: Config) -> Call:
    """Compute the first H_LoRA v of an operator, the linear map included."""
    parts, v = _decomposition(config)
    return lambda: replace(parts.lora) @ v


def product_merged_once(config: Config) -> Call:
    """Compute the derivative, along v, of the gradient through merged weights, all in one."""
    at = point(config)
    product = jax.jit(lambda at: _merged_map(at)(at.direction))
    return lambda: product(at)


def _merged_map(at: Point) -> Callable[[jax.Array], jax.Array]:
    theta, unravel = ravel_pytree(at.adapters)
    return jax.linearize(jax.grad(lambda t: _merged_loss(at.loss, at.base, unravel(t), at.scaling)), theta)[1]


def _part(name: str, config: Config) -> Call:
    """Compute a product with one of the operators, along what all its products of a problem are taken along."""
    parts, _ = _decomposition(config)
    op = getattr(parts, name)
    v = jax.random.normal(jax.random.key(5), op.shape[1:]).astype(config.dtype)
    return lambda: op @ v


OPERATORS: dict[str, Case] = {name: partial(_part, name) for name in ("jacobian", "task", "signal", "drift", "lora")}
"""A product with each operator of the decomposition."""


def dense_ours(config: Config) -> Call:
    """Compute the dense H_ℓ."""
    return _decomposition(config)[0].task.dense


def dense_straightforward(config: Config) -> Call:
    """Compute `jax.hessian` of the loss of the flat weights, compiled."""
    at = point(config)
    w, unravel = ravel_pytree(sd.effective_weights(at.base, at.adapters, at.scaling))
    hessian = jax.jit(lambda loss, w: jax.hessian(lambda w: loss(unravel(w)))(w))
    return lambda: hessian(at.loss, w)


def spectrum_ours(config: Config) -> Call:
    """Compute all eigenvalues of H_ℓ, the matrix included."""
    parts, _ = _decomposition(config)
    return lambda: sd.eigenvalues(parts.task)


def spectrum_straightforward(config: Config) -> Call:
    """Compute `jnp.linalg.eigvalsh` of `jax.hessian`."""
    hessian = dense_straightforward(config)
    return lambda: jnp.linalg.eigvalsh(hessian())


def extremes_ours(config: Config) -> Call:
    """Find λmin and λmax of H_LoRA with their certificate: values, products, whether certified."""
    parts, _ = _decomposition(config)

    def extremes() -> dict[str, Any]:
        found = sd.extreme_eigenvalues(parts.lora, which="both", tolerance=config.tolerance)
        reach = float(np.max(found.residuals)) + found.missed
        return {"answer": found.values, "products": found.products, "certified": found.converged, "reach": reach}

    return extremes


def trace_ours(config: Config) -> Call:
    """Estimate Tr H_LoRA by Hutch++."""
    parts, _ = _decomposition(config)

    def trace() -> dict[str, Any]:
        return {"answer": sd.estimate_trace(parts.lora, probes=config.probes).value, "products": config.probes}

    return trace


def pipeline_ours(config: Config) -> Call:
    """Compute all that F8a, F8c and F8d need of one seed, compilation included.

    One H_ℓ, one H_Signal and one H_Drift, scaled by α² and α (exact at B = 0), and H_LoRA itself at every α.
    """

    def spectra() -> np.ndarray:
        (base, loss), start = config.problem.draw(0), config.problem.adapters(0)
        unit = sd.decompose(loss, base, start, config.problem.scaling(1.0))
        task, signal, drift = (sd.eigenvalues(op) for op in (unit.task, unit.signal, unit.drift))
        found = []
        for alpha in config.alphas:
            lora = sd.decompose(loss, base, start, config.problem.scaling(alpha)).lora
            found += [task, alpha**2 * signal, alpha * drift, sd.eigenvalues(lora)]
        return _side_by_side(found)

    return spectra


def pipeline_straightforward(config: Config) -> Call:
    """Compute `jax.hessian` of both losses, a dense J and `jnp.linalg.eigvalsh` of the four matrices at every α."""

    def spectra() -> np.ndarray:
        base, loss = config.problem.draw(0)
        theta, unravel = ravel_pytree(config.problem.adapters(0))
        unravel_w = ravel_pytree(base)[1]

        def weights(theta: jax.Array, s: float) -> jax.Array:
            return ravel_pytree(sd.effective_weights(base, unravel(theta), s))[0]

        task_hessian = jax.jit(jax.hessian(lambda w: loss(unravel_w(w))))
        lora_hessian = jax.jit(jax.hessian(lambda theta, s: loss(unravel_w(weights(theta, s)))))
        jacobian = jax.jit(jax.jacobian(weights))
        found = []
        for alpha in config.alphas:
            s = config.problem.scaling(alpha)
            task, lora, J = task_hessian(weights(theta, s)), lora_hessian(theta, s), jacobian(theta, s)
            signal = J.T @ task @ J
            found += [np.asarray(jnp.linalg.eigvalsh(H)) for H in (task, signal, lora - signal, lora)]
        return _side_by_side(found)

    return spectra


def _side_by_side(spectra: list[np.ndarray]) -> np.ndarray:
    """Put them side by side, each in units of its largest absolute value, so that a comparison sees them all."""
    return np.concatenate([x / abs(x).max() for x in spectra])


KERNELS: dict[tuple[str, str], Case] = {
    ("gradient", "ours"): gradient_ours,
    ("gradient", "merged"): gradient_merged,
    ("product", "ours"): product_ours,
    ("product", "merged"): product_merged,
    ("product", "once"): product_once,
    ("product", "merged_once"): product_merged_once,
    ("dense", "ours"): dense_ours,
    ("dense", "straightforward"): dense_straightforward,
    ("spectrum", "ours"): spectrum_ours,
    ("spectrum", "straightforward"): spectrum_straightforward,
    ("extremes", "ours"): extremes_ours,
    ("trace", "ours"): trace_ours,
    ("pipeline", "ours"): pipeline_ours,
    ("pipeline", "straightforward"): pipeline_straightforward,
}
"""What sets up the call, by kernel and way."""
