"""Represents a matrix by its products: it is built column by column only where that is asked for and fits."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial, register_dataclass
from jaxtyping import Array, Float, Inexact

from signal_drift.display import LAYER, Table, displayed_as, layer_rows
from signal_drift.errors import InputError
from signal_drift.errors.words import shown
from signal_drift.lora.adapters import Adapter, effective_weights
from signal_drift.operators.chunks import check_room, chunk, map_chunks
from signal_drift.operators.linearised import apply
from signal_drift.operators.mesh import MeshAxis, map_rows
from signal_drift.operators.precision import coarser_step
from signal_drift.operators.triangle import Triangular, asymmetry_of_rounding, blocks, from_lower_columns

Vector = Float[Array, "_n"]
LinearMap = Callable[[Vector], Vector]


@dataclass(frozen=True)
class AnyPoint:
    """Hold what every point θ has at which curvature is taken: the loss ℓ and W₀; its kind adds θ and the map to w(θ).

    The arrays of a `jax.tree_util.Partial` loss are traced by jit too, so that one compilation serves every data set.
    """

    loss: Partial
    base: dict[str, Array]

    functions: ClassVar[str] = "loss"
    """The arguments in which a product may round."""

    def weights(self) -> dict[str, Array]:
        """Return w(θ) of every layer."""
        raise NotImplementedError

    @property
    def trees(self) -> dict[str, dict[str, Any]]:
        """Return W₀ and θ under the names of their arguments, which are those of the fields."""
        raise NotImplementedError

    def layers(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Return the header and the rows of the table that shows the layers."""
        raise NotImplementedError

    @property
    def plain(self) -> "AnyPoint":
        """Return the point itself, of one that is scaled the one below."""
        return self

    @cached_property
    def dtype(self) -> jnp.dtype:
        """Return the dtype that holds every weight and all of θ, in which products are computed."""
        return jnp.result_type(*jax.tree.leaves(self.trees))

    def flat(self, tree: Any) -> tuple[Vector, Callable[[Vector], Any]]:
        """Return a tree shaped like the weights or like θ as one vector of `dtype`, and the way back."""
        x, unravel = ravel_pytree(tree)
        return x.astype(self.dtype), lambda v: unravel(v.astype(x.dtype))


@register_dataclass
@dataclass(frozen=True)
class Point(AnyPoint):
    """Hold LoRA's point: ℓ, W₀, θ = (A, B) and s, all traced by jit."""

    adapters: dict[str, Adapter]
    scaling: dict[str, Array]

    def weights(self) -> dict[str, Array]:
        """Return w(θ) = W₀ + s·BA of every layer (Sec. 2)."""
        return effective_weights(self.base, self.adapters, self.scaling)

    @property
    def trees(self) -> dict[str, dict[str, Any]]:
        """Return W₀ and the factors."""
        return {"base": self.base, "adapters": {k: adapter._asdict() for k, adapter in self.adapters.items()}}

    def layers(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Return the sizes and norms of W₀, A, B and s."""
        return LAYER, layer_rows(self.base, self.adapters, self.scaling)


@register_dataclass
@dataclass(frozen=True, repr=False)
class LinearOperator:
    """Represent a matrix of the given shape by its product with a vector (n,) or with the columns of a block (n, k).

    `linearise` turns the point, of whatever kind it takes, into the linear map; it is the same object at every point,
    so operators of equal shapes share their compiled code. `formula` says in a line what the matrix is.
    """

    linearise: Callable[[Any], LinearMap] = field(metadata={"static": True})
    shape: tuple[int, int] = field(metadata={"static": True})
    point: Any
    place: MeshAxis | None = field(default=None, metadata={"static": True})
    formula: str = field(metadata={"static": True}, kw_only=True)

    @property
    def dtype(self) -> jnp.dtype:
        """Return the dtype in which products are computed: it holds every weight and factor."""
        return self.point.plain.dtype

    @property
    def least_precise(self) -> str:
        """Name the weight or factor of the fewest digits: a product has no more."""
        return _coarsest(self.point.plain)[0]

    @property
    def precision(self) -> jnp.dtype:
        """Return the dtype of the weight or factor of the fewest digits."""
        return _coarsest(self.point.plain)[1]

    def __matmul__(self, v: Inexact[Array, "n"] | Inexact[Array, "n k"]) -> Array:
        if not isinstance(v, jax.Array | np.ndarray) or not jnp.issubdtype(v.dtype, jnp.inexact):
            raise InputError(f"v: must be an array of real numbers, got {shown(v)}")
        if v.ndim not in (1, 2) or v.shape[0] != self.shape[1]:
            raise InputError(f"v: shape {v.shape} does not fit an operator of shape {self.shape}")
        if jnp.result_type(v, self.dtype) != self.dtype:
            raise InputError(f"v: dtype {v.dtype} is more than the operator's {self.dtype}; v.astype('{self.dtype}')")
        return apply(self, v) if v.ndim == 1 else _block(self, v)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy starts from: the fields, not the map that is kept."""
        return {x.name: getattr(self, x.name) for x in fields(self)}

    def check_digits(self) -> None:
        """Raise `TypeError` where products have fewer digits than `precision`; these come from W₀, A, B and s alone."""

    def dense(self) -> Float[Array, "m n"]:
        """Build the matrix, in float64. Raises `TypeError` for lower precision, `RoomError` if it does not fit."""
        check_room(self.shape, 8 * (3 if self.place else 2) * self.shape[0] * self.shape[1])
        return _columns(self._exact()).T

    def _exact(self) -> "LinearOperator":
        if self.precision != jnp.float64:
            raise TypeError(
                f"{self.least_precise}: dtype is {self.precision}, but an exact Hessian needs float64; call "
                "jax.config.update('jax_enable_x64', True) before the weights are made, and make them all so"
            )
        self.check_digits()
        return self


def _coarsest(point: AnyPoint) -> tuple[str, jnp.dtype]:
    """The name and the dtype of the first weight or factor of the fewest digits."""
    leaves = [
        (name + jax.tree_util.keystr(path), x.dtype)
        for name, tree in point.trees.items()
        for path, x in jax.tree_util.tree_leaves_with_path(tree)
    ]
    return max(leaves, key=lambda leaf: jnp.finfo(leaf[1]).eps)


@register_dataclass
@dataclass(frozen=True, repr=False)
class SymmetricOperator(LinearOperator):
    """Represent a matrix equal to its transpose; `traceless` declares its trace to be zero whatever the point."""

    traceless: bool = field(default=False, metadata={"static": True}, kw_only=True)

    def check_digits(self) -> None:
        """Raise `TypeError`, with the place in the source, where the loss rounds to fewer digits than the weights have.

        Such a Hessian has errors of the coarser dtype and, as a rule, is not symmetric.
        """
        point = self.point.plain
        given = [path[0].name in point.trees for path, _ in jax.tree_util.tree_leaves_with_path(point)]
        step = coarser_step(gradient.trace(point), given, self.precision)
        if step:
            raise TypeError(
                f"{point.functions}: rounds to {step}, where the weights are {self.precision}: compute in "
                f"{self.precision} there, or give {' and '.join(point.trees)} in the lower precision"
            )

    def dense(self) -> Float[Array, "n n"]:
        """Build the matrix, in float64, in the memory of one copy; of two from the shares of several devices.

        A large second derivative is built by its symmetry from half of the work. That it has one, to rounding of its
        largest entries, is checked by a product along a random direction; where it has none all columns are computed.
        Raises `TypeError` for lower precision, `RoomError` if it does not fit into memory.
        """
        check_room(self.shape, 8 * (2 if self.place else 1) * self.shape[0] * self.shape[1])
        op = self._exact()
        if len(_blocks(op)) > 1:
            H = _lower_columns(op)
            if _agree(op, H):
                return H
            del H
        return _columns(op)

    def diagonal(self) -> Float[Array, "n"]:
        """Return the diagonal, from n products and without the matrix. Raises `TypeError` below float64."""
        return _diagonal(self._exact())


@jax.jit
def gradient(point: AnyPoint) -> dict[str, Array]:
    """Compute G = ∇_W ℓ of every layer at w(θ)."""
    return jax.grad(point.loss)(point.weights())


@jax.jit
def _block(op: LinearOperator, V: Array) -> Array:
    return _mapped(op, lambda apply, row: apply(row), V.T).T


@jax.jit
def _columns(op: LinearOperator) -> Array:
    """Row i of the result is column i of the operator."""
    return _mapped(op, lambda apply, i: apply(_basis(op, i)), jnp.arange(op.shape[1]))


def _blocks(op: LinearOperator) -> list[tuple[int, int]]:
    """Return the blocks of columns from which the matrix is made by its symmetry, none where it is made otherwise.

    Within a trace of JAX there are no values by which the symmetry could be checked.
    """
    traced = any(isinstance(x, Tracer) for x in (jnp.zeros(()), *jax.tree.leaves(op.point)))
    if op.place or traced or not isinstance(op.linearise, Triangular):
        return []
    return blocks(op.linearise.sizes(op.point))


@jax.jit
def _lower_columns(op: LinearOperator) -> Array:
    assert isinstance(op.linearise, Triangular)
    return from_lower_columns(op.linearise, op.point, op.dtype)


def _agree(op: LinearOperator, H: Array) -> bool:
    """Tell whether H v is the product with the operator along a random v, but for what rounding may change."""
    n = len(H)
    v = jax.random.normal(jax.random.key(0), (n,), H.dtype)
    image = replace(op) @ v  # of an operator that nothing is kept with
    size = jnp.max(jnp.abs(image))
    unit = jnp.where(size > 0, size, 1)  # squares would leave the range
    apart = jnp.linalg.norm((H @ v - image) / unit)
    return bool(apart <= n**0.5 * asymmetry_of_rounding(n, H.dtype) * jnp.linalg.norm(image / unit))


@jax.jit
def _diagonal(op: LinearOperator) -> Array:
    return _mapped(op, lambda apply, i: apply(_basis(op, i))[i], jnp.arange(op.shape[1]))


def _mapped(op: LinearOperator, image: Callable[[LinearMap, Array], Array], rows: Array) -> Array:
    """The images of the rows, a chunk at a time; each device along the axis of a mesh takes its share of them."""

    def share(point: Any, rows: Array) -> Array:
        apply = op.linearise(point)
        one = jax.eval_shape(partial(image, apply), rows[0])
        result = len(rows) * one.size * one.dtype.itemsize
        size = chunk(apply, jax.ShapeDtypeStruct(op.shape[1:], op.dtype), result)
        return map_chunks(partial(image, apply), rows, size)

    return map_rows(op.place, share, op.point, rows)


def _basis(op: LinearOperator, i: Array) -> Array:
    return jnp.zeros(op.shape[1], op.dtype).at[i].set(1)


def operators(parts: Any) -> Table:
    """Show a tuple of operators at one point: their shapes, then the point's layers."""
    point, shapes = parts[0].point, (f".{name} {op.shape[0]}×{op.shape[1]}" for name, op in parts._asdict().items())
    title = f"{type(parts).__name__}, {parts[0].dtype}: {', '.join(shapes)}"
    return Table(title, *point.layers())


def _table(x: LinearOperator) -> Table:
    return Table(f"{type(x).__name__} {x.shape[0]}×{x.shape[1]}, {x.dtype}: {x.formula}")


displayed_as(_table)(LinearOperator)
