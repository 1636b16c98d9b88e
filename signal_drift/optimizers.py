"""Takes every optimizer of optax as optax's own loop does, and joins two into one that treats A and B differently."""

from typing import Any, cast

import jax
import jax.numpy as jnp
import optax

from signal_drift.errors import InputError
from signal_drift.errors.words import shown
from signal_drift.lora.adapters import Adapters


def loop_of(optimizer: Any, start: Any) -> optax.GradientTransformationExtraArgs:
    """Return the optimizer with an update that is given `value`, `grad` and `value_fn`, and may ignore them.

    `start` are the parameters that it is to move. Of optax.lookahead they are the fast weights; the slow ones are in
    the state. Raises `InputError` for what is no optimizer of optax.
    """
    if isinstance(optimizer, optax.MultiSteps):
        return optax.GradientTransformationExtraArgs(optimizer.init, cast(Any, optimizer.update))
    if not isinstance(optimizer, optax.GradientTransformation):
        raise InputError(f"optimizer: must be one of optax, as optax.adam(1e-3), got {shown(optimizer)}")
    loop = optax.with_extra_args_support(optimizer)
    return _with_slow_weights(loop) if _looks_ahead(loop, start) else loop


def separate_rates(
    for_A: optax.GradientTransformation, for_B: optax.GradientTransformation
) -> optax.GradientTransformationExtraArgs:
    """Join one optimizer for every A and another for every B into one (LoRA+ with a larger rate for B)."""
    _check_optimizer("for_A", for_A)
    _check_optimizer("for_B", for_B)

    def labels(theta: Adapters) -> Any:
        return {layer: adapter._replace(A="A", B="B") for layer, adapter in theta.items()}

    return optax.partition({"A": for_A, "B": for_B}, labels)


def frozen_A(optimizer: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Leave every A where it is and train B alone, as LoRA-FA does: w is then linear in θ, and there is no drift."""
    _check_optimizer("optimizer", optimizer)
    return separate_rates(optax.set_to_zero(), optimizer)


def one_factor_at_a_time(optimizer: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Train every B in the first, third, … step and every A in the others, so that ΔB ΔA = 0: there is no drift.

    Each has an optimizer of its own, which stands still while the other factor moves.
    """
    _check_optimizer("optimizer", optimizer)

    def in_turn(remainder: int) -> optax.GradientTransformation:
        return optax.conditionally_mask(optimizer, lambda step, **extra_args: jnp.asarray(step) % 2 == remainder)

    return separate_rates(for_A=in_turn(1), for_B=in_turn(0))


def _check_optimizer(name: str, optimizer: Any) -> None:
    if not isinstance(optimizer, optax.GradientTransformation):
        raise InputError(f"{name}: must be an optimizer of optax, as optax.adam(1e-3), got {shown(optimizer)}")


def _looks_ahead(loop: optax.GradientTransformation, start: Any) -> bool:
    """Whether some part of the optimizer is optax.lookahead, which takes fast and slow weights as a pair."""
    try:
        state = jax.eval_shape(loop.init, optax.LookaheadParams.init_synced(start))
    except Exception:  # of an optimizer that looks into its parameters, and finds a pair
        return False
    nodes = jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, optax.LookaheadState))
    return any(isinstance(x, optax.LookaheadState) for x in nodes)


def _with_slow_weights(loop: optax.GradientTransformationExtraArgs) -> optax.GradientTransformationExtraArgs:
    """The optimizer of pairs as one of the fast weights, which keeps the slow ones in its state."""

    def init(params: Any) -> Any:
        pair = optax.LookaheadParams.init_synced(params)
        return loop.init(pair), pair.slow

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> tuple[Any, Any]:
        change: Any
        inner, slow = state
        change, inner = loop.update(updates, inner, optax.LookaheadParams(params, slow), **extra_args)
        return change.fast, (inner, optax.apply_updates(slow, change.slow))

    return optax.GradientTransformationExtraArgs(init, update)
