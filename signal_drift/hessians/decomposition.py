"""The decomposition H_LoRA = H_Signal + H_Drift as linear operators, each from its own definition.

None of the four matrices is derived from the others, so that their identities are facts to test. An operator is
matrix-free: `op @ v` costs a gradient or two, and only `op.dense()` builds a matrix, column by column.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial, register_dataclass
from jaxtyping import Array, Float, Inexact

from signal_drift.display import LAYER, Table, layer_rows, shown
from signal_drift.errors import InputError
from signal_drift.factored import composed_loss
from signal_drift.linear import apply
from signal_drift.lora import (
    Adapter,
    Adapters,
    Scaling,
    Weights,
    adjoint_product,
    check_fit,
    effective_weights,
    jacobian_product,
    per_layer,
)
from signal_drift.loss import Loss, check_finite, traceable
from signal_drift.memory import check_room, chunk, map_chunks
from signal_drift.mesh import MeshAxis, map_rows

Vector = Float[Array, "_n"]
LinearMap = Callable[[Vector], Vector]


@register_dataclass
@dataclass(frozen=True)
class Point:
    """The point θ at which curvature is taken: ℓ, W₀, (A, B) and s, all traced by jit.

    The arrays of a `jax.tree_util.Partial` loss are traced too, so that one compilation serves every data set.
    """

    loss: Partial
    base: dict[str, Array]
    adapters: dict[str, Adapter]
    scaling: dict[str, Array]

    def weights(self) -> dict[str, Array]:
        return effective_weights(self.base, self.adapters, self.scaling)


def _operator(x: "LinearOperator") -> Table:
    formula = (getattr(x.linearise, "__doc__", None) or str(x.linearise)).splitlines()[0]
    return Table(f"{type(x).__name__} {x.shape[0]}×{x.shape[1]}, {x.dtype}: {formula}")


@register_dataclass
@shown(_operator)
@dataclass(frozen=True, repr=False)
class LinearOperator:
    """A matrix of the given shape, known by its product with a vector (n,) or with the columns of a block (n, k).

    `linearise` turns the point into the linear map; it is a module-level function, so operators of equal shapes
    share their compiled code.
    """

    linearise: Callable[[Point], LinearMap] = field(metadata={"static": True})
    shape: tuple[int, int] = field(metadata={"static": True})
    point: Point
    place: MeshAxis | None = field(default=None, metadata={"static": True})

    @property
    def dtype(self) -> jnp.dtype:
        return jnp.result_type(*jax.tree.leaves(self.point.base))

    def __matmul__(self, v: Inexact[Array, "n"] | Inexact[Array, "n k"]) -> Array:
        if v.ndim not in (1, 2) or v.shape[0] != self.shape[1]:
            raise InputError(f"v: shape {v.shape} does not fit an operator of shape {self.shape}")
        if jnp.result_type(v, self.dtype) != self.dtype:
            raise InputError(f"v: dtype {v.dtype} is more than the operator's {self.dtype}; v.astype('{self.dtype}')")
        return apply(self, v) if v.ndim == 1 else _block(self, v)

    def __getstate__(self) -> dict[str, Any]:
        """What a copy starts from: the fields, not the map that is kept."""
        return {x.name: getattr(self, x.name) for x in fields(self)}

    def dense(self) -> Float[Array, "m n"]:
        """The matrix itself, in float64. Raises `TypeError` for lower precision, `InputError` if it does not fit."""
        check_room(self.shape, 8 * (3 if self.place else 2) * self.shape[0] * self.shape[1])
        return _columns(self._exact()).T

    def _exact(self) -> "LinearOperator":
        if self.dtype != jnp.float64:
            raise TypeError(
                f"base: dtype is {self.dtype}, but an exact Hessian needs float64; call "
                "jax.config.update('jax_enable_x64', True) before the weights are made"
            )
        return self


@register_dataclass
@dataclass(frozen=True, repr=False)
class SymmetricOperator(LinearOperator):
    """A square operator equal to its transpose."""

    def dense(self) -> Float[Array, "n n"]:
        """The matrix itself, in float64, in the memory of one copy; of two from the shares of several devices.

        Raises `TypeError` for lower precision, `InputError` if it does not fit into memory.
        """
        check_room(self.shape, 8 * (2 if self.place else 1) * self.shape[0] * self.shape[1])
        return _columns(self._exact())

    def diagonal(self) -> Float[Array, "n"]:
        """The diagonal, from n products and without the matrix. Raises `TypeError` below float64."""
        return _diagonal(self._exact())


def operators(parts: Any) -> Table:
    """A tuple of operators at one point: their shapes, then the point's layers."""
    point, shapes = parts[0].point, (f".{name} {op.shape[0]}×{op.shape[1]}" for name, op in parts._asdict().items())
    title = f"{type(parts).__name__}, {parts[0].dtype}: {', '.join(shapes)}"
    return Table(title, LAYER, layer_rows(point.base, point.adapters, point.scaling))


@shown(operators)
class Decomposition(NamedTuple):
    """What `decompose` returns: D×p the Jacobian, D×D the task Hessian, p×p the other three."""

    jacobian: LinearOperator
    task: SymmetricOperator
    signal: SymmetricOperator
    drift: SymmetricOperator
    lora: SymmetricOperator


def decompose(loss: Loss, base: Weights, adapters: Adapters, scaling: Scaling) -> Decomposition:
    """J, H_ℓ, H_Signal = JᵀH_ℓJ, H_Drift = Σ_k g_k ∇²_θ w_k and H_LoRA = ∇²_θ ℓ(w(θ)) at one point (Eq. 4).

    `loss` is any differentiable function of the dict of effective weights to a scalar; `scaling` is s = α/r, one
    number or one per layer. Raises `InputError` for adapters or scalings that do not fit the base and for a loss
    that is not a finite scalar.
    """
    check_fit(base, adapters)
    dtype = jnp.result_type(*base.values())
    point = Point(
        loss=traceable("loss", loss),
        base=dict(base),
        adapters=dict(adapters),
        scaling={layer: jnp.asarray(s).astype(dtype) for layer, s in per_layer("scaling", scaling, base).items()},
    )
    check_finite(point.loss, point.weights())
    D = sum(W0.size for W0 in base.values())
    p = sum(A.size + B.size for A, B in adapters.values())
    return Decomposition(
        jacobian=LinearOperator(jacobian_map, (D, p), point),
        task=SymmetricOperator(task_hessian, (D, D), point),
        signal=SymmetricOperator(signal_hessian, (p, p), point),
        drift=SymmetricOperator(drift_hessian, (p, p), point),
        lora=SymmetricOperator(lora_hessian, (p, p), point),
    )


def jacobian_map(point: Point) -> LinearMap:
    """J = ∂w/∂θ: v ↦ J v, through its Kronecker structure s·[B ⊗ I, I ⊗ Aᵀ] (Eq. 43, row by row)."""
    unravel = ravel_pytree(point.adapters)[1]
    return lambda v: ravel_pytree(jacobian_product(point.adapters, unravel(v), point.scaling))[0]


def adjoint_map(point: Point) -> LinearMap:
    """Jᵀ: u ↦ Jᵀu (transpose of Eq. 43)."""
    unravel = ravel_pytree(point.base)[1]
    return lambda u: ravel_pytree(adjoint_product(point.adapters, unravel(u), point.scaling))[0]


def task_hessian(point: Point) -> LinearMap:
    """H_ℓ = ∇²_w ℓ at w(θ), with its cross-layer blocks (Eq. 12)."""
    w, unravel = ravel_pytree(point.weights())
    return jax.linearize(jax.grad(lambda w: point.loss(unravel(w))), w)[1]


def signal_hessian(point: Point) -> LinearMap:
    """H_Signal = Jᵀ H_ℓ J (Eq. 4, 16)."""
    push, curve, pull = jacobian_map(point), task_hessian(point), adjoint_map(point)
    return lambda v: pull(curve(push(v)))


def drift_hessian(point: Point) -> LinearMap:
    """H_Drift = Σ_k g_k ∇²_θ w_k (Eq. 4, 17): (δA, δB) ↦ s·(δBᵀG, G δAᵀ) for every layer, G = ∇_W ℓ."""
    unravel = ravel_pytree(point.adapters)[1]
    gradient = jax.grad(point.loss)(point.weights())

    def apply(v: Vector) -> Vector:
        change = unravel(v)
        image = {
            layer: Adapter(A=s * (change[layer].B.T @ gradient[layer]), B=s * (gradient[layer] @ change[layer].A.T))
            for layer, s in point.scaling.items()
        }
        return ravel_pytree(image)[0]

    return apply


def lora_hessian(point: Point) -> LinearMap:
    """H_LoRA = ∇²_θ ℓ(w(θ)), by differentiating the composition twice (Eq. 12–17, left-hand side)."""
    theta, unravel = ravel_pytree(point.adapters)

    def loss(theta: Vector) -> Array:
        return composed_loss(point.loss, point.base, unravel(theta), point.scaling)

    return jax.linearize(jax.grad(loss), theta)[1]


@jax.jit
def _block(op: LinearOperator, V: Array) -> Array:
    return _mapped(op, lambda apply, row: apply(row), V.T).T


@jax.jit
def _columns(op: LinearOperator) -> Array:
    """Row i of the result is column i of the operator."""
    return _mapped(op, lambda apply, i: apply(_basis(op, i)), jnp.arange(op.shape[1]))


@jax.jit
def _diagonal(op: LinearOperator) -> Array:
    return _mapped(op, lambda apply, i: apply(_basis(op, i))[i], jnp.arange(op.shape[1]))


def _mapped(op: LinearOperator, image: Callable[[LinearMap, Array], Array], rows: Array) -> Array:
    """The images of the rows, a chunk at a time; each device along the axis of a mesh takes its share of them."""

    def share(point: Point, rows: Array) -> Array:
        apply = op.linearise(point)
        size = chunk(apply, jax.ShapeDtypeStruct(op.shape[1:], op.dtype))
        return map_chunks(lambda row: image(apply, row), rows, size)

    return map_rows(op.place, share, op.point, rows)


def _basis(op: LinearOperator, i: Array) -> Array:
    return jnp.zeros(op.shape[1], op.dtype).at[i].set(1)
