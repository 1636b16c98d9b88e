"""Multiplies a symmetric operator, scaled to about 1, by vectors; products are checked and counted."""

from typing import NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from signal_drift.errors import InputError
from signal_drift.errors.arguments import random_key
from signal_drift.operators.operator import LinearOperator, SymmetricOperator
from signal_drift.operators.scale import exponent_of, in_range, times_power
from signal_drift.operators.triangle import asymmetry_of_rounding


def generator(key: Key[Array, ""] | None) -> np.random.Generator:
    """Return the host's random numbers of a key, of `jax.random.key(0)` for none."""
    chosen = jax.random.key(0) if key is None else random_key("key", key)
    return np.random.default_rng(np.asarray(jax.random.key_data(chosen)))


class Matvec:
    """Apply v ↦ 2^e·Hv in float64, computed in the operator's dtype; e makes the first product that is not 0 about 1.

    Raises `InputError` for an operator that is not symmetric, `TypeError` for one of less than float32.
    """

    def __init__(self, op: SymmetricOperator) -> None:
        if not isinstance(op, SymmetricOperator):
            kind, mend = type(op).__name__, "parts.lora for one; sd.eigenvalues takes a matrix"
            raise InputError(f"op: must be a symmetric operator of decompose, got {kind} ({mend})")
        self.limits = jnp.finfo(op.precision)
        if self.limits.bits < 32:
            raise TypeError(
                f"{op.least_precise}: dtype is {op.precision}, but eigenvalues and traces need float32 or float64: "
                "jax.tree.map(lambda x: x.astype('float32'), …) of base and adapters"
            )
        op.check_digits()
        self.op, self.n, self.count = op, op.shape[0], 0
        self.exponent, self.after, self.known = 0, 0, False

    @property
    def rounding(self) -> float:
        """Return n·ε: what a product in the operator's dtype may err by, relative to ‖H‖."""
        return self.n * float(self.limits.eps)

    @property
    def floor(self) -> float:
        """Return n·tiny: what a product may err by where numbers within it are too small to be written down."""
        return float(np.ldexp(self.n * float(self.limits.tiny), self.exponent))

    @property
    def noise(self) -> float:
        """Return 10·√n·ε: what a product errs by where roundings add up like random ones, relative to ‖H‖."""
        return 10 * self.n**0.5 * float(self.limits.eps)

    def __call__(self, v: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        image = self._product(self.op, v) if self.known else self._first(v)
        if not np.all(np.isfinite(image)):
            self._refuse(image)
        return np.ldexp(image, self.after)

    def on_device(self, v: Float[Array, "n"]) -> Float[Array, "n"]:
        """Return the same for a vector of the operator's dtype where it is, in that dtype."""
        if not self.known:
            return jnp.asarray(self(np.asarray(v, float)), v.dtype)
        self.count += 1
        image, finite = _scaled(self.op @ v, np.ldexp(1.0, self.after))
        if not finite:
            self._refuse(np.asarray(image))
        return image

    def _product(self, op: SymmetricOperator, v: np.ndarray) -> np.ndarray:
        self.count += 1
        return np.asarray(op @ jnp.asarray(v, op.dtype), float)

    def _refuse(self, image: np.ndarray) -> NoReturn:
        """Name the first entry that is not finite, and its layer."""
        odd = int(np.flatnonzero(~np.isfinite(image))[0])
        where = layer_of(self.op, odd)
        raise InputError(f"op: must be finite, but a product with it has the entry {image[odd]} at {where}")

    def _first(self, v: np.ndarray) -> np.ndarray:
        """The product that sets the scale, unless it is 0."""
        image, before = in_range(self.op, lambda op: self._product(op, v))
        if np.any(image) and np.all(np.isfinite(image)):
            self.op = times_power(self.op, before) if before else self.op
            self.after, self.known = exponent_of(image), True
            self.exponent = before + self.after
        return image

    def check_symmetry(self, draws: np.random.Generator) -> float:
        """Check ⟨u, Hv⟩ = ⟨v, Hu⟩ for a random unit pair, to rounding, and return a lower bound on ‖2^e·H‖.

        Raises `InputError` where they differ.
        """
        u, v = (x / np.linalg.norm(x) for x in draws.standard_normal((2, self.n)))
        Hu, Hv = self(u), self(v)
        apart, size = abs(u @ Hv - v @ Hu), float(max(np.linalg.norm(Hu), np.linalg.norm(Hv)))
        if apart > asymmetry_of_rounding(self.n, self.limits.dtype) * size + self.floor:
            apart, there = (float(np.ldexp(x, -self.exponent)) for x in (apart, size))
            raise InputError(f"op: must be symmetric, got |⟨u, Hv⟩ − ⟨v, Hu⟩| = {apart:.3g} where ‖Hu‖ is {there:.3g}")
        return size


@jax.jit
def _scaled(image: Array, factor: Array) -> tuple[Array, Array]:
    """(factor·image, whether all of it is finite)."""
    return image * factor.astype(image.dtype), jnp.all(jnp.isfinite(image))


def layer_of(op: LinearOperator, row: int) -> str:
    """Say where in the model a row of the operator lies."""
    for tree in op.point.plain.trees.values():
        places = [(path, x.size) for path, x in jax.tree_util.tree_leaves_with_path(tree)]
        if sum(size for _, size in places) == op.shape[0]:
            ends = np.cumsum([size for _, size in places])
            return jax.tree_util.keystr(places[int(np.searchsorted(ends, row, side="right"))][0])
    return f"row {row}"
