"""Takes the norms of an update to the last digits, whatever cancels and in whatever unit."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from signal_drift.lora.adapters import Adapters

Norms = dict[str, Float[Array, ""]]
Exponent = Int[Array, "..."]

CANCELLATION = 16
"""How far below its terms a norm may lie and still come from Gram matrices, which square what rounding leaves."""


def frobenius(*arrays: Float[Array, "..."]) -> Float[Array, ""]:
    """Return √Σx² over all entries of all arrays; squares that would leave the range are taken of numbers near 1."""
    total = jnp.sum(jnp.stack([jnp.sum(jnp.square(x)) for x in arrays]))
    return jax.lax.cond(_in_range(total), lambda *_: jnp.sqrt(total), _scaled_norm, *arrays)


def update_norms(theta: Adapters, delta: Adapters, s: Mapping[str, float | Array]) -> tuple[Norms, Norms]:
    """Return ‖s(BΔA + ΔB A)‖_F and ‖s ΔB ΔA‖_F of every layer, to c·ε·|s|·(‖B‖‖ΔA‖ + ‖ΔB‖‖A‖) and c·ε·|s|·‖ΔB‖‖ΔA‖.

    With L = [B ΔB] and R = [ΔA; A] the first is |s|·√⟨LᵀL, RRᵀ⟩, and blocks of these small Gram matrices give the
    second. They lose half of the digits where terms cancel, as for a gauge direction, and all where squares leave the
    range: there the products themselves are formed.
    """
    fast = {k: _from_grams(*theta[k], *delta[k]) for k in theta}
    well = jnp.all(jnp.stack([fine for _, _, fine in fast.values()]))

    def products(theta: Adapters, delta: Adapters) -> tuple[Norms, Norms]:
        pairs = {k: ((theta[k].B, delta[k].A), (delta[k].B, theta[k].A)) for k in theta}
        signal = {k: _norm_of_products(s[k], *both) for k, both in pairs.items()}
        return signal, {k: _norm_of_products(s[k], (dB, dA)) for k, (dA, dB) in delta.items()}

    def grams(*_: Adapters) -> tuple[Norms, Norms]:
        signal = {k: jnp.abs(s[k]) * jnp.sqrt(total) for k, (total, _, _) in fast.items()}
        return signal, {k: jnp.abs(s[k]) * jnp.sqrt(total) for k, (_, total, _) in fast.items()}

    return jax.lax.cond(well, grams, products, dict(theta), dict(delta))


def _from_grams(A: Array, B: Array, dA: Array, dB: Array) -> tuple[Array, Array, Array]:
    """‖BΔA + ΔB A‖² and ‖ΔBΔA‖² from Gram matrices, and whether their digits are right."""
    r, L, R = len(A), jnp.hstack([B, dB]), jnp.vstack([dA, A])
    K, M = L.T @ L, R @ R.T
    terms = K * M
    squares = [jnp.sum(part) for gram in (jnp.diagonal(K), jnp.diagonal(M)) for part in (gram[:r], gram[r:])]
    results = []
    for part in (terms, K[r:, r:] * M[:r, :r]):
        total, size = jnp.sum(part), jnp.sum(jnp.abs(part))
        results.append((total, size, total * CANCELLATION**2 >= size))
    (signal, signal_size, signal_stands), (drift, drift_size, drift_stands) = results
    fine = signal_stands & drift_stands & jnp.all(_in_range(jnp.stack([*squares, signal_size, drift_size])))
    return signal, drift, fine


def _norm_of_products(s: float | Array, *pairs: tuple[Array, Array]) -> Float[Array, ""]:
    """‖s·Σ_i L_i R_i‖_F from the product, all factors scaled by powers of two."""
    sizes = [tuple(jnp.max(jnp.abs(x)) for x in pair) for pair in pairs]
    left, right = (_exponent(jnp.stack([size[i] for size in sizes])) for i in (0, 1))
    empty = jnp.stack([(size == 0) | (other == 0) for size, other in sizes])
    top = jnp.max(jnp.where(empty, jnp.min(left + right), left + right))
    beside = jnp.where(empty, -right, left - top)
    L = jnp.hstack([_times_power(L, -left[i]) for i, (L, _) in enumerate(pairs)])
    R = jnp.vstack([_times_power(R, beside[i]) for i, (_, R) in enumerate(pairs)])
    return _times_power(jnp.abs(s) * _scaled_norm(L @ R), top)


def _scaled_norm(*arrays: Array) -> Float[Array, ""]:
    top = _exponent(jnp.max(jnp.stack([jnp.max(jnp.abs(x)) for x in arrays])))
    squares = [jnp.sum(jnp.square(_times_power(x, -top))) for x in arrays]
    return _times_power(jnp.sqrt(jnp.sum(jnp.stack(squares))), top)


def _in_range(squares: Float[Array, "..."]) -> Array:
    """Whether squares that underflowed are no more of the sum than rounding, and none overflowed."""
    limits = jnp.finfo(squares.dtype)
    return (squares >= limits.tiny / limits.eps) & (squares <= limits.max * limits.eps)


def _exponent(size: Float[Array, "..."]) -> Exponent:
    """The e with 2^e ≤ 2·size < 2·2^e; 0 where that is 0 or not finite."""
    return jnp.where((size > 0) & jnp.isfinite(size), jnp.frexp(size)[1], 0)


def _times_power(x: Float[Array, "..."], exponent: Exponent) -> Float[Array, "..."]:
    """2^e·x in two factors, each of which is a normal number."""
    most = jnp.finfo(x.dtype).maxexp - 2
    for half in (exponent // 2, exponent - exponent // 2):
        x = x * jnp.ldexp(jnp.ones((), x.dtype), jnp.clip(half, -most, most))
    return x
