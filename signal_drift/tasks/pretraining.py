"""Pre-trains a model of which all parameters move; what is adapted afterwards is taken out of it."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.tree_util import Partial
from jaxtyping import Array, Int

M = TypeVar("M", bound=nnx.Module)


def pretrained(model: M, loss: Callable[[M, Int[Array, ""]], Array], learning_rate: float | Array, steps: int) -> M:
    """Return a copy of a model after steps t = 0, 1, … of Adam on loss(model, t); a `Partial` loss has data."""
    graphdef, start = nnx.split(model)
    return nnx.merge(graphdef, _trained(graphdef, Partial(loss), start, learning_rate, steps=steps))


@partial(jax.jit, static_argnames=("graphdef", "steps"))
def _trained(
    graphdef: nnx.GraphDef, loss: Partial, start: nnx.State, learning_rate: float | Array, *, steps: int
) -> nnx.State:
    optimizer = optax.adam(learning_rate)

    def at(params: Any, t: Array) -> Array:
        return loss(nnx.merge(graphdef, params), t)

    def step(carry: tuple[Any, Any], t: Array) -> tuple[tuple[Any, Any], None]:
        params, state = carry
        update, state = optimizer.update(jax.grad(at)(params, t), state, params)
        return (optax.apply_updates(params, update), state), None

    return jax.lax.scan(step, (start, optimizer.init(start)), jnp.arange(steps))[0][0]
