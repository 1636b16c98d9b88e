"""The named problems of the tests and their oracles, which share no code with signal_drift.

A flattened vector follows the order that the package declares: layers sorted by name, A before B, each matrix row by
row. All data are of order one, so that ε = 2⁻⁵² is the relative and the absolute unit of rounding alike.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
import scipy.linalg
from jax.tree_util import Partial

import signal_drift as sd

EPS = float(np.finfo(np.float64).eps)
PARTS = ("jacobian", "task", "signal", "drift", "lora")
HESSIANS = PARTS[1:]


@dataclass(frozen=True)
class Problem:
    """A loss at one point θ; `quadratic` is (Q, b) where the loss is ½wᵀQw + bᵀw of the flat weights w."""

    loss: Partial
    base: dict[str, jax.Array]
    adapters: dict[str, sd.Adapter]
    scaling: float | dict[str, float]
    quadratic: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def s(self) -> dict[str, float]:
        return self.scaling if isinstance(self.scaling, dict) else dict.fromkeys(self.base, self.scaling)

    @property
    def p(self) -> int:
        return len(flat(self.adapters))

    @property
    def D(self) -> int:
        return len(flat(self.base))


# The losses. Layers are inserted in reverse, so that insertion order and sorted order differ.


def quadratic_loss(Q: jax.Array, b: jax.Array, weights: Mapping[str, jax.Array]) -> jax.Array:
    w = jnp.concatenate([weights[layer].ravel() for layer in sorted(weights)])
    return 0.5 * w @ (Q @ w) + b @ w


def mlp_loss(X: jax.Array, Y: jax.Array, weights: Mapping[str, jax.Array]) -> jax.Array:
    *hidden, last = sorted(weights)
    for layer in hidden:
        X = jax.nn.silu(X @ weights[layer].T)
    return jnp.mean((X @ weights[last].T - Y) ** 2)


def cross_entropy_loss(X: jax.Array, labels: jax.Array, weights: Mapping[str, jax.Array]) -> jax.Array:
    first, second = sorted(weights)
    logits = jnp.tanh(X @ weights[first].T) @ weights[second].T
    return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(len(labels)), labels])


def random_point(rng: np.random.Generator, shapes: Mapping[str, tuple[int, int]], ranks: Any, B_scale: float) -> Any:
    """(W₀, adapters) with normal entries, the layers inserted in reverse order; B = 0 if `B_scale` is 0."""
    base, adapters = {}, {}
    for layer, (d_out, d_in) in sorted(shapes.items(), reverse=True):
        r = ranks[layer] if isinstance(ranks, Mapping) else ranks
        base[layer] = jnp.asarray(rng.standard_normal((d_out, d_in)) / np.sqrt(d_in))
        A, B = rng.standard_normal((r, d_in)), B_scale * rng.standard_normal((d_out, r))
        adapters[layer] = sd.Adapter(jnp.asarray(A), jnp.asarray(B))
    return base, adapters


def random_quadratic(
    seed: int, shapes: Mapping[str, tuple[int, int]], ranks: Any, scaling: Any, *, definite: bool, B_scale: float = 0.5
) -> Problem:
    """½wᵀQw + bᵀw with a full Q, so every pair of layers is coupled."""
    rng = np.random.default_rng(seed)
    D = sum(d_out * d_in for d_out, d_in in shapes.values())
    L = rng.standard_normal((D, D)) / np.sqrt(D)
    Q, b = L @ L.T if definite else L + L.T, rng.standard_normal(D)
    loss = Partial(quadratic_loss, jnp.asarray(Q), jnp.asarray(b))
    base, adapters = random_point(rng, shapes, ranks, B_scale)
    return Problem(loss, base, adapters, scaling, (Q, b))


def random_mlp(widths: tuple[int, ...], rank: int, scaling: float, *, B_scale: float) -> Problem:
    rng = np.random.default_rng(7)
    X, Y = rng.standard_normal((6, widths[0])), rng.standard_normal((6, widths[-1]))
    shapes = {f"layer {i}": (widths[i + 1], widths[i]) for i in range(len(widths) - 1)}
    loss = Partial(mlp_loss, jnp.asarray(X), jnp.asarray(Y))
    return Problem(loss, *random_point(rng, shapes, rank, B_scale), scaling=scaling)


def random_classifier() -> Problem:
    """Softmax cross-entropy; the second rank exceeds both dimensions of its layer."""
    rng = np.random.default_rng(8)
    X, labels = rng.standard_normal((6, 4)), rng.integers(0, 2, 6)
    point = random_point(rng, {"in": (3, 4), "out": (2, 3)}, {"in": 1, "out": 4}, 0.5)
    return Problem(
        Partial(cross_entropy_loss, jnp.asarray(X), jnp.asarray(labels)), *point, scaling={"in": 1.5, "out": 0.4}
    )


PAIR = {"first": (3, 4), "second": (2, 3)}
TRIO = {"square": (3, 3), "tall": (4, 1), "wide": (2, 5)}
BUILDERS = {
    "psd": lambda: random_quadratic(1, PAIR, 2, 0.7, definite=True),
    "psd-at-init": lambda: random_quadratic(2, PAIR, 2, 0.7, definite=True, B_scale=0.0),
    "indefinite": lambda: random_quadratic(
        3,
        TRIO,
        {"square": 2, "tall": 1, "wide": 6},
        {"square": 0.5, "tall": 2.0, "wide": 0.8},
        definite=False,
    ),
    "one-layer": lambda: random_quadratic(4, {"only": (3, 5)}, 2, 1.3, definite=False),
    "mlp": lambda: random_mlp((4, 5, 3, 2), 2, 0.6, B_scale=0.5),
    "mlp-at-init": lambda: random_mlp((4, 5, 3, 2), 2, 0.6, B_scale=0.0),
    "cross-entropy": random_classifier,
    # D = 192 and p = 240: more than one chunk of 128 columns, and no multiple of it
    "large": lambda: random_quadratic(5, {"a": (8, 8), "b": (8, 8), "c": (8, 8)}, 5, 0.6, definite=False),
}
SMALL = tuple(name for name in BUILDERS if name != "large")
QUADRATIC = ("psd", "psd-at-init", "indefinite", "one-layer")
AWAY_FROM_INIT = tuple(name for name in SMALL if not name.endswith("at-init"))


@cache
def problem(name: str) -> Problem:
    return BUILDERS[name]()


@cache
def decomposition(name: str) -> sd.Decomposition:
    P = problem(name)
    return sd.decompose(P.loss, P.base, P.adapters, P.scaling)


@cache
def dense(name: str, part: str) -> np.ndarray:
    """Build the matrix that the package says it is."""
    return np.asarray(getattr(decomposition(name), part).dense())


def matrix_operator(H: np.ndarray) -> sd.SymmetricOperator:
    """A given symmetric matrix as an operator of the package: the task Hessian of ½wᵀHw at w = 0."""
    base = {"W": jnp.zeros((len(H), 1), H.dtype)}
    loss = Partial(quadratic_loss, jnp.asarray(H), jnp.zeros(len(H), H.dtype))
    return sd.decompose(loss, base, sd.init_adapters(jax.random.key(0), base, 1), 1.0).task


# The oracles.


def flat(tree: Mapping[str, Any]) -> np.ndarray:
    """A dict of matrices or of adapters as one vector."""
    leaves = [tree[layer] if isinstance(tree[layer], tuple) else (tree[layer],) for layer in sorted(tree)]
    return np.concatenate([np.asarray(matrix).ravel() for pair in leaves for matrix in pair])


def unflat(vector: Any, adapters: Mapping[str, sd.Adapter]) -> dict[str, sd.Adapter]:
    """A vector as a dict of adapters of the given shapes."""
    factors, start = {}, 0
    for layer in sorted(adapters):
        pair = []
        for matrix in adapters[layer]:
            pair.append(vector[start : start + matrix.size].reshape(matrix.shape))
            start += matrix.size
        factors[layer] = sd.Adapter(*pair)
    return factors


def flat_weights(P: Problem, theta: Any) -> jax.Array:
    """w(θ) = vec(W₀ + s·BA) from the flat θ."""
    factors = unflat(theta, P.adapters)
    return jnp.concatenate([(P.base[k] + P.s[k] * factors[k].B @ factors[k].A).ravel() for k in sorted(P.base)])


def flat_loss(P: Problem, w: Any) -> jax.Array:
    """ℓ as a function of the flat weights."""
    weights, start = {}, 0
    for layer in sorted(P.base):
        W0 = P.base[layer]
        weights[layer] = w[start : start + W0.size].reshape(W0.shape)
        start += W0.size
    return P.loss(weights)


def weight_gradient(P: Problem) -> np.ndarray:
    """g = ∇_w ℓ, flat: Qw + b by hand for a quadratic, one automatic differentiation otherwise."""
    w = np.asarray(flat_weights(P, flat(P.adapters)))
    if P.quadratic:
        Q, b = P.quadratic
        return Q @ w + b
    return np.asarray(jax.jit(jax.grad(lambda w: flat_loss(P, w)))(w))


def gradient_matrices(P: Problem) -> dict[str, np.ndarray]:
    """G_l = ∇_{W_l} ℓ."""
    g, matrices, start = weight_gradient(P), {}, 0
    for layer in sorted(P.base):
        matrices[layer] = g[start : start + P.base[layer].size].reshape(P.base[layer].shape)
        start += P.base[layer].size
    return matrices


def kronecker_jacobian(adapters: Mapping[str, sd.Adapter], s: Mapping[str, float]) -> Any:
    """∂w/∂θ, row by row: vec(BΔA) = (B ⊗ I_{d_in}) vec ΔA and vec(ΔB A) = (I_{d_out} ⊗ Aᵀ) vec ΔB."""
    blocks = []
    for layer in sorted(adapters):
        A, B = (np.asarray(factor) for factor in adapters[layer])
        blocks.append(s[layer] * np.hstack([np.kron(B, np.eye(A.shape[1])), np.kron(np.eye(len(B)), A.T)]))
    return scipy.linalg.block_diag(*blocks)


def explicit_drift(P: Problem) -> Any:
    """Σ_k g_k ∇²_θ w_k: ∂²⟨G, sBA⟩ / ∂A_{ki} ∂B_{ol} = s·G_{oi}·δ_{kl} within a layer, zero elsewhere."""
    blocks = []
    for layer, G in sorted(gradient_matrices(P).items()):
        r = len(P.adapters[layer].A)
        AB = P.s[layer] * np.einsum("oi,kl->kiol", G, np.eye(r)).reshape(r * G.shape[1], r * G.shape[0])
        blocks.append(np.block([[np.zeros((len(AB), len(AB))), AB], [AB.T, np.zeros((AB.shape[1], AB.shape[1]))]]))
    return scipy.linalg.block_diag(*blocks)


def rounding(n: int, *norms: Any) -> float:
    """10·n·ε·Π norms, a bound on the error of a chain of matrix products of inner length at most n.

    A dot product of length n errs by at most n·ε times the product of the factors' norms; 10 covers the number of
    factors in the chain (at most five) and the elementary functions inside the losses. Matrices count by ‖·‖_F.
    """
    return 10 * n * EPS * float(np.prod([np.linalg.norm(x) for x in norms]))


def central_difference(f: Any, x: np.ndarray, h: float = 2.0**-17) -> tuple[np.ndarray, float]:
    """The Jacobian of f at x by central differences, and a bound on the error of each entry.

    Truncation: the error is C h² + O(h⁴) with one C for h and 2h, so |D(2h) − D(h)| = 3|C|h² measures it with a
    threefold margin. Rounding: f errs by c·ε·max(1, |f|), and x ± h by ε|x|, which a quotient divides by h; c = 100
    roundings per entry of f.
    """
    f = jax.jit(jax.vmap(f))

    def quotient(h: float) -> np.ndarray:
        steps = h * np.eye(len(x))
        return (np.asarray(f(x + steps)) - np.asarray(f(x - steps))).T / (2 * h)

    fine, coarse = quotient(h), quotient(2 * h)
    size = max(1.0, float(np.max(np.abs(f(x[None])))))
    return fine, float(np.max(np.abs(coarse - fine))) + 100 * EPS * size / h


@cache
def oracle(name: str, part: str) -> tuple[np.ndarray, float]:
    """The matrix that the package calls `part`, and a bound on the difference of any entry.

    J and H_Drift are written out entry by entry. H_ℓ is Q for a quadratic and a finite difference of ∇ℓ otherwise,
    whose error e enters an entry of JᵀH_ℓJ with at most e·‖J‖₁². H_LoRA is always a finite difference of ∇_θ ℓ(w(θ)),
    so that H_LoRA = H_Signal + H_Drift is not put in.
    """
    P = problem(name)
    J = kronecker_jacobian(P.adapters, P.s)
    if part == "jacobian":
        return J, rounding(1, J)
    if part == "drift":
        return explicit_drift(P), rounding(P.D, explicit_drift(P))
    if part == "task":
        if P.quadratic:
            return P.quadratic[0], rounding(1, P.quadratic[0])
        return central_difference(jax.grad(lambda w: flat_loss(P, w)), np.asarray(flat_weights(P, flat(P.adapters))))
    if part == "signal":
        H, error = oracle(name, "task")
        return J.T @ H @ J, error * float(np.linalg.norm(J, 1)) ** 2 + rounding(P.D, J, H, J)
    return central_difference(jax.grad(lambda theta: flat_loss(P, flat_weights(P, theta))), flat(P.adapters))


# One machine for all error messages.


@contextmanager
def rejects(
    argument: str, *values: object, error: type[Exception] = sd.InputError
) -> Iterator[pytest.ExceptionInfo[Exception]]:
    """The block raises `error` in one line that opens with the argument and shows the values.

    Seen as a user sees it, without the type checker that the tests switch on.
    """
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        with pytest.raises(error) as caught:
            yield caught
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
    message = str(caught.value)
    assert message.startswith(argument)
    assert all(str(value) in message for value in values), f"{values} not all in: {message}"
    assert "\n" not in message
