"""Gives H_LoRA = H_Signal + H_Drift for any adapter map: the identity needs only that θ ↦ w(θ) is smooth.

What LoRA adds to it, the sign structure of H_Drift, belongs to its bilinear map: `structure` tells what another has.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from signal_drift.hessians.decomposition import Decomposition, task_hessian
from signal_drift.hessians.factored import Factored, evaluate
from signal_drift.hessians.second_derivative import Function, SecondDerivative
from signal_drift.hessians.tangents import tangent_map
from signal_drift.lora.adapters import Weights
from signal_drift.losses.arguments import Loss
from signal_drift.maps.point import LayerMap, MapPoint, Theta, map_point
from signal_drift.operators.operator import LinearMap, LinearOperator, SymmetricOperator, Vector


def decompose_map(
    loss: Loss, base: Weights, theta: Theta, adapter_map: LayerMap | Mapping[str, LayerMap]
) -> Decomposition:
    """Decompose the curvature of ℓ(w(θ)) at one point for any map: H_LoRA = JᵀH_ℓJ + Σ_k g_k ∇²_θ w_k (Eq. 12–17).

    `adapter_map` is a pure function (W₀, θ of the layer) ↦ W, or one for each layer; θ of a layer is any tree of
    floating arrays, flattened as by `ravel_pytree`. Raises `InputError`, with the name of the layer, for a map that is
    not differentiable twice, changes the shape or the dtype, or is not finite at θ; for a leaf of θ that no derivative
    goes through, for unknown or missing layers, and for a loss that is not a finite scalar.

    A map of one's own, here W = W₀ · exp(S) with a diagonal S:

    >>> def exponential(W0, S):
    ...     return W0 * jnp.exp(S)
    >>> base, theta = {"layer": jnp.ones((2, 3))}, {"layer": jnp.zeros(3)}
    >>> parts = decompose_map(lambda weights: jnp.sum(weights["layer"] ** 2), base, theta, exponential)
    >>> [(part @ jnp.ones(3)).tolist() for part in (parts.signal, parts.drift, parts.lora)]
    [[4.0, 4.0, 4.0], [4.0, 4.0, 4.0], [8.0, 8.0, 8.0]]
    """
    point = map_point(loss, base, theta, adapter_map)
    D = sum(W0.size for W0 in base.values())
    p = sum(x.size for x in jax.tree.leaves(point.theta))
    return Decomposition(
        jacobian=LinearOperator(jacobian_map, (D, p), point, formula="J = ∂w/∂θ"),
        task=SymmetricOperator(task_hessian, (D, D), point, formula="H_ℓ = ∇²_w ℓ (Eq. 12)"),
        signal=SymmetricOperator(signal_hessian, (p, p), point, formula="H_Signal = JᵀH_ℓJ (Eq. 4, 16)"),
        drift=SymmetricOperator(drift_hessian, (p, p), point, formula="H_Drift = Σ_k g_k ∇²_θ w_k (Eq. 4, 17)"),
        lora=SymmetricOperator(lora_hessian, (p, p), point, formula="H_LoRA = ∇²_θ ℓ(w(θ)) (Eq. 12–17)"),
    )


def jacobian_map(point: MapPoint) -> LinearMap:
    """Return v ↦ J v, the tangent of θ ↦ w(θ)."""
    theta, unravel = point.flat(point.theta)
    return tangent_map(lambda theta: point.flat(point.weights_at(unravel(theta)))[0], theta, "adapter_map")


def adjoint_map(point: MapPoint) -> LinearMap:
    """Return u ↦ Jᵀu, the cotangent of θ ↦ w(θ)."""
    theta, unravel = point.flat(point.theta)
    pull = jax.vjp(lambda theta: point.flat(point.weights_at(unravel(theta)))[0], theta)[1]
    return lambda u: pull(u)[0]


def signal_hessian(point: MapPoint) -> LinearMap:
    """Return v ↦ Jᵀ(H_ℓ(J v)), the map of H_Signal (Eq. 4, 16)."""
    push, curve, pull = jacobian_map(point), task_hessian(point), adjoint_map(point)
    return lambda v: pull(curve(push(v)))


def drift_hessian(point: MapPoint) -> LinearMap:
    """Return v ↦ H_Drift v, the Hessian of θ ↦ ⟨g, w(θ)⟩ with g = ∇_w ℓ held fixed (Eq. 4, 17)."""
    theta, unravel = point.flat(point.theta)
    gradient = jax.grad(point.loss)(point.weights())

    def pairing(theta: Vector) -> Array:
        W = point.factored_at(unravel(theta))
        return sum((_inner(gradient[k], W[k]) for k in W), jnp.zeros((), point.dtype))

    return tangent_map(jax.grad(pairing), theta, "adapter_map")


def _loss_of_map(point: MapPoint) -> tuple[Function, Any]:
    return lambda theta: evaluate(point.loss, point.factored_at(theta)), point.theta


lora_hessian = SecondDerivative(_loss_of_map)
"""Gives v ↦ H_LoRA v by differentiating θ ↦ ℓ(w(θ)) twice (Eq. 12–17, left-hand side)."""


def _inner(G: Array, W: Factored | Array) -> Array:
    """⟨G, W⟩, which is ⟨G, W₀⟩ + ⟨GRᵀ, L⟩ of a factored W."""
    if isinstance(W, Factored):
        return jnp.vdot(G, W.W0) + jnp.vdot(G @ W.R.T, W.L)
    return jnp.vdot(G, W)
