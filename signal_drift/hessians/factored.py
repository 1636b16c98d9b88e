"""Evaluates ℓ(W₀ + s·BA) without forming W: x Wᵀ = x W₀ᵀ + s (x Aᵀ) Bᵀ wherever the loss only multiplies by W.

The loss is written for whole matrices and stays untouched. It is traced once, and its equations are evaluated one by
one: a product with a weight is taken factor by factor, its transpose is the transpose of the factors, and anything
else gets the merged matrix. Under differentiation neither a tangent nor a cotangent of shape (d_out, d_in) then arises.
"""

from collections.abc import Callable, Mapping
from functools import partial
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from signal_drift.errors import InputError
from signal_drift.errors.arguments import function
from signal_drift.jaxpr import Equation, bind, run
from signal_drift.lora.adapters import Adapters, Weights, check_fit, scalings

Axes = tuple[int, ...]


class Factored(NamedTuple):
    """Hold W = W0 + L R, of any number of axes: those of L, then those of R."""

    W0: Float[Array, "..."]
    L: Float[Array, "*m r"]
    R: Float[Array, "r *n"]

    def merged(self) -> Float[Array, "..."]:
        """Return W itself."""
        return self.W0 + jnp.tensordot(self.L, self.R, 1)


def composed_loss(loss: Callable, base: Weights, adapters: Adapters, scaling: Mapping[str, Any]) -> Float[Array, ""]:
    """Evaluate ℓ(w(θ)), w = W₀ + s·BA (Eq. 4), each layer in the form in which its products are cheaper."""
    check_fit(base, adapters)
    scaling = scalings(scaling, base)
    return evaluate(loss, {k: cheaper(Factored(base[k], scaling[k] * B, A)) for k, (A, B) in adapters.items()})


def cheaper(W: Factored) -> Factored | Array:
    """Return the form whose products are cheaper.

    Two products with the factors cost r(m + n) a row, which saves a tangent product of mn: worth it below half.
    """
    return W if 2 * (W.L.size + W.R.size) <= W.W0.size else W.merged()


def evaluate(loss: Callable, weights: Mapping[str, Factored | Array]) -> Float[Array, ""]:
    """Evaluate a loss of the dict of merged weights at weights some of which are factored.

    Differentiable in reverse mode, and the gradient in either mode.
    """
    dtypes = {k: jnp.result_type(*jax.tree.leaves(W)) for k, W in weights.items()}
    shapes = {
        k: jax.ShapeDtypeStruct(jnp.shape(W.W0 if isinstance(W, Factored) else W), dtypes[k])
        for k, W in weights.items()
    }
    arguments = [jax.tree.map(lambda x, k=k: jnp.asarray(x, dtypes[k]), weights[k]) for k in sorted(weights)]
    traced = jax.make_jaxpr(function("loss", loss))(shapes)
    if [x.shape for x in traced.out_avals] != [()]:
        raise InputError(f"loss: must return a scalar, got the shapes {[x.shape for x in traced.out_avals]}")
    return _run(traced, arguments)[0]


def _run(traced: Any, arguments: list) -> list:
    """The outputs of the traced function; only a weight that is passed through may come out factored."""
    return run(traced, arguments, _rule)


def _rule(equation: Equation, inputs: list) -> list:
    factored = any(isinstance(x, Factored) for x in inputs)
    return RULES.get(equation.primitive.name, _merge_and_bind)(equation, inputs) if factored else bind(equation, inputs)


def _merged(x: Any) -> Any:
    return x.merged() if isinstance(x, Factored) else x


def _merge_and_bind(equation: Equation, inputs: list) -> list:
    """The equation as JAX itself evaluates it, at merged weights."""
    return bind(equation, [_merged(x) for x in inputs])


def _transpose(equation: Equation, inputs: list[Factored]) -> list:
    """A permutation within the two groups of axes, or one that exchanges them."""
    W, order = inputs[0], equation.params["permutation"]
    k = W.L.ndim - 1
    if max(order[:k]) < k:
        L, R = W.L.transpose(*order[:k], k), W.R.transpose(0, *(i - k + 1 for i in order[k:]))
    elif max(order[-k:]) < k:
        L, R = W.R.transpose(*(i - k + 1 for i in order[:-k]), 0), W.L.transpose(k, *order[-k:])
    else:
        return _merge_and_bind(equation, inputs)
    return [Factored(W.W0.transpose(order), L, R)]


def _reshape(equation: Equation, inputs: list[Factored]) -> list:
    """New axes for each of the two groups, as the heads of an attention have them."""
    W, shape = inputs[0], equation.params["new_sizes"]
    sizes, r = (prod(W.L.shape[:-1]), prod(W.R.shape[1:])), len(W.R)
    k = next((k for k in range(1, len(shape)) if (prod(shape[:k]), prod(shape[k:])) == sizes), None)
    if k is None or equation.params.get("dimensions"):
        return _merge_and_bind(equation, inputs)
    return [Factored(W.W0.reshape(shape), W.L.reshape(*shape[:k], r), W.R.reshape(r, *shape[k:]))]


def _overwrite(equation: Equation, inputs: list) -> list:
    """`kernel[...] = W`, as flax modules take their weights: a scatter that leaves nothing of its array."""
    (_, indices, W), target = inputs, equation.invars[0].aval
    whole = isinstance(W, Factored) and (target.shape, target.dtype, indices.size) == (W.W0.shape, W.W0.dtype, 0)
    return [W] if whole and equation.params["update_jaxpr"] is None else _merge_and_bind(equation, inputs)


def _dot_general(equation: Equation, inputs: list) -> list:
    """A contraction of x with one group of the axes of W, in two steps for L R."""
    (contract, batch), (x, W) = equation.params["dimension_numbers"], inputs
    if isinstance(W, Factored) == isinstance(x, Factored) or any(batch) or _mixed(equation):
        return _merge_and_bind(equation, inputs)
    last = isinstance(W, Factored)
    (W, j), (x, i) = ((W, contract[1]), (x, contract[0])) if last else ((x, contract[0]), (W, contract[1]))
    k = W.L.ndim - 1
    if sorted(j) not in (list(range(k)), list(range(k, W.W0.ndim))):
        return _merge_and_bind(equation, inputs)

    def dot(a: Array, b: Array, i: Axes, j: Axes) -> Array:
        return jax.lax.dot_general(a, b, **{**equation.params, "dimension_numbers": ((i, j), ((), ()))})

    first = max(j) < k
    near, along = (W.L, j) if first else (W.R, tuple(a - k + 1 for a in j))
    far = W.R if first else jnp.moveaxis(W.L, -1, 0)
    if last:
        low_rank: Any = _times(dot(x, near, i, along), far, equation.params["precision"])
        return [dot(x, W.W0, i, j) + low_rank]
    return [dot(W.W0, x, j, i) + dot(far, dot(near, x, along, i), (0,), (0,))]


def _mixed(equation: Equation) -> bool:
    """Whether the product has another element type than its factors; `None` states none."""
    stated, types = equation.params["preferred_element_type"], {x.aval.dtype for x in equation.invars}
    return len(types) > 1 or (stated is not None and stated not in types)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _times(t: Float[Array, "*rows r"], R: Float[Array, "r *n"], precision: Any) -> Float[Array, "..."]:
    """The product t R, whose cotangent tᵀȳ is taken in this order.

    JAX's own rule takes (ȳᵀt)ᵀ: a block of tangents ȳ would be copied into another layout, at the cost of the product.
    """
    return jnp.tensordot(t, R, 1, precision=precision)


def _times_forward(t: Array, R: Array, precision: Any) -> tuple[Array, tuple[Array, Array]]:
    return jnp.tensordot(t, R, 1, precision=precision), (t, R)


def _times_backward(precision: Any, saved: tuple[Array, Array], y: Array) -> tuple[Array, Array]:
    t, R = saved
    rows = list(range(t.ndim - 1))
    back = jnp.tensordot(y, jnp.moveaxis(R, 0, -1), R.ndim - 1, precision=precision)
    return back, jnp.tensordot(t, y, (rows, rows), precision=precision)


_times.defvjp(_times_forward, _times_backward)


def _call(equation: Equation, inputs: list) -> list:
    """A function compiled by the loss itself, inlined."""
    return _run(equation.params["jaxpr"], inputs)


def _scan(equation: Equation, inputs: list) -> list:
    """Weights that every iteration sees stay factored (a loss streamed over batches); those that iterate are merged."""
    p = equation.params
    constants, carry, rows = _scan_arguments(p, inputs)

    def body(carry: list, row: list) -> tuple[list, list]:
        outputs = [_merged(x) for x in _run(p["jaxpr"], [*constants, *carry, *row])]
        return outputs[: len(carry)], outputs[len(carry) :]

    options = {name: p[name] for name in ("length", "reverse", "unroll")}
    carry, rows = jax.lax.scan(body, [*map(_merged, carry)], [*map(_merged, rows)], **options)
    return [*carry, *rows]


def _scan_arguments(p: Mapping[str, Any], inputs: list) -> list[list]:
    """(constants, carry, rows), as JAX before 0.11 and since then tells them apart."""
    if "ft_in" in p:
        return [list(part) for part in p["ft_in"].update(inputs).unpack()]
    start = p["num_consts"] + p["num_carry"]
    return [inputs[: p["num_consts"]], inputs[p["num_consts"] : start], inputs[start:]]


def _checkpoint(equation: Equation, inputs: list) -> list:
    p = equation.params
    run = jax.checkpoint(
        lambda x: [_merged(y) for y in _run(p["jaxpr"], x)],
        prevent_cse=p["prevent_cse"],
        policy=p["policy"],
    )
    return run(inputs)


RULES = {
    "transpose": _transpose,
    "reshape": _reshape,
    "dot_general": _dot_general,
    "scatter": _overwrite,
    "jit": _call,
    "scan": _scan,
    "remat2": _checkpoint,
}
"""The rule for an equation with a factored weight, by primitive."""
