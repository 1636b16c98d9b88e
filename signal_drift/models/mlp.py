"""Defines the paper's multilayer perceptron in flax.nnx."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import variance_scaling
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from signal_drift.errors import InputError
from signal_drift.errors.arguments import whole
from signal_drift.errors.words import shown


class MLP(nnx.Module):
    """Maps x to W_L φ(… φ(W_1 x)) without biases, W_l ~ N(0, 1/d_in) (App. E).

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
        if not isinstance(widths, Sequence) or isinstance(widths, str | bytes) or len(widths) < 2:
            raise InputError(f"widths: need at least two positive sizes, got {shown(widths)}")
        widths = [whole("widths", width, 1, f" in {tuple(widths)}") for width in widths]
        if not isinstance(rngs, nnx.Rngs):
            raise InputError(f"rngs: must be nnx.Rngs(seed), got {shown(rngs)}")
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
