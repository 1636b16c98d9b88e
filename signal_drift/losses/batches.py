"""Takes losses over more data than fits in memory: the mean over batches, one batch at a time."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float

from signal_drift.errors import InputError
from signal_drift.lora.adapters import Weights

BatchLoss = Callable[[Any, Any], Array]
"""(weights, batch) ↦ the mean loss over the samples of a batch."""


@runtime_checkable
class Batches(Protocol):
    """Stand for a list, or anything else that knows its length and has its i-th batch at i."""

    def __len__(self) -> int: ...
    def __getitem__(self, i: int, /) -> Any: ...


def mean_over_batches(loss_on_batch: BatchLoss, batches: Batches) -> Partial:
    """Average ℓ(w) = Σ_b n_b ℓ_b(w) / Σ_b n_b: the loss over all samples, ℓ_b the mean over the n_b of batch b.

    A batch is an array or a tree of arrays whose first axis is the sample. Batches of JAX arrays stay on the device;
    `batches` of anything else (NumPy arrays, memory-mapped files, a class whose `__getitem__` reads a file) stay on
    the host and are fetched one at a time, at every product with an operator. Nothing computed on a batch outlives it
    (`jax.checkpoint`), so that gradients and Hessian products need the memory of one batch, however many there are.
    Raises `InputError` for no batches, and for one whose arrays disagree on the number of samples.
    """
    if len(batches) == 0:
        raise InputError("batches: need at least one, got none")
    groups: dict[Any, list[int]] = {}  # of one shape each: a scan compiles for one
    for i in range(len(batches)):
        groups.setdefault(_shapes(i, batches[i]), []).append(i)
    loss = loss_on_batch if isinstance(loss_on_batch, Partial) else Partial(loss_on_batch)
    if all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(batches[0])):
        stacks = [jax.tree.map(lambda *x: jnp.stack(x), *(batches[i] for i in group)) for group in groups.values()]
        return Partial(_mean_over_stacks, loss, stacks)
    return Partial(_Host(batches, {shape: tuple(group) for shape, group in groups.items()}), loss)


def _mean_over_stacks(loss: Partial, stacks: list[Any], weights: Weights) -> Float[Array, ""]:
    """Each stack holds k batches of one shape (n_b, …), as (k, n_b, …)."""
    sizes = [jax.tree.leaves(stack)[0].shape[:2] for stack in stacks]
    sums = [_sum(loss, stack, weights) for stack in stacks]
    return _weighted_mean(sums, sizes)


@dataclass(frozen=True, eq=False)
class _Host:
    """Batches that stay where they are; `groups` maps a batch's structure and shapes to the places of such batches."""

    batches: Batches
    groups: dict[Any, tuple[int, ...]]

    def __call__(self, loss: Partial, weights: Weights) -> Float[Array, ""]:
        sums, sizes = [], []
        for (tree, leaves), group in self.groups.items():
            wanted = [jax.ShapeDtypeStruct(shape, jax.dtypes.canonicalize_dtype(dtype)) for shape, dtype in leaves]

            def fetched(weights: Weights, i: Array, tree: Any = tree, wanted: list = wanted) -> Array:
                parts = jax.pure_callback(self._leaves, wanted, i, vmap_method="sequential")
                return loss(weights, jax.tree.unflatten(tree, parts))

            sums.append(_sum(fetched, jnp.array(group), weights))
            sizes.append((len(group), leaves[0][0][0]))
        return _weighted_mean(sums, sizes)

    def _leaves(self, i: Array) -> list[np.ndarray]:
        return [
            np.asarray(leaf, jax.dtypes.canonicalize_dtype(leaf.dtype))
            for leaf in jax.tree.leaves(self.batches[int(i)])
        ]


def _sum(loss: BatchLoss, batches: Any, weights: Weights) -> Float[Array, ""]:
    """Σ_b ℓ_b(w) in a scan that keeps nothing of a batch but its place."""
    once = jax.checkpoint(loss, prevent_cse=False)
    return jax.lax.scan(lambda total, batch: (total + once(weights, batch), None), jnp.asarray(0.0), batches)[0]


def _weighted_mean(sums: Iterable[Array], sizes: Sequence[tuple[int, int]]) -> Float[Array, ""]:
    samples = sum(k * n for k, n in sizes)
    return jnp.sum(jnp.stack([n / samples * total for total, (_, n) in zip(sums, sizes, strict=True)]))


def _shapes(i: int, batch: Any) -> Any:
    """The structure, shapes and dtypes of a batch, whose arrays must agree on the number of samples."""
    leaves, tree = jax.tree.flatten(batch)
    lengths = {np.shape(leaf)[:1] for leaf in leaves}
    if len(lengths) != 1 or lengths & {(), (0,)}:
        raise InputError(f"batches[{i}]: need one number of samples, at least 1, got {[np.shape(x) for x in leaves]}")
    return tree, tuple((np.shape(leaf), np.dtype(leaf.dtype)) for leaf in leaves)
