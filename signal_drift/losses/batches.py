"""Takes losses over more data than fits in memory: the mean over batches, one batch at a time."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float

from signal_drift.errors import InputError
from signal_drift.errors.words import shown
from signal_drift.lora.adapters import Weights
from signal_drift.losses.arguments import traceable

BatchLoss = Callable[[Any, Any], Array]
"""(weights, batch) ↦ the mean loss over the samples of a batch."""


@runtime_checkable
class Batches(Protocol):
    """Stand for a list, or anything else that knows its length and has its i-th batch at i."""

    def __len__(self) -> int: ...
    def __getitem__(self, i: int, /) -> Any: ...


def mean_over_batches(loss_on_batch: BatchLoss, batches: Batches | Iterable | Callable[[], Iterable]) -> Partial:
    """Average ℓ(w) = Σ_b n_b ℓ_b(w) / Σ_b n_b: the loss over all samples, ℓ_b the mean over the n_b of batch b.

    A batch is an array or a tree of arrays whose first axis is the sample. Batches of JAX arrays stay on the device;
    `batches` of anything else (NumPy arrays, memory-mapped files, a class whose `__getitem__` reads a file) stay on
    the host and are fetched one at a time, at every product with an operator. So do those of a loader that can only be
    iterated (of torch, of tf.data), anew each time, and of a function that makes an iterator; they are read first to
    last. Nothing computed on a batch outlives it (`jax.checkpoint`), so that gradients and Hessian products need the
    memory of one batch, however many there are. Raises `InputError` for no batches, for one whose arrays disagree on
    the number of samples, and for an iterator, which can be read only once.
    """
    loss, batches = traceable("loss_on_batch", loss_on_batch), _indexed(batches)
    groups: dict[Any, list[int]] = {}  # of one shape each: a scan compiles for one
    for i in range(len(batches)):
        groups.setdefault(_shapes(i, batches[i]), []).append(i)
    if not groups:
        raise InputError("batches: need at least one, got none")
    in_order = isinstance(batches, _Read)
    if not in_order and all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(batches[0])):
        stacks = [jax.tree.map(lambda *x: jnp.stack(x), *(batches[i] for i in group)) for group in groups.values()]
        return Partial(_mean_over_stacks, loss, stacks)
    return Partial(_Host(batches, {shape: tuple(group) for shape, group in groups.items()}, in_order), loss)


class _Read:
    """The i-th batch of what can only be read from its beginning; the reader goes on where it is, if it is before."""

    def __init__(self, fresh: Callable[[], Iterable]) -> None:
        self.fresh, self.reader, self.following = fresh, iter(()), 0
        self.count = sum(1 for _ in fresh())
        self.following = self.count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> Any:
        if i < self.following:
            self.reader, self.following = iter(self.fresh()), 0
        for batch in self.reader:
            self.following += 1
            if self.following > i:
                return batch
        raise InputError(f"batches: there were {self.count}, but read again there are only {self.following}")


def _indexed(batches: Any) -> Batches:
    """The batches by their number, however they come."""
    if isinstance(batches, Batches) and not isinstance(batches, Mapping | str | bytes):
        return batches
    if isinstance(batches, Iterator):
        kind = type(batches).__name__
        raise InputError(f"batches: a {kind} can be read only once; pass a function that makes one, lambda: …")
    if isinstance(batches, Iterable) and not isinstance(batches, Mapping | str | bytes):
        return _Read(lambda: batches)
    if not callable(batches):
        raise InputError(
            f"batches: must be a list, a loader or a function that makes one, got {type(batches).__name__}"
        )
    first = batches()
    if not isinstance(first, Iterable) or first is batches():
        raise InputError(f"batches: the function must make an iterator, a new one at each call, got {shown(first)}")
    return _Read(cast(Callable[[], Iterable[Any]], batches))


def _mean_over_stacks(loss: Partial, stacks: list[Any], weights: Weights) -> Float[Array, ""]:
    """Each stack holds k batches of one shape (n_b, …), as (k, n_b, …)."""
    sizes = [jax.tree.leaves(stack)[0].shape[:2] for stack in stacks]
    sums = [_sum(loss, stack, weights) for stack in stacks]
    return _weighted_mean(sums, sizes)


@dataclass(frozen=True, eq=False)
class _Host:
    """Batches that stay where they are; `groups` maps a batch's structure and shapes to the places of such batches.

    They are read first to last in the gradient too if they are `in_order`.
    """

    batches: Batches
    groups: dict[Any, tuple[int, ...]]
    in_order: bool

    def __call__(self, loss: Partial, weights: Weights) -> Float[Array, ""]:
        sums, sizes = [], []
        for (tree, leaves), group in self.groups.items():
            wanted = [jax.ShapeDtypeStruct(shape, jax.dtypes.canonicalize_dtype(dtype)) for shape, dtype in leaves]

            def fetched(arguments: tuple, i: Array, tree: Any = tree, wanted: list = wanted) -> Array:
                loss, weights = arguments
                parts = jax.pure_callback(self._leaves, wanted, i, vmap_method="sequential")
                return loss(weights, jax.tree.unflatten(tree, parts))

            total = _sum_in_order if self.in_order else _sum
            sums.append(total(fetched, np.array(group), (loss, weights)))
            sizes.append((len(group), leaves[0][0][0]))
        return _weighted_mean(sums, sizes)

    def _leaves(self, i: Array) -> list[np.ndarray]:
        leaves = [_array(leaf) for leaf in jax.tree.leaves(self.batches[int(i)])]
        return [np.asarray(leaf, jax.dtypes.canonicalize_dtype(leaf.dtype)) for leaf in leaves]


def _sum(loss: BatchLoss, batches: Any, weights: Any) -> Float[Array, ""]:
    """Σ_b ℓ_b(w) in a scan that keeps nothing of a batch but its place."""
    once = jax.checkpoint(loss, prevent_cse=False)
    return jax.lax.scan(lambda total, batch: (total + once(weights, batch), None), jnp.asarray(0.0), batches)[0]


def _sum_in_order(loss: BatchLoss, batches: np.ndarray, arguments: Any) -> Float[Array, ""]:
    """`_sum` whose gradient goes through the batches first to last as well: a scan's own goes backwards."""
    leaves, tree = jax.tree.flatten(arguments)
    moves = [jnp.issubdtype(jnp.result_type(x), jnp.inexact) for x in leaves]

    def on(moving: list, fixed: list, batch: Any) -> Array:
        rest = {True: iter(moving), False: iter(fixed)}
        return loss(jax.tree.unflatten(tree, [next(rest[x]) for x in moves]), batch)

    def total(moving: list, fixed: list) -> Array:
        return _sum(lambda moving, batch: on(moving, fixed, batch), batches, moving)

    def backward(arguments: tuple[list, list], slope: Array) -> tuple[list, None]:
        moving, fixed = arguments

        def pulled(moving: list, slope: Array, batch: Any) -> list:
            value, pull = jax.vjp(lambda x: on(x, fixed, batch), moving)
            return pull(slope.astype(value.dtype))[0]

        once = jax.checkpoint(pulled, prevent_cse=False)

        def add(gradient: list, batch: Any) -> tuple[list, None]:
            return jax.tree.map(jnp.add, gradient, once(moving, slope, batch)), None

        return jax.lax.scan(add, jax.tree.map(jnp.zeros_like, moving), batches)[0], None

    in_order = jax.custom_vjp(total)
    in_order.defvjp(lambda moving, fixed: (total(moving, fixed), (moving, fixed)), backward)
    parts = [[x for x, is_moving in zip(leaves, moves, strict=True) if is_moving is part] for part in (True, False)]
    return in_order(*parts)


def _weighted_mean(sums: Iterable[Array], sizes: Sequence[tuple[int, int]]) -> Float[Array, ""]:
    samples = sum(k * n for k, n in sizes)
    return jnp.sum(jnp.stack([n / samples * total for total, (_, n) in zip(sums, sizes, strict=True)]))


def _shapes(i: int, batch: Any) -> Any:
    """The structure, shapes and dtypes of a batch, whose arrays must agree on the number of samples."""
    leaves, tree = jax.tree.flatten(jax.tree.map(_array, batch))
    for leaf in leaves:
        if not (jnp.issubdtype(leaf.dtype, jnp.number) or leaf.dtype == bool):
            raise InputError(f"batches[{i}]: must be arrays of numbers, got {leaf.dtype}")
    lengths = {np.shape(leaf)[:1] for leaf in leaves}
    if len(lengths) != 1 or lengths & {(), (0,)}:
        raise InputError(f"batches[{i}]: need one number of samples, at least 1, got {[np.shape(x) for x in leaves]}")
    return tree, tuple((np.shape(leaf), np.dtype(leaf.dtype)) for leaf in leaves)


def _array(x: Any) -> jax.Array | np.ndarray:
    """An array as it is, another library's as NumPy has it."""
    return x if isinstance(x, jax.Array | np.ndarray) else np.asarray(x)
