"""Gives the decomposition H_LoRA = H_Signal + H_Drift as linear operators, each from its own definition.

None of the four matrices is derived from the others, so that their identities are facts to test. An operator is
matrix-free: `op @ v` costs a gradient or two, and only `op.dense()` builds a matrix.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from signal_drift.display import displayed_as
from signal_drift.hessians.factored import composed_loss
from signal_drift.hessians.second_derivative import Function, SecondDerivative
from signal_drift.lora.adapters import (
    Adapter,
    Adapters,
    Scaling,
    Weights,
    adjoint_product,
    check_fit,
    jacobian_product,
    scalings,
)
from signal_drift.losses.arguments import Loss, check_value, traceable
from signal_drift.operators.operator import (
    AnyPoint,
    LinearMap,
    LinearOperator,
    Point,
    SymmetricOperator,
    Vector,
    operators,
)


class Decomposition(NamedTuple):
    """Hold what `decompose` returns: D×p the Jacobian, D×D the task Hessian, p×p the other three."""

    jacobian: LinearOperator
    task: SymmetricOperator
    signal: SymmetricOperator
    drift: SymmetricOperator
    lora: SymmetricOperator


def decompose(loss: Loss, base: Weights, adapters: Adapters, scaling: Scaling) -> Decomposition:
    """Decompose the curvature at one point: J, H_ℓ and the two parts of H_LoRA = H_Signal + H_Drift (Eq. 4).

    H_Signal = JᵀH_ℓJ, H_Drift = Σ_k g_k ∇²_θ w_k and H_LoRA = ∇²_θ ℓ(w(θ)). `loss` is any differentiable
    function of the dict of effective weights to a scalar; `scaling` is s = α/r, one number or one per layer. Raises
    `InputError` for adapters or scalings that do not fit the base and for a loss that is not a finite scalar.
    """
    check_fit(base, adapters)
    dtype = jnp.result_type(*jax.tree.leaves((dict(base), dict(adapters))))
    point = Point(
        loss=traceable("loss", loss),
        base=dict(base),
        adapters=dict(adapters),
        scaling={layer: jnp.asarray(s).astype(dtype) for layer, s in scalings(scaling, base).items()},
    )
    check_value(point.loss, point.weights())
    D = sum(W0.size for W0 in base.values())
    p = sum(A.size + B.size for A, B in adapters.values())
    return Decomposition(
        jacobian=LinearOperator(jacobian_map, (D, p), point, formula="J = ∂w/∂θ (Eq. 43)"),
        task=SymmetricOperator(task_hessian, (D, D), point, formula="H_ℓ = ∇²_w ℓ (Eq. 12)"),
        signal=SymmetricOperator(signal_hessian, (p, p), point, formula="H_Signal = JᵀH_ℓJ (Eq. 4, 16)"),
        drift=SymmetricOperator(
            drift_hessian,
            (p, p),
            point,
            formula="H_Drift = Σ_k g_k ∇²_θ w_k (Eq. 4, 17)",
            traceless=True,  # X1
        ),
        lora=SymmetricOperator(lora_hessian, (p, p), point, formula="H_LoRA = ∇²_θ ℓ(w(θ)) (Eq. 12–17)"),
    )


def jacobian_map(point: Point) -> LinearMap:
    """Return v ↦ J v, J = ∂w/∂θ, through its Kronecker structure s·[B ⊗ I, I ⊗ Aᵀ] (Eq. 43, row by row)."""
    unravel = point.flat(point.adapters)[1]
    return lambda v: point.flat(jacobian_product(point.adapters, unravel(v), point.scaling))[0]


def adjoint_map(point: Point) -> LinearMap:
    """Return u ↦ Jᵀu (transpose of Eq. 43)."""
    unravel = point.flat(point.weights())[1]
    return lambda u: point.flat(adjoint_product(point.adapters, unravel(u), point.scaling))[0]


def _loss_of_weights(point: AnyPoint) -> tuple[Function, Weights]:
    return point.loss, point.weights()


task_hessian = SecondDerivative(_loss_of_weights)
"""Gives u ↦ H_ℓ u, H_ℓ = ∇²_w ℓ at w(θ) with its cross-layer blocks (Eq. 12)."""


def signal_hessian(point: Point) -> LinearMap:
    """Return v ↦ Jᵀ(H_ℓ(J v)), the map of H_Signal (Eq. 4, 16)."""
    push, curve, pull = jacobian_map(point), task_hessian(point), adjoint_map(point)
    return lambda v: pull(curve(push(v)))


def drift_hessian(point: Point) -> LinearMap:
    """Return (δA, δB) ↦ s·(δBᵀG, G δAᵀ) for every layer, G = ∇_W ℓ: H_Drift = Σ_k g_k ∇²_θ w_k (Eq. 4, 17)."""
    unravel = point.flat(point.adapters)[1]
    gradient = jax.grad(point.loss)(point.weights())

    def apply(v: Vector) -> Vector:
        change = unravel(v)
        image = {
            layer: Adapter(A=s * (change[layer].B.T @ gradient[layer]), B=s * (gradient[layer] @ change[layer].A.T))
            for layer, s in point.scaling.items()
        }
        return point.flat(image)[0]

    return apply


def _loss_of_factors(point: Point) -> tuple[Function, Adapters]:
    return lambda theta: composed_loss(point.loss, point.base, theta, point.scaling), point.adapters


lora_hessian = SecondDerivative(_loss_of_factors)
"""Gives v ↦ H_LoRA v by differentiating θ ↦ ℓ(w(θ)) twice (Eq. 12–17, left-hand side)."""


displayed_as(operators)(Decomposition)
