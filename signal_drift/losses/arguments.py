"""Checks that a loss is a scalar function of the dict of effective weights, and says what to mend where it is none."""

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.tree_util import Partial, register_pytree_node
from jaxtyping import Array

from signal_drift.errors import InputError
from signal_drift.errors.arguments import function

Loss = Callable[[dict[str, Array]], Array]


def traceable(name: str, value: Callable[..., Any]) -> Partial:
    """Make the argument `name`, a function, something that jit takes: the arrays of a `Partial` are its data.

    Raises `InputError` for anything that cannot be called.
    """
    function(name, value)
    return value if isinstance(value, Partial) else Partial(value)


def check_loss(loss: Callable[[Any], Array], weights: Any) -> None:
    """Raise `InputError` for a loss that is no scalar function of these weights which JAX can differentiate.

    The weights may be any tree of arrays.
    """
    value = _value(traceable("loss", loss), weights)
    if isinstance(value, tuple | list | dict) or not hasattr(value, "shape"):
        kind = "None; is a return missing" if value is None else f"a {type(value).__name__}; is it the first of several"
        raise InputError(f"loss: must return a scalar, got {kind}?")
    if value.shape != ():
        raise InputError(f"loss: must return a scalar, got the shape {value.shape}; take the mean or the sum")
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise InputError(f"loss: must return a real number to differentiate, got {value.dtype}")


REORDERED = 1e3
"""Roundings that a sum may differ by from one call to the next: of 10⁶ terms that an accelerator adds in any order."""


def check_value(loss: Loss, weights: dict[str, Array]) -> None:
    """Raise `InputError` as `check_loss`, and where the loss at these weights is not one finite number at two calls.

    Within a trace of JAX its value is not known.
    """
    check_loss(loss, weights)
    first = loss(weights)
    if isinstance(first, Tracer):
        return
    one, other = float(first), float(loss(weights))
    allowed = REORDERED * float(jnp.finfo(first.dtype).eps) * max(abs(one), abs(other))
    if one != other and not abs(one - other) <= allowed and not (math.isnan(one) and math.isnan(other)):
        raise InputError(
            f"loss: must be a function of the weights, but two calls of {_name(loss)} gave {one} and {other}; "
            "draw what is random once, before"
        )
    if not math.isfinite(one):
        raise InputError(f"loss: must be finite at the effective weights, got {one}")


def _name(function: Any) -> str:
    """Name a function as the source does, and a Partial of Partials, as losses are made of losses, by the innermost."""
    while isinstance(function, Partial):
        function = function.args[0] if function.args and isinstance(function.args[0], Partial) else function.func
    return getattr(function, "__qualname__", type(function).__name__)


def _value(loss: Callable[[Any], Array], weights: Any) -> Any:
    """The shapes of what the loss returns. Its own errors are passed on unless the mend is known."""
    try:
        return jax.eval_shape(loss, weights)
    except KeyError as error:
        if not error.args or error.args[0] not in _missing(loss, weights):
            raise
        raise InputError(f"loss: asks for {error}, but the layers are {sorted(weights)}") from error
    except jax.errors.JAXTypeError as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"loss: must be traceable: jax.numpy instead of numpy, float() and if; got {reason}"
        ) from error
    except (TypeError, ValueError) as error:
        if not _takes_transposes(loss, weights):
            raise
        shapes = {layer: W.shape for layer, W in weights.items()}
        mend = "a weight is (d_out, d_in), x @ W.T for rows x; flax kernels are the transpose"
        raise InputError(f"loss: takes only the transposes of the weights {shapes}; {mend}") from error


class _Asked:
    """The layers that weights are asked for and do not have; one and the same within a trace of the loss's own."""

    def __init__(self) -> None:
        self.missing: set[str] = set()


class _Watched(dict[str, Array]):
    def __init__(self, weights: Mapping[str, Array], asked: _Asked) -> None:
        super().__init__(weights)
        self.asked = asked

    def __missing__(self, layer: str) -> Array:
        self.asked.missing.add(layer)
        raise KeyError(layer)


register_pytree_node(
    _Watched,
    lambda x: ([x[k] for k in sorted(x)], (tuple(sorted(x)), x.asked)),
    lambda kept, values: _Watched(dict(zip(kept[0], values, strict=True)), kept[1]),
)


def _missing(loss: Callable[[Any], Array], weights: Any) -> set[str]:
    """The layers that the loss asks the weights for and does not find: no key of a dict of its own is among them."""
    asked = _Asked()
    with suppress(Exception):  # the one that is being looked into
        jax.eval_shape(loss, _Watched(weights, asked))
    return asked.missing


def _takes_transposes(loss: Callable[[Any], Array], weights: Any) -> bool:
    try:
        jax.eval_shape(loss, {layer: jax.ShapeDtypeStruct(W.shape[::-1], W.dtype) for layer, W in weights.items()})
    except Exception:  # whatever a function of the user's raises
        return False
    return True
