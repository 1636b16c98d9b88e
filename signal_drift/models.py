"""The paper's MLP in flax.nnx, and the bridge from any nnx model to (base weights, forward)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import variance_scaling
from jax.tree_util import Partial, register_dataclass
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from signal_drift.errors import InputError
from signal_drift.lora import Weights


class MLP(nnx.Module):
    """x ↦ W_L φ(… φ(W_1 x)) without biases, W_l ~ N(0, 1/d_in) (App. E).

    `widths` are d_in, the hidden sizes and d_out. `activate_output` applies φ after the last layer as well, a
    choice the paper leaves open.
    """

    def __init__(
        self,
        widths: Sequence[int],
        *,
        rngs: nnx.Rngs,
        activation: Callable[[Array], Array] = jax.nn.silu,
        activate_output: bool = False,
        dtype: DTypeLike = jnp.float64,
    ) -> None:
        if len(widths) < 2 or min(widths) < 1:
            raise InputError(f"widths: need at least two positive sizes, got {tuple(widths)}")
        self.layers = nnx.List(
            nnx.Linear(
                d_in,
                d_out,
                use_bias=False,
                kernel_init=variance_scaling(1.0, "fan_in", "normal"),
                param_dtype=dtype,
                rngs=rngs,
            )
            for d_in, d_out in pairwise(widths)
        )
        self.activation = activation
        self.activate_output = activate_output

    def __call__(self, x: Float[Array, "n d_in"]) -> Float[Array, "n d_out"]:
        for layer in list(self.layers)[:-1]:
            x = self.activation(layer(x))
        x = self.layers[-1](x)
        return self.activation(x) if self.activate_output else x


@register_dataclass
@dataclass(frozen=True, eq=False)
class Forward:
    """(weights, *inputs) ↦ the model's output with its linear layers replaced by `weights`; all else is frozen."""

    graphdef: nnx.GraphDef = field(metadata={"static": True})
    state: nnx.State

    def __call__(self, weights: Weights, *inputs: Array) -> Array:
        model = nnx.merge(self.graphdef, self.state, copy=True)
        layers = _linear_layers(model)
        for name, W in weights.items():
            if name not in layers:
                raise InputError(f"weights: unknown layer {name!r}; the layers are {sorted(layers)}")
            if W.T.shape != layers[name].kernel.shape:
                wanted = layers[name].kernel.shape[::-1]
                raise InputError(f"weights[{name!r}]: must be (d_out, d_in) = {wanted}, got {W.shape}")
            layers[name].kernel[...] = W.T
        return model(*inputs)


def base_and_forward(model: nnx.Module) -> tuple[dict[str, Array], Forward]:
    """(base, forward) such that forward(base, *inputs) = model(*inputs), for every `nnx.Linear` in the model.

    `base` holds each layer's W₀ of shape (d_out, d_in), which is the transpose of flax's kernel, under the
    layer's path ("layers.0"). Biases and all other parameters stay frozen at their values.
    """
    base = {name: layer.kernel[...].T for name, layer in _linear_layers(model).items()}
    if not base:
        raise InputError(f"model: has no nnx.Linear layer, got {type(model).__name__}")
    return base, Forward(*nnx.split(model))


def predictor(forward: Forward, *inputs: Array) -> Partial:
    """The map weights ↦ forward(weights, *inputs), with the inputs as data."""
    return Partial(_predict, forward, inputs)


def _predict(forward: Forward, inputs: tuple[Array, ...], weights: Weights) -> Array:
    return forward(weights, *inputs)


def _linear_layers(model: nnx.Module) -> dict[str, nnx.Linear]:
    return {
        ".".join(map(str, path)): module for path, module in nnx.iter_modules(model) if isinstance(module, nnx.Linear)
    }
