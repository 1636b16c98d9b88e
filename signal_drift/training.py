"""Trains under one scan that records something of every step: what the signal and the drift did, unless told.

The drift is in the experimenter's hand: it may be removed, turned, multiplied or replaced by noise of its own size.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, overload

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer
from jaxtyping import Array, Float, Key

from signal_drift.display import Table, displayed_as, dtype, span
from signal_drift.errors import InputError
from signal_drift.errors.arguments import is_real, leaves, random_key, whole
from signal_drift.errors.words import shown
from signal_drift.lora.adapters import (
    Adapter,
    Adapters,
    Scaling,
    Weights,
    adjoint_product,
    check_adapters,
    check_fit,
    check_matrices,
    effective_weights,
    scalings,
)
from signal_drift.lora.norms import frobenius, update_norms
from signal_drift.losses.arguments import Loss, check_loss
from signal_drift.losses.batches import BatchLoss
from signal_drift.optimizers import loop_of

Optimizer = optax.GradientTransformation | optax.MultiSteps
PerLayer = Mapping[str, Float[Array, "*steps"]]


class Run(NamedTuple):
    """Hold what happened in T steps; a run that diverges carries on as inf and NaN.

    `loss` has T + 1 entries, from before the first step to after the last; everything else has T. Norms are
    ‖ΔW‖_F per layer, alignments ⟨Δw, −g⟩ over all layers, `trained` the final adapters or weights. The drift is
    s ΔBΔA, whatever was put in its place; `base` is then the W₀ that belongs to `trained`, and None where it never
    moved.
    """

    loss: Float[Array, "*steps"]
    signal_norms: PerLayer
    drift_norms: PerLayer
    signal_alignment: Float[Array, "*steps"]
    drift_alignment: Float[Array, "*steps"]
    gradient_norm: Float[Array, "*steps"]
    trained: Any = None
    base: Any = None

    @property
    def signal_norm(self) -> Float[Array, "*steps"]:
        """Return ‖Δw_Signal‖ over all layers."""
        return _total(self.signal_norms)

    @property
    def drift_norm(self) -> Float[Array, "*steps"]:
        """Return ‖Δw_Drift‖ over all layers."""
        return _total(self.drift_norms)


class Step(NamedTuple):
    """Show a recorder one step, θ → θ + Δθ with w = w(θ): θ is the adapters, or the weights themselves.

    `loss` and `gradient`, G = ∇_W ℓ per layer, are those at w on the batch of the step, and `theta_gradient` is Jᵀg.
    `after` is θ + Δθ, `state` that of the optimizer after the step, and `scaling` s per layer, empty where θ = w.
    `base_delta` is ΔW₀, by which the step's drift is another than s ΔBΔA; None where it is not.
    """

    theta: Any
    weights: dict[str, Array]
    loss: Float[Array, ""]
    gradient: dict[str, Array]
    theta_gradient: Any
    delta: Any
    after: Any
    state: optax.OptState
    scaling: Mapping[str, float | Array]
    base_delta: dict[str, Array] | None = None


class DriftNoise(NamedTuple):
    """Put noise in the place of the drift: in every step and layer a Gaussian matrix of the norm ‖s ΔBΔA‖_F."""

    key: Key[Array, ""]


Drift = float | Array | DriftNoise
"""What the drift of every step is: so many times s ΔBΔA, or noise."""

Recorder = Callable[[Step], Any]
"""A pure function of one step to a tree of arrays."""


class RecordedRun(NamedTuple):
    """Hold what a recorder of one's own saw in T steps.

    `loss` has T + 1 entries as in `Run`, every array of `recorded` has T rows; `trained` and `state` are θ and the
    state of the optimizer after the last step, `base` as in `Run`.
    """

    loss: Float[Array, "steps"]
    recorded: Any
    trained: Any
    state: optax.OptState
    base: Any = None


@overload
def train(
    loss: Loss | BatchLoss,
    base: Weights,
    adapters: Adapters | None,
    scaling: Scaling,
    optimizer: Optimizer,
    steps: int,
    batches: Any = None,
    *,
    drift: Drift = 1.0,
) -> Run: ...


@overload
def train(
    loss: Loss | BatchLoss,
    base: Weights,
    adapters: Adapters | None,
    scaling: Scaling,
    optimizer: Optimizer,
    steps: int,
    batches: Any = None,
    *,
    drift: Drift = 1.0,
    record: Recorder,
) -> RecordedRun: ...


def train(
    loss: Loss | BatchLoss,
    base: Weights,
    adapters: Adapters | None,
    scaling: Scaling,
    optimizer: Optimizer,
    steps: int,
    batches: Any = None,
    *,
    drift: Drift = 1.0,
    record: Recorder | None = None,
) -> Run | RecordedRun:
    """Take `steps` steps of `optimizer` on θ ↦ ℓ(w(θ)), recording ‖Δw_Signal‖, ‖Δw_Drift‖ and their alignment with −g.

    With `adapters` None the weights themselves are trained (full fine-tuning): θ = w, all signal and no drift,
    and `scaling` has no effect. With `batches`, an array or a tree of arrays whose first axis is the step, the loss is
    a function of (weights, batch), and every step, g and loss are those of its own batch; the loss after the last
    step is that of the last batch. The function is traceable: vmap it over scalings, adapters or learning rates. Any
    optimizer of optax will do: one that asks for the loss beside the gradient (a line search, Polyak's rate, …) is
    given that of the step's batch, and the θ of optax.lookahead are its fast weights.

    With `drift` c the update of w is ΔW_Signal + c·ΔW_Drift, exactly (Eq. 4): W₀ takes up (c − 1)·s ΔBΔA at every
    step, and the optimizer moves θ as it would. 0 removes the drift, −1 turns it round, and `DriftNoise(key)` puts
    noise of the same norm in its place.

    With `record`, a function of a `Step` to a tree of arrays, what it returns is recorded instead, one row a step:

    >>> base = {"layer": jnp.eye(2)}
    >>> start = {"layer": Adapter(A=jnp.ones((1, 2)), B=jnp.zeros((2, 1)))}
    >>> def loss(weights):
    ...     return jnp.sum(weights["layer"] ** 2) / 2
    >>> train(loss, base, start, 1.0, optax.sgd(0.25), 2)
    Run of 2 steps, float64
                   first     last  least … greatest
      loss             1    0.526         0.526 … 1
      ‖Δw_Signal‖    0.5    0.266       0.266 … 0.5
      ‖Δw_Drift‖       0  0.00781       0 … 0.00781
      ‖g‖           1.41     1.12       1.12 … 1.41
    >>> run = train(loss, base, start, 1.0, optax.sgd(0.25), 2, record=lambda step: {"B": step.after["layer"].B[:, 0]})
    >>> run.recorded["B"].tolist()
    [[-0.25, -0.25], [-0.375, -0.375]]
    >>> removed = train(loss, base, start, 1.0, optax.sgd(0.25), 2, drift=0.0)
    >>> (removed.base["layer"] - base["layer"]).tolist()  # less what the drift would have added
    [[0.00390625, 0.00390625], [0.00390625, 0.00390625]]

    Raises `InputError` for steps, an optimizer, adapters, a scaling, a drift, batches or a loss that do not fit.
    """
    steps = whole("steps", steps, 0)
    if record is None:
        recorder = all_signal if adapters is None else signal_and_drift
        run = train(loss, base, adapters, scaling, optimizer, steps, batches, drift=drift, record=recorder)
        return run.recorded._replace(loss=run.loss, trained=run.trained, base=run.base)
    if not callable(record):
        raise InputError(f"record: must be a function of a Step, as lambda step: step.after, got {shown(record)}")
    space = _full(base) if adapters is None else _low_rank(base, adapters, scaling)
    replaced = _in_place_of(drift, adapters)

    on, last = _on_batches(loss, batches, steps)
    check_loss(lambda weights: on(weights, last), space.weights(space.start, base))
    loop = loop_of(optimizer, space.start)

    def step(carry: tuple[Any, optax.OptState, Any], given: Any) -> tuple[tuple[Any, optax.OptState, Any], Any]:
        (theta, state, moved), (batch, key) = carry, given
        here = base if moved is None else moved
        weights = space.weights(theta, here)
        value, gradient = jax.value_and_grad(on)(weights, batch)
        theta_gradient = jax.tree.map(lambda g, x: g.astype(x.dtype), space.pull_back(theta, gradient), theta)
        extra = {
            "value": value,
            "grad": theta_gradient,
            "value_fn": lambda theta: on(space.weights(theta, here), batch),
        }
        delta, state = loop.update(theta_gradient, state, theta, **extra)
        after = optax.apply_updates(theta, delta)
        base_delta = None if replaced is None else replaced(delta, space.scaling, key)
        moved = None if base_delta is None else {k: (W + base_delta[k]).astype(W.dtype) for k, W in here.items()}
        seen = Step(theta, weights, value, gradient, theta_gradient, delta, after, state, space.scaling, base_delta)
        return (after, state, moved), (value, record(seen))

    start = space.start, loop.init(space.start), None if replaced is None else dict(base)
    keys = jax.random.split(drift.key, steps) if isinstance(drift, DriftNoise) else None
    (theta, state, moved), (losses, recorded) = jax.lax.scan(step, start, (batches, keys), length=steps)
    final = on(space.weights(theta, base if moved is None else moved), last)
    return RecordedRun(jnp.append(losses, final), recorded, theta, state, moved)


def signal_and_drift(step: Step) -> Run:
    """Record the norms ‖Δw_Signal‖, ‖Δw_Drift‖ and their alignments with −g of one step on adapters (Eq. 18–22).

    ‖s(BΔA + ΔB A)‖_F and ‖s ΔB ΔA‖_F are taken without ΔW where their terms do not cancel.
    """
    s, delta = step.scaling, step.delta
    signal_norms, drift_norms = update_norms(step.theta, delta, s)
    products = [s[k] * jnp.vdot(dB.T @ step.gradient[k], dA) for k, (dA, dB) in delta.items()]
    return Run(
        loss=step.loss,
        signal_norms=signal_norms,
        drift_norms=drift_norms,
        signal_alignment=-jnp.asarray(optax.tree.vdot(delta, step.theta_gradient)),  # = ⟨Δw_Signal, −g⟩ (Eq. 22)
        drift_alignment=-jnp.sum(jnp.stack(products)),
        gradient_norm=frobenius(*step.gradient.values()),
    )


def all_signal(step: Step) -> Run:
    """Record of a step in full fine-tuning, θ = w, what `signal_and_drift` records of adapters: Δw is all signal."""
    return Run(
        loss=step.loss,
        signal_norms={k: frobenius(change) for k, change in step.delta.items()},
        drift_norms={k: jnp.zeros((), change.dtype) for k, change in step.delta.items()},
        signal_alignment=-jnp.asarray(optax.tree.vdot(step.delta, step.gradient)),
        drift_alignment=jnp.zeros((), jnp.result_type(*step.gradient.values())),
        gradient_norm=frobenius(*step.gradient.values()),
    )


def pad_rank(adapters: Adapters, rank: int) -> dict[str, Adapter]:
    """Fill up A with zero rows and B with zero columns to `rank`, which leaves the map θ ↦ w as it is.

    Their gradients are zero, so no optimizer that maps zero to zero moves them: adapters of different ranks can
    share one compiled, vmapped run. Raises `InputError` for a rank below an adapter's own.
    """
    check_adapters("adapters", adapters)
    rank = whole("rank", rank, 1)
    for layer, (A, _) in adapters.items():
        if rank < len(A):
            raise InputError(f"rank: {rank} is below the rank {len(A)} of adapters[{layer!r}]")
    return {
        layer: Adapter(jnp.pad(A, ((0, rank - len(A)), (0, 0))), jnp.pad(B, ((0, 0), (0, rank - len(A)))))
        for layer, (A, B) in adapters.items()
    }


def _on_batches(loss: Callable[..., Array], batches: Any, steps: int) -> tuple[BatchLoss, Any]:
    """The loss as a function of (weights, batch), and the last batch."""
    if batches is None:
        return lambda weights, batch: loss(weights), None
    for _, leaf in leaves("batches", batches):
        if not steps or jnp.shape(leaf)[:1] != (steps,):
            raise InputError(f"batches: need one for each of {steps} steps, got an array of shape {jnp.shape(leaf)}")
    return loss, jax.tree.map(lambda x: x[-1], batches)


def _in_place_of(drift: Drift, adapters: Adapters | None) -> Callable[..., dict[str, Array]] | None:
    """Return what W₀ takes up in a step, by (Δθ, s, key); None where the drift is the map's own, or raise."""
    if isinstance(drift, DriftNoise):
        random_key("drift: the key of its noise", drift.key)
        replaced: Callable[..., dict[str, Array]] | None = _noise_less_drift
    elif not is_real(drift):
        raise InputError(f"drift: must be a number, or DriftNoise(jax.random.key(seed)), got {shown(drift)}")
    elif not isinstance(drift, Tracer) and not math.isfinite(drift):
        raise InputError(f"drift: must be finite, got {shown(drift)}")
    else:
        ordinary = isinstance(drift, int | float) and drift == 1
        replaced = None if ordinary else partial(_multiple_less_drift, drift)
    if adapters is None and replaced is not None:
        raise InputError(f"drift: there is none without adapters, got {shown(drift)}")
    return replaced


def _multiple_less_drift(c: float | Array, delta: Adapters, s: Mapping[str, Any], key: None) -> dict[str, Array]:
    """(c − 1)·s ΔBΔA."""
    return {k: (c - 1) * s[k] * (dB @ dA) for k, (dA, dB) in delta.items()}


def _noise_less_drift(delta: Adapters, s: Mapping[str, Any], key: Key[Array, ""]) -> dict[str, Array]:
    """N − s ΔBΔA with N of the direction of a Gaussian matrix and of the norm of s ΔBΔA."""
    own = {k: s[k] * (dB @ dA) for k, (dA, dB) in delta.items()}
    keys = dict(zip(own, jax.random.split(key, len(own)), strict=True))
    noise = {k: jax.random.normal(keys[k], x.shape, x.dtype) for k, x in own.items()}
    return {k: frobenius(x) / frobenius(noise[k]) * noise[k] - x for k, x in own.items()}


class _Space(NamedTuple):
    """The parameters θ that are trained: where they start, w(θ, W₀), and (θ, g) ↦ Jᵀg."""

    start: Any
    weights: Callable[[Any, Weights], dict[str, Array]]
    pull_back: Callable[[Any, dict[str, Array]], Any]
    scaling: Mapping[str, float | Array]


def _low_rank(base: Weights, adapters: Adapters, scaling: Scaling) -> _Space:
    """θ = (A, B) and w = W₀ + s·BA."""
    check_fit(base, adapters)
    s = scalings(scaling, base)
    return _Space(
        start=dict(adapters),
        weights=lambda theta, base: effective_weights(base, theta, s),
        pull_back=lambda theta, gradient: adjoint_product(theta, gradient, s),
        scaling=s,
    )


def _full(base: Weights) -> _Space:
    """θ = w."""
    check_matrices(base)
    return _Space(start=dict(base), weights=lambda w, base: w, pull_back=lambda w, gradient: gradient, scaling={})


def _total(norms: PerLayer) -> Array:
    """The norm over layers at every step of every run."""
    return jnp.vectorize(frobenius)(*norms.values())


def _table(x: Run) -> Table:
    *runs, count = x.loss.shape
    quantities = {"loss": x.loss, "‖Δw_Signal‖": x.signal_norm, "‖Δw_Drift‖": x.drift_norm, "‖g‖": x.gradient_norm}
    rows = [
        (name, span(values[..., 0]), span(values[..., -1]), span(values))
        for name, values in quantities.items()
        if values.size
    ]
    title = f"Run of {count - 1} steps, {dtype(x.loss)}" + f", {'×'.join(map(str, runs))} of them" * bool(runs)
    return Table(title, ("", "first", "last", "least … greatest"), rows)


displayed_as(_table)(Run)
