"""Makes losses ℓ(w) = c(f(w)) of two known halves: the outputs f of a model, and the criterion c that judges them."""

from collections.abc import Callable
from typing import Any, cast

from jax.tree_util import Partial
from jaxtyping import Array

from signal_drift.lora.adapters import Weights
from signal_drift.losses.arguments import traceable


def composite(outputs: Callable[[dict[str, Array]], Any], criterion: Callable[[Any], Array]) -> Partial:
    """Compose ℓ = criterion ∘ outputs, a function of the weights like any other loss.

    `outputs_and_criterion` takes it apart again. The arrays of `jax.tree_util.Partial` halves are data: one
    compilation serves all of the same shapes.
    """
    return Partial(_criterion_of_outputs, traceable("outputs", outputs), traceable("criterion", criterion))


def outputs_and_criterion(loss: Callable[..., Array]) -> tuple[Partial, Partial] | None:
    """Return (outputs, criterion) of a loss made by `composite`, and None for any other."""
    if isinstance(loss, Partial) and loss.func is _criterion_of_outputs:
        return cast(tuple[Partial, Partial], loss.args)
    return None


def _criterion_of_outputs(outputs: Partial, criterion: Partial, weights: Weights) -> Array:
    return criterion(outputs(weights))
