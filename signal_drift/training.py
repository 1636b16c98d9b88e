"""Training under one scan that records, at every step, what the signal and the drift did."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from signal_drift.display import Table, dtype, shown, span
from signal_drift.errors import InputError
from signal_drift.lora.adapters import (
    Adapter,
    Adapters,
    Scaling,
    Weights,
    adjoint_product,
    check_fit,
    check_matrices,
    effective_weights,
    per_layer,
)
from signal_drift.losses.arguments import Loss, check_loss
from signal_drift.losses.batches import BatchLoss

PerLayer = Mapping[str, Float[Array, "*steps"]]


def _run(x: "Run") -> Table:
    *runs, count = x.loss.shape
    quantities = {"loss": x.loss, "‖Δw_Signal‖": x.signal_norm, "‖Δw_Drift‖": x.drift_norm, "‖g‖": x.gradient_norm}
    rows = [(name, *(span(f(v)) for f in (_first, _last, _all))) for name, v in quantities.items() if v.size]
    title = f"Run of {count - 1} steps, {dtype(x.loss)}" + f", {'×'.join(map(str, runs))} of them" * bool(runs)
    return Table(title, ("", "first", "last", "least … greatest"), rows)


def _first(x: Array) -> Array:
    return x[..., 0]


def _last(x: Array) -> Array:
    return x[..., -1]


def _all(x: Array) -> Array:
    return x


@shown(_run)
class Run(NamedTuple):
    """What happened in T steps; a run that diverges carries on as inf and NaN.

    `loss` has T + 1 entries, from before the first step to after the last; everything else has T. Norms are
    ‖ΔW‖_F per layer, alignments ⟨Δw, −g⟩ over all layers, `trained` the final adapters or weights.
    """

    loss: Float[Array, "*steps"]
    signal_norms: PerLayer
    drift_norms: PerLayer
    signal_alignment: Float[Array, "*steps"]
    drift_alignment: Float[Array, "*steps"]
    gradient_norm: Float[Array, "*steps"]
    trained: Any = None

    @property
    def signal_norm(self) -> Float[Array, "*steps"]:
        """‖Δw_Signal‖ over all layers."""
        return _total(self.signal_norms)

    @property
    def drift_norm(self) -> Float[Array, "*steps"]:
        """‖Δw_Drift‖ over all layers."""
        return _total(self.drift_norms)


def train(
    loss: Loss | BatchLoss,
    base: Weights,
    adapters: Adapters | None,
    scaling: Scaling,
    optimizer: optax.GradientTransformation,
    steps: int,
    batches: Any = None,
) -> Run:
    """`steps` steps of `optimizer` on θ ↦ ℓ(w(θ)), recording ‖Δw_Signal‖, ‖Δw_Drift‖ and their alignment with −g.

    With `adapters` None the weights themselves are trained (full fine-tuning): θ = w, all signal and no drift,
    and `scaling` has no effect. With `batches`, an array or a tree of arrays whose first axis is the step, the loss is
    a function of (weights, batch), and every step, g and loss are those of its own batch; the loss after the last
    step is that of the last batch. The function is traceable: vmap it over scalings, adapters or learning rates.
    """
    if steps != int(steps) or steps < 0:
        raise InputError(f"steps: must be a whole number and not negative, got {steps}")
    if not isinstance(optimizer, optax.GradientTransformation):
        raise InputError(f"optimizer: must be one of optax, as optax.adam(1e-3), got {optimizer!r}")
    space: Any = _Full(base) if adapters is None else _LowRank(base, adapters, per_layer("scaling", scaling, base))

    on, last = _on_batches(loss, batches, steps)
    check_loss(lambda weights: on(weights, last), space.weights(space.start))

    def step(carry: tuple[Any, optax.OptState], batch: Any) -> tuple[tuple[Any, optax.OptState], Run]:
        theta, state = carry
        value, gradient = jax.value_and_grad(on)(space.weights(theta), batch)
        theta_gradient = space.pull_back(theta, gradient)
        delta: Any
        delta, state = optimizer.update(theta_gradient, state, theta)
        seen = Run(
            loss=value,
            signal_norms=space.signal_norms(theta, delta),
            drift_norms=space.drift_norms(delta),
            signal_alignment=-jnp.asarray(optax.tree.vdot(delta, theta_gradient)),  # = ⟨Δw_Signal, −g⟩ (Eq. 22)
            drift_alignment=space.drift_alignment(delta, gradient),
            gradient_norm=optax.tree.norm(gradient),
        )
        return (optax.apply_updates(theta, delta), state), seen

    (theta, _), run = jax.lax.scan(step, (space.start, optimizer.init(space.start)), batches, length=steps)
    return run._replace(loss=jnp.append(run.loss, on(space.weights(theta), last)), trained=theta)


def _on_batches(loss: Callable[..., Array], batches: Any, steps: int) -> tuple[BatchLoss, Any]:
    """The loss as a function of (weights, batch), and the last batch."""
    if batches is None:
        return lambda weights, batch: loss(weights), None
    for leaf in jax.tree.leaves(batches):
        if not steps or jnp.shape(leaf)[:1] != (steps,):
            raise InputError(f"batches: need one for each of {steps} steps, got an array of shape {jnp.shape(leaf)}")
    return loss, jax.tree.map(lambda x: x[-1], batches)


def pad_rank(adapters: Adapters, rank: int) -> dict[str, Adapter]:
    """The same map θ ↦ w with zero rows in A and zero columns in B up to `rank`.

    Their gradients are zero, so no optimizer that maps zero to zero moves them: adapters of different ranks can
    share one compiled, vmapped run. Raises `InputError` for a rank below an adapter's own.
    """
    for layer, (A, _) in adapters.items():
        if rank < len(A):
            raise InputError(f"rank: {rank} is below the rank {len(A)} of adapters[{layer!r}]")
    return {
        layer: Adapter(jnp.pad(A, ((0, rank - len(A)), (0, 0))), jnp.pad(B, ((0, 0), (0, rank - len(A)))))
        for layer, (A, B) in adapters.items()
    }


def separate_rates(
    for_A: optax.GradientTransformation, for_B: optax.GradientTransformation
) -> optax.GradientTransformationExtraArgs:
    """One optimizer for every A and another for every B (LoRA+ with a larger rate for B)."""

    def labels(theta: Adapters) -> Any:
        return {layer: adapter._replace(A="A", B="B") for layer, adapter in theta.items()}

    return optax.partition({"A": for_A, "B": for_B}, labels)


@dataclass(frozen=True)
class _LowRank:
    """θ = (A, B) and w = W₀ + s·BA."""

    base: Weights
    adapters: Adapters
    s: Mapping[str, float | Array]

    def __post_init__(self) -> None:
        check_fit(self.base, self.adapters)

    @property
    def start(self) -> Any:
        return dict(self.adapters)

    def weights(self, theta: Adapters) -> dict[str, Array]:
        return effective_weights(self.base, theta, self.s)

    def pull_back(self, theta: Adapters, gradient: Weights) -> dict[str, Adapter]:
        return adjoint_product(theta, gradient, self.s)

    def signal_norms(self, theta: Adapters, delta: Adapters) -> PerLayer:
        """|s|‖BΔA + ΔB A‖_F: the norm of [B ΔB]·[ΔA; A]."""
        return {
            k: abs(self.s[k]) * _product_norm(jnp.hstack([B, delta[k].B]), jnp.vstack([delta[k].A, A]))
            for k, (A, B) in theta.items()
        }

    def drift_norms(self, delta: Adapters) -> PerLayer:
        return {k: abs(self.s[k]) * _product_norm(dB, dA) for k, (dA, dB) in delta.items()}

    def drift_alignment(self, delta: Adapters, gradient: Weights) -> Array:
        products = [self.s[k] * jnp.vdot(dB.T @ gradient[k], dA) for k, (dA, dB) in delta.items()]
        return -jnp.sum(jnp.stack(products))


@dataclass(frozen=True)
class _Full:
    """θ = w."""

    base: Weights

    def __post_init__(self) -> None:
        check_matrices(self.base)

    @property
    def start(self) -> Any:
        return dict(self.base)

    def weights(self, theta: dict[str, Array]) -> dict[str, Array]:
        return theta

    def pull_back(self, theta: dict[str, Array], gradient: dict[str, Array]) -> dict[str, Array]:
        return gradient

    def signal_norms(self, theta: Weights, delta: Weights) -> PerLayer:
        return {k: jnp.linalg.norm(change) for k, change in delta.items()}

    def drift_norms(self, delta: Weights) -> PerLayer:
        return {k: jnp.zeros((), change.dtype) for k, change in delta.items()}

    def drift_alignment(self, delta: Weights, gradient: Weights) -> Array:
        return jnp.zeros((), jnp.result_type(*gradient.values()))


def _product_norm(L: Array, R: Array) -> Array:
    """‖LR‖_F = √⟨LᵀL, RRᵀ⟩ from two small Gram matrices, clipped at the zero that rounding may cross."""
    return jnp.sqrt(jnp.maximum(jnp.vdot(L.T @ L, R @ R.T), 0))


def _total(norms: PerLayer) -> Array:
    return jnp.sqrt(jnp.sum(jnp.stack([jnp.square(x) for x in norms.values()]), axis=0))
