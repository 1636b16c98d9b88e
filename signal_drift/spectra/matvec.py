"""Multiplies a symmetric operator by host vectors; products are checked to be finite, and counted."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from signal_drift.errors import InputError
from signal_drift.operators.operator import LinearOperator, SymmetricOperator


class Matvec:
    """Apply v ↦ Hv in float64, computed in the operator's dtype. Raises `InputError` for one that is not symmetric."""

    def __init__(self, op: SymmetricOperator) -> None:
        if not isinstance(op, SymmetricOperator):
            kind, mend = type(op).__name__, "parts.lora for one; sd.eigenvalues takes a matrix"
            raise InputError(f"op: must be a symmetric operator of decompose, got {kind} ({mend})")
        self.op, self.n, self.count = op, op.shape[0], 0

    @property
    def rounding(self) -> float:
        """Return n·ε: what a product in the operator's dtype may err by, relative to ‖H‖."""
        return self.n * float(np.finfo(self.op.dtype).eps)

    @property
    def noise(self) -> float:
        """Return 10·√n·ε: what a product errs by where roundings add up like random ones, relative to ‖H‖."""
        return 10 * self.n**0.5 * float(np.finfo(self.op.dtype).eps)

    def __call__(self, v: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        self.count += 1
        image = np.asarray(self.op @ jnp.asarray(v, self.op.dtype), float)
        if not np.isfinite(image @ image):
            self._refuse(image)
        return image

    def _refuse(self, image: np.ndarray) -> None:
        odd = np.flatnonzero(~np.isfinite(image))
        if len(odd):
            where = layer_of(self.op, int(odd[0]))
            raise InputError(f"op: must be finite, but a product with it has the entry {image[odd[0]]} at {where}")

    def check_symmetry(self, draws: np.random.Generator) -> float:
        """Check ⟨u, Hv⟩ = ⟨v, Hu⟩ for a random unit pair, to ten times the noise, and return a lower bound on ‖H‖.

        Raises `InputError` where they differ.
        """
        u, v = (x / np.linalg.norm(x) for x in draws.standard_normal((2, self.n)))
        Hu, Hv = self(u), self(v)
        apart, size = abs(u @ Hv - v @ Hu), float(max(np.linalg.norm(Hu), np.linalg.norm(Hv)))
        if apart > 10 * self.noise * size:
            raise InputError(f"op: must be symmetric, got |⟨u, Hv⟩ − ⟨v, Hu⟩| = {apart:.3g} where ‖Hu‖ is {size:.3g}")
        return size


def layer_of(op: LinearOperator, row: int) -> str:
    """Say where in the model a row of the operator lies."""
    trees = [dict(op.point.base), {k: adapter._asdict() for k, adapter in op.point.adapters.items()}]
    for tree in trees:
        places = [(path, x.size) for path, x in jax.tree_util.tree_leaves_with_path(tree)]
        if sum(size for _, size in places) == op.shape[0]:
            ends = np.cumsum([size for _, size in places])
            return jax.tree_util.keystr(places[int(np.searchsorted(ends, row, side="right"))][0])
    return f"row {row}"
