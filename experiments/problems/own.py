"""Pose a problem of the reader's own: any flax.nnx model, a criterion on its outputs, and batches of (inputs, targets).

>>> import jax, jax.numpy as jnp
>>> from flax import nnx
>>> import signal_drift as sd
>>> x = jax.random.normal(jax.random.key(0), (12, 4))
>>> problem = own_problem(
...     "linear", sd.MLP([4, 2], rngs=nnx.Rngs(1)), lambda y, t: jnp.mean((y - t) ** 2), [(x, x[:, :2])], rank=1
... )
>>> problem.draw(0).base["layers.0"].shape, problem.dense
((2, 4), True)
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.tree_util import Partial

import signal_drift as sd
from experiments.lab.errors import OptionError
from experiments.lab.problem import DENSE, Drawn, Dtype, Problem, Training, Tuning, cast
from signal_drift.losses.arguments import check_value
from signal_drift.models.bridge import Forward
from signal_drift.models.layers import Selection

Batch = tuple[Any, Any]
"""(inputs, targets): an array, or a tuple of them for a model of several inputs, and what they are compared with."""
Criterion = Callable[[Any, Any], Array]
"""(outputs, targets) ↦ a scalar, the mean over the samples of a batch."""


class Parts(NamedTuple):
    """Hold the model taken apart, and the data."""

    base: dict[str, Array]
    forward: Forward
    criterion: Criterion
    batches: tuple[Batch, ...]
    held_out: Batch | None
    score: Criterion | None


@dataclass(frozen=True)
class Own(Problem):
    """Pose a model and data of the reader's own; seeds draw A and the order of the batches, nothing else."""

    title: str = ""
    """Its name in the report."""
    digest: str = ""
    """The weights, the data and what is computed of them, so that records of others are not taken for these."""
    parts: Parts | None = field(default=None, repr=False, compare=False, metadata={"stored": False})

    @property
    def tuning(self) -> Tuning | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        ranks = tuple(r for r in (1, 4, 16) if r <= max(4, self.rank))
        return Tuning(
            seeds=3,
            ranks=ranks,
            grid_ranks=(self.rank,),
            protocol_ranks=(self.rank,),
            rate_shares=(1.0,),
            own_rates=(1.0,),
            alphas=tuple(2.0**k for k in range(-2, 12)),
        )

    @property
    def name(self) -> str:
        return self.title

    @property
    def label(self) -> str:
        return self.title

    @property
    def own(self) -> Parts:
        """Return the model and the data."""
        assert self.parts is not None  # own_problem puts them there
        return self.parts

    @property
    def dense(self) -> bool:
        shapes = [W0.shape for W0 in self.own.base.values()]
        return max(sum(m * n for m, n in shapes), sum(self.rank * (m + n) for m, n in shapes)) <= DENSE

    def draw(self, seed: int, dtype: Dtype = "float64") -> Drawn:
        base, forward, criterion, batches, *_ = self.own
        return cast(Drawn(base, _loss(forward, criterion, batches[0])), dtype)

    def training(self, seed: int, steps: int, dtype: Dtype = "float64") -> Training:
        _, forward, criterion, batches, held_out, score = self.own
        fit = Partial(_mean, [_loss(forward, criterion, batch) for batch in batches])
        scores = {} if held_out is None or score is None else {"held out": _loss(forward, score, held_out)}
        if len(batches) == 1:
            return cast(Training(fit, None, fit, scores), dtype)
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *batches)
        order = np.concatenate([np.random.default_rng((seed, k)).permutation(len(batches)) for k in range(steps)])
        chosen = jax.tree.map(lambda x: x[order[:steps]], stacked)
        return cast(Training(Partial(_on_batch, forward, Partial(criterion)), chosen, fit, scores), dtype)

    def tiny(self) -> Self:
        return replace(self, rank=min(self.rank, 2))


def own_problem(
    name: str,
    model: nnx.Module,
    criterion: Criterion,
    batches: Sequence[Batch],
    *,
    rank: int = 4,
    layers: Selection = None,
    held_out: Batch | None = None,
    score: Criterion | None = None,
) -> Own:
    """Make a problem of a model, a criterion on its outputs, and batches of (inputs, targets).

    The curvature is that of the first batch; one batch means full-batch training. `layers` selects what gets adapters,
    as in `sd.base_and_forward`. `score` judges the outputs on `held_out`, higher is better. Raises `OptionError` for no
    batches, batches of different shapes, numbers that are not finite, inputs that the model cannot take, and a
    criterion or a score that is no finite scalar which JAX can trace.
    """
    if not name or not name.replace("-", "").replace("_", "").isalnum():
        raise OptionError(f"name: must be of letters, digits, - and _, got {name!r}")
    if not isinstance(batches, Sequence) or len(batches) == 0:
        raise OptionError(f"batches: need at least one pair (inputs, targets), got {batches!r}")
    if (held_out is None) != (score is None):
        raise OptionError("score: goes with held_out, a pair (inputs, targets) that it judges the outputs on")
    data = tuple(_arrays(f"batches[{i}]", batch) for i, batch in enumerate(batches))
    for i, batch in enumerate(data):
        if _shapes(batch) != _shapes(data[0]):
            first = _shapes(data[0])
            raise OptionError(f"batches[{i}]: must have the shapes of the first, {first}, got {_shapes(batch)}")
    inputs = _as_tuple(data[0][0])
    try:
        base, forward = sd.base_and_forward(model, layers, example=inputs)
    except sd.InputError:
        raise
    except Exception as error:  # whatever a model of the reader's raises
        raise _not_taken("batches", inputs, error) from None
    _check_value("criterion", "batches", _loss(forward, criterion, data[0]), base)
    if held_out is not None and score is not None:
        held_out = _arrays("held_out", held_out)
        _check_value("score", "held_out", _loss(forward, score, held_out), base)
    parts = Parts(base, forward, criterion, data, held_out, score)
    return Own(rank=rank, title=name, digest=_digest(parts), parts=parts)


def _arrays(name: str, batch: Batch) -> Batch:
    """Turn a pair (inputs, targets) into finite arrays."""
    if not isinstance(batch, tuple) or len(batch) != 2:
        raise OptionError(f"{name}: must be a pair (inputs, targets), got {type(batch).__name__}")
    try:
        inputs, targets = jax.tree.map(jnp.asarray, batch)
    except (TypeError, ValueError) as error:
        raise OptionError(f"{name}: must be arrays of numbers ({_first_line(error)})") from None
    if not all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves((inputs, targets))):
        raise OptionError(f"{name}: must be finite, got NaN or infinity")
    return inputs, targets


def _check_value(name: str, data: str, loss: Partial, base: dict[str, Array]) -> None:
    """The model takes the inputs, and the argument `name` makes of its outputs a finite scalar that JAX can trace."""
    outputs, criterion = loss.args
    try:
        found = outputs(base)
    except Exception as error:  # whatever a model of the reader's raises
        raise _not_taken(data, outputs.args[1], error) from None
    try:
        check_value(loss, base)
    except sd.InputError as error:
        raise OptionError(f"{name}: {str(error).removeprefix('loss: ')}") from None
    except Exception as error:
        shapes = f"outputs of shape {_shapes(found)} with targets of shape {_shapes(criterion.args[1])}"
        raise OptionError(f"{name}: cannot compare {shapes} ({_first_line(error)})") from None


def _not_taken(data: str, inputs: tuple[Array, ...], error: Exception) -> OptionError:
    shapes = _shapes(inputs if len(inputs) != 1 else next(iter(inputs)))
    return OptionError(f"{data}: the model cannot take inputs of shape {shapes} ({_first_line(error)})")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _loss(forward: Forward, criterion: Criterion, batch: Batch) -> Partial:
    """ℓ(w) on one batch, split into outputs and criterion."""
    inputs, targets = batch
    outputs = Partial(_outputs, forward, _as_tuple(inputs))
    return sd.composite(outputs, Partial(_criterion, Partial(criterion), targets))


def _outputs(forward: Forward, inputs: tuple[Array, ...], weights: dict[str, Array]) -> Any:
    return forward(weights, *inputs)


def _criterion(criterion: Partial, targets: Any, outputs: Any) -> Array:
    return criterion(outputs, targets)


def _on_batch(forward: Forward, criterion: Partial, weights: dict[str, Array], batch: Batch) -> Array:
    inputs, targets = batch
    return criterion(forward(weights, *_as_tuple(inputs)), targets)


def _mean(losses: Sequence[Partial], weights: dict[str, Array]) -> Array:
    return sum((loss(weights) for loss in losses), jnp.asarray(0.0)) / len(losses)


def _as_tuple(inputs: Any) -> tuple[Any, ...]:
    return inputs if isinstance(inputs, tuple) else (inputs,)


def _shapes(tree: Any) -> Any:
    return jax.tree.map(jnp.shape, tree)


def _digest(parts: Parts) -> str:
    content = hashlib.sha256()
    for leaf in jax.tree.leaves((parts.base, parts.forward, parts.batches, parts.held_out)):
        if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):  # no draw of a model in eval mode depends on it
            content.update(np.asarray(leaf).tobytes())
    for judge, batch in ((parts.criterion, parts.batches[0]), (parts.score, parts.held_out)):
        if judge is not None and batch is not None:
            _add_program(content, _loss(parts.forward, judge, batch), parts.base)
    return content.hexdigest()[:16]


def _add_program(content: "hashlib._Hash", loss: Partial, base: dict[str, Array]) -> None:
    """Add what JAX computes for a loss, whatever code and closures it comes from, and the constants therein."""
    closed = jax.make_jaxpr(loss)(base)
    content.update(re.sub(r" at 0x[0-9a-f]+", "", str(closed.jaxpr)).encode())
    for constant in closed.consts:
        if not jax.dtypes.issubdtype(constant.dtype, jax.dtypes.prng_key):
            content.update(np.asarray(constant).tobytes())
