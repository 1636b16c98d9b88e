"""Gives the part of H_ℓ that the criterion alone puts there: the Gauss–Newton matrix of a loss ℓ = c(f(w)).

H_ℓ = J_fᵀ (∇²c) J_f + Σ_k (∂c/∂f_k) ∇²f_k, J_f = ∂f/∂w. The first term is G; it inherits the sign of ∇²c, whatever
the model, and is all of H_ℓ where the outputs are linear in the weights or fit exactly.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import jax
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial
from jaxtyping import Array

from signal_drift.display import displayed_as
from signal_drift.errors import InputError
from signal_drift.hessians.decomposition import adjoint_map, decompose, jacobian_map
from signal_drift.hessians.tangents import tangent_map
from signal_drift.lora.adapters import Adapters, Scaling, Weights
from signal_drift.losses.arguments import Loss
from signal_drift.losses.composite import outputs_and_criterion
from signal_drift.operators.operator import LinearMap, Point, SymmetricOperator, Vector, operators


class GaussNewton(NamedTuple):
    """Hold what `gauss_newton` returns: G in the place of H_ℓ, JᵀGJ in that of H_Signal, and R, with H_ℓ = G + R."""

    task: SymmetricOperator
    signal: SymmetricOperator
    residual: SymmetricOperator


def gauss_newton(loss: Loss, base: Weights, adapters: Adapters, scaling: Scaling) -> GaussNewton:
    """Split H_ℓ = G + R at one point into the curvature of the criterion and that of the model (X6).

    G = J_fᵀ (∇²c) J_f, its signal part is JᵀGJ, and R = Σ_k (∂c/∂f_k) ∇²f_k. The loss is made by `composite(f, c)`;
    raises `InputError` for any other, and where `decompose` does.
    """
    _halves(loss)
    parts = decompose(loss, base, adapters, scaling)
    return GaussNewton(
        task=replace(parts.task, linearise=task_gauss_newton, formula="G = J_fᵀ (∇²c) J_f (X6)"),
        signal=replace(parts.signal, linearise=signal_gauss_newton, formula="JᵀGJ (X6)"),
        residual=replace(parts.task, linearise=residual_term, formula="R = Σ_k (∂c/∂f_k) ∇²f_k (X6)"),
    )


def criterion_curvature(loss: Loss, base: Weights, adapters: Adapters, scaling: Scaling) -> SymmetricOperator:
    """Return ∇²c at the outputs f(w), flattened to one vector: positive semi-definite where c is convex (X6)."""
    _halves(loss)
    point = decompose(loss, base, adapters, scaling).task.point
    (size,) = jax.eval_shape(lambda point: _flattened(point).outputs, point).shape
    return SymmetricOperator(criterion_hessian, (size, size), point, formula="∇²c at f(w) (X6)")


def task_gauss_newton(point: Point) -> LinearMap:
    """Return u ↦ J_fᵀ (∇²c) J_f u: forwards through the model, through the criterion, and back."""
    flat = _flattened(point)
    push = tangent_map(flat.model, flat.weights)
    pull, curve = jax.linear_transpose(push, flat.weights), criterion_hessian(point)
    return lambda v: pull(curve(push(v)))[0]


def signal_gauss_newton(point: Point) -> LinearMap:
    """Return v ↦ Jᵀ G J v."""
    push, curve, pull = jacobian_map(point), task_gauss_newton(point), adjoint_map(point)
    return lambda v: pull(curve(push(v)))


def residual_term(point: Point) -> LinearMap:
    """Return u ↦ R u, R = Σ_k (∂c/∂f_k) ∇²f_k the Hessian of ⟨∂c/∂f, f(w)⟩ with ∂c/∂f held fixed."""
    flat = _flattened(point)
    slope = jax.grad(flat.criterion)(flat.outputs)
    return tangent_map(jax.grad(lambda w: slope @ flat.model(w)), flat.weights)


def criterion_hessian(point: Point) -> LinearMap:
    """Return the map of ∇²c at f(w)."""
    flat = _flattened(point)
    return tangent_map(jax.grad(flat.criterion), flat.outputs)


class _Flat(NamedTuple):
    """The point as vectors: w, f(w), and the two halves of the loss between them."""

    weights: Vector
    outputs: Vector
    model: Callable[[Vector], Vector]
    criterion: Callable[[Vector], Array]


def _flattened(point: Point) -> _Flat:
    outputs, criterion = _halves(point.loss)
    w, as_weights = point.flat(point.weights())
    f, as_outputs = ravel_pytree(outputs(point.weights()))
    return _Flat(w, f, lambda w: ravel_pytree(outputs(as_weights(w)))[0], lambda f: criterion(as_outputs(f)))


def _halves(loss: Loss) -> tuple[Partial, Partial]:
    halves = outputs_and_criterion(loss)
    if halves is None:
        function = getattr(loss, "func", loss)
        name = getattr(function, "__name__", type(function).__name__)
        raise InputError(f"loss: must be made by composite(outputs, criterion), got {name!r}")
    return halves


displayed_as(operators)(GaussNewton)
