"""Compares a whole model at drawn lora_a and lora_b with forward(W₀ + s·BA)."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array

from signal_drift.errors import InputError
from signal_drift.lora.adapters import Adapter, Adapters, Weights, effective_weights
from signal_drift.models.bridge import Forward
from signal_drift.models.layers import variables_of
from signal_drift.models.promise import split_inputs

Names = Mapping[str, Mapping[str, tuple[int, ...]]]
"""The layers of every nnx.LoRA by its path, each with its index in a stack."""


def check_equal(
    model: nnx.Module, names: Names, base: Weights, adapters: Adapters, forward: Forward, example: Any
) -> None:
    """Raise `InputError` unless the model is forward(W₀ + BA) at drawn A and B; name the layers that make it differ.

    What rounding may do is measured: one rounding of all weights, ε relative to each, and one of the output change it
    by some u. Sums of n products round n times at most, in no less than float32, and the two sides round apart:
    10·(1 + n·ε₃₂/ε)·u, where ε₃₂/ε counts as 1 if it is more.
    """
    shapes, call = split_inputs(example)
    arrays = [_drawn(x) for x in shapes]
    eps = max(float(jnp.finfo(W.dtype).eps) for W in base.values())
    roundings = 10 * (1 + max(W.shape[1] for W in base.values()) * min(1.0, float(jnp.finfo(jnp.float32).eps) / eps))
    graphdef, state = nnx.split(model)

    @jax.jit
    def theirs(state: nnx.State, theta: Adapters) -> list[Array]:
        copy = nnx.merge(graphdef, state, copy=True)
        _put(variables_of(copy), names, theta)
        return _floats(call(copy, arrays))

    @jax.jit
    def ours(forward: Forward, weights: Weights) -> list[Array]:
        return _floats(call(partial(forward, weights), arrays))

    def differ(theta: Adapters) -> bool:
        weights = effective_weights(base, theta, 1.0)
        here = ours(forward, weights)
        u = _distance(ours(forward, _rounded(weights, eps)), here) + eps * _distance(here, [0 * y for y in here])
        return not _distance(theirs(state, theta), here) <= roundings * u

    theta = draw_adapters(base, adapters)
    with jax.default_matmul_precision("highest"):
        if differ(theta):
            still = {name: Adapter(A, 0 * B) for name, (A, B) in theta.items()}
            wrong = [name for name in theta if differ(still | {name: theta[name]})]
            raise InputError(
                f"model: is not forward(W₀ + s·BA) on `example` at drawn A and B, because of {wrong or sorted(theta)}: "
                "there the model uses the kernel or the adapter in another way too"
            )


def draw_adapters(base: Weights, adapters: Adapters) -> dict[str, Adapter]:
    """Draw A and B of the adapters' shapes with BA of the size of W₀, or of order one where that is zero."""
    draw, drawn = np.random.default_rng(0), {}
    for name, (A, B) in adapters.items():
        size = float(jnp.linalg.norm(base[name].astype(jnp.float32))) or len(B) ** 0.5
        factors = draw.standard_normal(A.shape) / A.shape[1] ** 0.5, draw.standard_normal(B.shape) * size / B.size**0.5
        drawn[name] = Adapter(*(jnp.asarray(x, A.dtype) for x in factors))
    return drawn


def _put(variables: Mapping[str, Any], names: Names, theta: Adapters) -> None:
    for path, layers in names.items():
        for factor, k in (("lora_a", 0), ("lora_b", 1)):
            variable = variables[f"{path}.{factor}".lstrip(".")]
            value = jnp.stack([theta[name][k].T for name in layers])
            variable.set_value(value.reshape(variable.shape).astype(variable.dtype))


def _drawn(x: Any) -> Array:
    """An input itself; of a shape alone a draw: normal numbers, zeros as tokens, ones as a mask."""
    if not isinstance(x, jax.ShapeDtypeStruct):
        return jnp.asarray(x)
    if jnp.issubdtype(x.dtype, jnp.floating):
        return jax.random.normal(jax.random.key(0), x.shape, x.dtype)
    return jnp.full(x.shape, x.dtype == bool, x.dtype)


def _rounded(weights: Weights, eps: float) -> dict[str, Array]:
    """The weights, each entry moved by ±ε relative to it."""
    draw = np.random.default_rng(1)
    return {
        k: (W * (1 + eps * jnp.asarray(draw.choice([-1, 1], W.shape), W.dtype))).astype(W.dtype)
        for k, W in weights.items()
    }


def _floats(outputs: Any) -> list[Array]:
    return [y for y in jax.tree.leaves(outputs) if jnp.issubdtype(y.dtype, jnp.floating)]


def _distance(found: list[Array], wanted: list[Array]) -> float:
    return max(float(jnp.max(jnp.abs(x - y), initial=0)) for x, y in zip(found, wanted, strict=True))
