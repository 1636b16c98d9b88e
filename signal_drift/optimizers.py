"""Takes every optimizer of optax as optax's own loop does: with the loss beside the gradient for one that asks."""

from typing import Any, cast

import jax
import optax

from signal_drift.errors import InputError
from signal_drift.errors.words import shown


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
