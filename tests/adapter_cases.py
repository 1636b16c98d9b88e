"""One tiny problem for every adapter map, its ΔW by formulas that share no code with signal_drift, and five matrices.

PEFT is not needed: `FORMULAS` follow what it documents for LoRA, rsLoRA, DoRA, VeRA, LoHa, LoKr and (IA)³ (its
`get_delta_weight` and, for DoRA, `weight_norm`), index by index, for NumPy and for jax.numpy alike.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

import signal_drift as sd
from signal_drift import maps
from signal_drift.propositions.adapter_maps import MapInstance
from signal_drift.spectra import Structure

SHAPES = {"a": (4, 3), "b": (2, 4)}
RANK = 2
DRAWS = np.random.default_rng(0)


def draw(*shape: int) -> jax.Array:
    return jnp.asarray(DRAWS.standard_normal(shape))


BASE = {k: draw(*shape) for k, shape in SHAPES.items()}
ADAPTERS = {k: sd.Adapter(draw(RANK, n), draw(m, RANK)) for k, (m, n) in SHAPES.items()}
FROZEN = {k: sd.Adapter(draw(RANK, n), draw(m, RANK)) for k, (m, n) in SHAPES.items()}
X, Y = draw(5, 3), draw(5, 2)


def loss(weights: Any) -> jax.Array:
    return jnp.mean((jnp.tanh(X @ weights["a"].T) @ weights["b"].T - Y) ** 2)


# The formulas, (xp, α, W₀, θ as a list of its leaves, the frozen factors) ↦ W.


def by_lora(xp: Any, alpha: float, W0: Any, theta: list, frozen: Any) -> Any:
    A, B = theta
    return W0 + alpha / RANK * xp.einsum("or,ri->oi", B, A)


def by_rslora(xp: Any, alpha: float, W0: Any, theta: list, frozen: Any) -> Any:
    A, B = theta
    return W0 + alpha / RANK**0.5 * xp.einsum("or,ri->oi", B, A)


def by_lora_fa(xp: Any, alpha: float, W0: Any, theta: list, frozen: Any) -> Any:
    return by_lora(xp, alpha, W0, [frozen.A, *theta], None)


def by_vera(xp: Any, alpha: float, W0: Any, theta: list, frozen: Any) -> Any:
    b, d = theta
    return W0 + xp.einsum("o,or,r,ri->oi", b, frozen.B, d, frozen.A)


def by_dora(xp: Any, alpha: float, W0: Any, theta: list, frozen: Any) -> Any:
    A, B, m = theta
    V = by_lora(xp, alpha, W0, [A, B], None)
    return xp.einsum("o,oi->oi", m / xp.sqrt(xp.sum(V * V, axis=1)), V)


def by_loha(xp: Any, alpha: float, W0: Any, theta: list, frozen: Any) -> Any:
    A1, B1, A2, B2 = theta
    return W0 + alpha / RANK * xp.einsum("or,ri,oq,qi->oi", B1, A1, B2, A2)


def by_lokr(xp: Any, alpha: float, W0: Any, theta: list, frozen: Any) -> Any:
    C, A, B = theta
    return W0 + alpha / RANK * xp.einsum("mn,lr,rk->mlnk", C, B, A).reshape(W0.shape)


def by_mora(xp: Any, alpha: float, W0: Any, theta: list, frozen: Any) -> Any:
    (M,) = theta
    P, Q = (np.equal.outer(np.arange(d) % len(M), np.arange(len(M))).astype(float) for d in W0.shape)
    return W0 + P @ M @ Q.T


def by_ia3(xp: Any, alpha: float, W0: Any, theta: list, frozen: Any) -> Any:
    return xp.einsum("o,oi->oi", theta[0], W0)


class Case(NamedTuple):
    """A map at α, θ, its formula, and what is stated: H_Drift's structure and trace, the degrees of both parts in α.

    A degree is None where there is none: every k would do for a matrix of zeros, and DoRA's m is multiplied by no α.
    `spectrum` and `gauge` are words of the page: the eigenvalues of H_Drift but 0, and the null directions of J.
    """

    at: Callable[[float], Any]
    theta: dict[str, Any]
    formula: Callable[..., Any]
    drift: Structure
    degrees: tuple[int | None, int | None] | None
    traceless: bool = True
    spectrum: str = "–"
    gauge: str = "0"

    @property
    def scaled(self) -> bool:
        """Whether there is an α in it."""
        return self.degrees is not None


PAIRS = "±s·σᵢ(G), r times"
CASES = {
    "lora": Case(lambda alpha: maps.lora(alpha / RANK), ADAPTERS, by_lora, "paired", (2, 1), True, PAIRS, "r²"),
    "rslora": Case(maps.rslora, ADAPTERS, by_rslora, "paired", (2, 1), True, PAIRS, "r²"),
    "lora_fa": Case(
        lambda alpha: {k: maps.lora_fa(x.A, alpha / RANK) for k, x in FROZEN.items()},
        {k: x.B for k, x in ADAPTERS.items()},
        by_lora_fa,
        "zero",
        (2, None),
        spectrum="0",
    ),
    "vera": Case(
        lambda alpha: {k: maps.vera(*x) for k, x in FROZEN.items()},
        {k: maps.Vera(draw(m), draw(RANK)) for k, (m, _) in SHAPES.items()},
        by_vera,
        "paired",
        None,
        spectrum="±σᵢ(B ⊙ GAᵀ)",
        gauge="1",
    ),
    "dora": Case(
        lambda alpha: maps.dora(alpha / RANK),
        {k: maps.Dora(*x, draw(len(x.B))) for k, x in ADAPTERS.items()},
        by_dora,
        "neither",
        (None, None),
        traceless=False,
        gauge="r²",
    ),
    "loha": Case(
        lambda alpha: maps.loha(alpha / RANK),
        {k: maps.Loha(ADAPTERS[k], FROZEN[k]) for k in SHAPES},
        by_loha,
        "neither",
        (2, 1),
        spectrum="±σᵢ(K) while a factor is 0",
        gauge="2r² + d_out + d_in − 1",
    ),
    "lokr": Case(
        lambda alpha: maps.lokr(alpha / RANK),
        {"a": maps.Lokr(draw(2, 3), draw(2, 1), draw(2, 2)), "b": maps.Lokr(draw(1, 2), draw(2, 2), draw(2, 2))},
        by_lokr,
        "neither",
        (2, 1),
        spectrum="±σᵢ(K) while a factor is 0",
        gauge="r² + 1",
    ),
    "mora": Case(lambda alpha: maps.mora, {k: draw(2, 2) for k in SHAPES}, by_mora, "zero", None, spectrum="0"),
    "ia3": Case(
        lambda alpha: maps.ia3, {k: draw(m) for k, (m, _) in SHAPES.items()}, by_ia3, "zero", None, spectrum="0"
    ),
}
ALPHA = 3.0


@cache
def instance(name: str, zero: int | None = None) -> MapInstance:
    """The map with an update of it; with the factor of this number at zero."""
    case, step = CASES[name], np.random.default_rng(1)
    delta = jax.tree.map(lambda x: jnp.asarray(step.standard_normal(x.shape)), case.theta)
    theta = {k: _with_zero(x, zero) for k, x in case.theta.items()}
    return MapInstance(loss, BASE, theta, case.at(ALPHA), delta)


def _with_zero(theta: Any, zero: int | None) -> Any:
    leaves, tree = jax.tree.flatten(theta)
    return jax.tree.unflatten(tree, [0 * x if i == zero else x for i, x in enumerate(leaves)])


def base_at(name: str, alpha: float) -> dict[str, Any]:
    """W₀ such that w(θ) does not depend on α: BASE at α = 3; for DoRA, V does not."""
    case = CASES[name]
    formula = by_lora if name == "dora" else case.formula

    def update(alpha: float, k: str) -> Any:
        return formula(
            np, alpha, np.zeros(SHAPES[k]), jax.tree.leaves(case.theta[k])[: 2 if name == "dora" else None], FROZEN[k]
        )

    return {k: W0 - (update(alpha, k) - update(ALPHA, k)) for k, W0 in BASE.items()} if case.scaled else BASE


def decomposition(name: str, alpha: float = ALPHA) -> sd.Decomposition:
    return sd.decompose_map(loss, base_at(name, alpha), CASES[name].theta, CASES[name].at(alpha))


@cache
def dense(name: str, alpha: float = ALPHA) -> dict[str, np.ndarray]:
    return {part: np.asarray(op.dense()) for part, op in decomposition(name, alpha)._asdict().items()}


@cache
def oracle(name: str) -> dict[str, np.ndarray]:
    """The five matrices from the formula, by jax.jacfwd and jax.hessian: Σ_k g_k ∇²w_k is summed over k."""
    formula = CASES[name].formula
    theta, unravel = ravel_pytree(CASES[name].theta)
    as_weights = ravel_pytree(BASE)[1]

    def w(theta: jax.Array) -> jax.Array:
        trees = unravel(theta)
        return jnp.concatenate(
            [formula(jnp, ALPHA, BASE[k], jax.tree.leaves(trees[k]), FROZEN[k]).ravel() for k in sorted(BASE)]
        )

    def ell(w: jax.Array) -> jax.Array:
        return loss(as_weights(w))

    @jax.jit
    def matrices(theta: jax.Array) -> dict[str, jax.Array]:
        J, H, g = jax.jacfwd(w)(theta), jax.hessian(ell)(w(theta)), jax.grad(ell)(w(theta))
        drift = jnp.einsum("k,kij->ij", g, jax.hessian(w)(theta))
        lora = jax.hessian(lambda theta: ell(w(theta)))(theta)
        return {"jacobian": J, "task": H, "signal": J.T @ H @ J, "drift": drift, "lora": lora}

    return {part: np.asarray(M) for part, M in matrices(theta).items()}
