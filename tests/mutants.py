"""Wrong implementations of the library, each by one mistake, for tests that must notice it.

A map replaced here is a new function, so that JAX compiles it anew and no cached code hides the mistake.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

import signal_drift as sd
from signal_drift.hessians.decomposition import adjoint_map, drift_hessian, jacobian_map, signal_hessian, task_hessian
from signal_drift.lora.adapters import kaiming_uniform
from signal_drift.lora.updates import UpdateParts, decompose_update
from signal_drift.operators.operator import LinearMap, Point
from signal_drift.propositions.closed_forms import suppression
from signal_drift.spectra.exact import eigenvalues


def signal_hessian_at(scale: Callable[[Any, int], Any], point: Point) -> LinearMap:
    """JᵀH_ℓJ with another s in J, in every layer a function of s and r."""
    s = {k: scale(s, len(point.adapters[k].A)) for k, s in point.scaling.items()}
    other = replace(point, scaling=s)
    push, curve, pull = jacobian_map(other), task_hessian(point), adjoint_map(other)
    return lambda v: pull(curve(push(v)))


def without_rank(point):
    """α for α/r."""
    return signal_hessian_at(lambda s, r: s * r, point)


def linear_in_alpha(point):
    """α for α²."""
    return signal_hessian_at(lambda s, r: jnp.sqrt(s), point)


def transposed_where_square(point):
    """J with ΔB Aᵀ for ΔB A, wherever the shapes do not notice."""
    unravel = ravel_pytree(point.adapters)[1]

    def push(v):
        delta = unravel(v)
        return ravel_pytree(
            {
                k: point.scaling[k] * (B @ delta[k].A + delta[k].B @ (A.T if len(A) == A.shape[1] else A))
                for k, (A, B) in point.adapters.items()
            }
        )[0]

    return push


def turned_gradient(point):
    """H_Drift with Gᵀ for G, wherever the shapes do not notice."""
    unravel = ravel_pytree(point.adapters)[1]
    G = {k: W.T if W.shape[0] == W.shape[1] else W for k, W in jax.grad(point.loss)(point.weights()).items()}

    def apply(v):
        d = unravel(v)
        image = {k: sd.Adapter(s * d[k].B.T @ G[k], s * G[k] @ d[k].A.T) for k, s in point.scaling.items()}
        return ravel_pytree(image)[0]

    return apply


def doubled_drift(point):
    """H_Drift twice, as if it were a second derivative that a factor ½ is still to be taken of."""
    apply = drift_hessian(point)
    return lambda v: 2 * apply(v)


def leaking_drift(point):
    """H_Drift + 10⁻²⁵⁰·I: far below any rounding."""
    apply = drift_hessian(point)
    return lambda v: apply(v) + 1e-250 * v


def update_parts(scale_drift: Callable[..., Any], adapters, delta, scaling) -> UpdateParts:
    parts = decompose_update(adapters, delta, scaling)
    s = scaling if isinstance(scaling, Mapping) else dict.fromkeys(adapters, scaling)
    return parts._replace(drift={k: scale_drift(delta[k], s[k], drift) for k, drift in parts.drift.items()})


class Mutant(NamedTuple):
    """Says what is replaced (module, name, by what), where it is tried, and which claims must notice."""

    module: str
    name: str
    wrong: Any
    claims: set[str]
    kind: str = "MSE of an MLP"
    begins: bool = False


DRIFT = {"P1-hessian", "P2-drift-alignment", "X1", "X5"}
TRACE = {"P3-trace", "K1-alignment"}

MUTANTS = {
    "Δw_Drift without its ½": Mutant(
        "signal_drift.propositions.updates",
        "decompose_update",
        partial(update_parts, lambda delta, s, drift: 2 * drift),
        {"P1-update", "P2-drift-alignment"},
    ),
    "Δw_Drift with s²": Mutant(
        "signal_drift.propositions.updates",
        "decompose_update",
        partial(update_parts, lambda delta, s, drift: s * drift),
        {"P1-update", "P2-drift-alignment", "P4-update"},
    ),
    "Δw_Drift with |ΔB|": Mutant(
        "signal_drift.propositions.updates",
        "decompose_update",
        partial(update_parts, lambda delta, s, drift: s * abs(delta.B) @ delta.A),
        {"P1-update", "P2-drift-alignment"},  # of either sign or of one, it is bilinear
    ),
    "1/r forgotten": Mutant(
        "signal_drift.hessians.decomposition", "signal_hessian", without_rank, {"P1-hessian", "X10"}
    ),
    "1/r forgotten, from B = 0": Mutant(
        "signal_drift.hessians.decomposition",
        "signal_hessian",
        without_rank,
        {"P1-hessian", "X2", "X10", *TRACE},
        begins=True,
    ),
    "α for α², from B = 0": Mutant(
        "signal_drift.hessians.decomposition",
        "signal_hessian",
        linear_in_alpha,
        {"P1-hessian", "P4-landscape", "X2", "X10", "X16", *TRACE},
        begins=True,
    ),
    "A transposed where square": Mutant(
        "signal_drift.hessians.decomposition", "jacobian_map", transposed_where_square, {"X5", "X7"}
    ),
    "G transposed where square": Mutant(
        "signal_drift.hessians.decomposition",
        "drift_hessian",
        turned_gradient,
        DRIFT - {"X1"},
        kind="indefinite quadratic",
    ),
    "H_Drift doubled": Mutant("signal_drift.hessians.decomposition", "drift_hessian", doubled_drift, DRIFT),
    "H_Drift with a trace of its own": Mutant(
        "signal_drift.hessians.decomposition", "drift_hessian", leaking_drift, {"P2-drift-indefinite"}
    ),
    "the Gauss–Newton matrix is the Hessian": Mutant(
        "signal_drift.hessians.gauss_newton",
        "signal_gauss_newton",
        signal_hessian,
        {"X6"},
    ),
    "A of another variance": Mutant(
        "signal_drift.propositions.traces", "normal_fan_in", kaiming_uniform, TRACE, begins=True
    ),
    "trace law without 1/r": Mutant(
        "signal_drift.propositions.closed_forms",
        "suppression",
        lambda r, s, sigma: suppression(r, s, sigma) * r,
        {"P3-trace", "X8"},
        begins=True,
    ),
    "α_base without the root": Mutant(
        "signal_drift.propositions.traces", "alpha_base", lambda r, sigma: r / sigma, {"K1-alignment"}, begins=True
    ),
    "another λ_max": Mutant(
        "signal_drift.propositions.stability",
        "eigenvalues",
        lambda H: 1.01 * eigenvalues(H),
        {"L1-stability"},
        kind="quadratic",
    ),
    "an optimizer that moves A from B = 0": Mutant(
        "signal_drift.propositions.optimizers",
        "OPTIMIZERS",
        (lambda rate: optax.chain(optax.add_decayed_weights(0.1), optax.sgd(rate)),),
        {"X3"},
        begins=True,
    ),
    "Adam with an ε that matters": Mutant(
        "signal_drift.propositions.optimizers",
        "ADAM",
        lambda rate: optax.adam(rate, eps=1e-8),
        {"X4", "X9"},
        begins=True,
    ),
}
