"""Begin every adapter map on the layers of a problem as its paper or PEFT does: θ, and the map over α.

α is 8 in all of PEFT's configurations of maps that have one (LoraConfig, with rsLoRA and DoRA, LoHaConfig, LoKrConfig),
with r = 8; here it is 8 at the rank of the problem; LoRA-FA is trained with LoRA's. VeRA, MoRA and (IA)³ have none.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial

from experiments.lab.problem import Dtype, Problem
from signal_drift import maps
from signal_drift.lora.adapters import Adapter, kaiming_uniform
from signal_drift.maps import Theta
from signal_drift.propositions.adapter_maps.subject import SCALED

ALPHA = 8.0
"""PEFT's default α."""
VERA_D = 0.1
"""d of VeRA at the start, as in its paper and PEFT."""
Maps = Callable[[float], dict[str, Partial]]
"""From α to the map of every layer."""


class Start(NamedTuple):
    """Hold θ at the start, the maps at any α, and whether there is an α in them."""

    theta: Theta
    at: Maps
    scaled: bool


def begun(name: str, problem: Problem, seed: int, dtype: Dtype = "float64") -> Start:
    """Return a map as it begins: W = W₀, for VeRA, LoRA's family, LoHa and LoKr by one factor that is zero.

    LoRA, rsLoRA, LoRA-FA and DoRA have the problem's own rank r and A; VeRA's frozen A and B of rank r, all factors of
    LoHa and LoKr but the zero one are Kaiming-uniform. LoHa has two pairs of rank r/2, as many numbers as LoRA; LoKr a
    C near √d_out × √d_in, and BA of at most half the rank of its block; MoRA an M of √((d_in + d_out) r) rows.
    """
    base, own = problem.draw(seed, dtype).base, problem.adapters(seed, dtype=dtype)
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), 3), len(base))
    layers = {k: BEGIN[name](key, base[k], own[k]) for key, k in zip(keys, sorted(base), strict=True)}
    theta = {k: theta for k, (theta, _) in layers.items()}
    return Start(theta, lambda alpha: {k: f(alpha) for k, (_, f) in layers.items()}, name in SCALED)


Begun = tuple[Any, Callable[[float], Partial]]
"""θ of one layer, and its map over α."""


def _lora(key: Array, W0: Array, own: Adapter) -> Begun:
    return own, lambda alpha: maps.lora(alpha / len(own.A))


def _rslora(key: Array, W0: Array, own: Adapter) -> Begun:
    return own, maps.rslora


def _lora_fa(key: Array, W0: Array, own: Adapter) -> Begun:
    return own.B, lambda alpha: maps.lora_fa(own.A, alpha / len(own.A))


def _dora(key: Array, W0: Array, own: Adapter) -> Begun:
    return maps.Dora(*own, jnp.linalg.norm(W0, axis=1)), lambda alpha: maps.dora(alpha / len(own.A))


def _vera(key: Array, W0: Array, own: Adapter) -> Begun:
    A, B = (_drawn(k, x.shape, W0) for k, x in zip(jax.random.split(key), own, strict=True))
    theta = maps.Vera(jnp.zeros(len(W0), W0.dtype), jnp.full(len(A), VERA_D, W0.dtype))
    return theta, lambda alpha: maps.vera(A, B)


def _loha(key: Array, W0: Array, own: Adapter) -> Begun:
    r, (d_out, d_in) = max(1, len(own.A) // 2), W0.shape
    A1, B1, B2 = (
        _drawn(k, shape, W0)
        for k, shape in zip(jax.random.split(key, 3), ((r, d_in), (d_out, r), (d_out, r)), strict=True)
    )
    return maps.Loha(Adapter(A1, B1), Adapter(0 * A1, B2)), lambda alpha: maps.loha(alpha / r)


def _lokr(key: Array, W0: Array, own: Adapter) -> Begun:
    m, n = map(factor_near_root, W0.shape)
    d_out, d_in = W0.shape[0] // m, W0.shape[1] // n
    r = max(1, min(len(own.A), min(d_out, d_in) // 2))
    A, B = (_drawn(key, shape, W0) for key, shape in zip(jax.random.split(key), ((r, d_in), (d_out, r)), strict=True))
    return maps.Lokr(jnp.zeros((m, n), W0.dtype), A, B), lambda alpha: maps.lokr(alpha / r)


def _mora(key: Array, W0: Array, own: Adapter) -> Begun:
    rows = min(int(np.sqrt(sum(W0.shape) * len(own.A))), *W0.shape)
    return jnp.zeros((rows, rows), W0.dtype), lambda alpha: Partial(maps.mora)


def _ia3(key: Array, W0: Array, own: Adapter) -> Begun:
    return jnp.ones(len(W0), W0.dtype), lambda alpha: Partial(maps.ia3)


BEGIN: Mapping[str, Callable[[Array, Array, Adapter], Begun]] = {
    "lora": _lora,
    "rslora": _rslora,
    "lora_fa": _lora_fa,
    "vera": _vera,
    "dora": _dora,
    "loha": _loha,
    "lokr": _lokr,
    "mora": _mora,
    "ia3": _ia3,
}
"""How each map begins on one layer."""


def factor_near_root(n: int) -> int:
    """Return the largest divisor of n up to √n, PEFT's first factor of a Kronecker product.

    >>> [factor_near_root(n) for n in (16, 12, 384, 7)]
    [4, 3, 16, 1]
    """
    return max(m for m in range(1, int(n**0.5) + 1) if n % m == 0)


def _drawn(key: Array, shape: tuple[int, ...], W0: Array) -> Array:
    return kaiming_uniform(key, shape, W0.dtype)
