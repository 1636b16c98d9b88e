"""A loss evaluated at factored weights: equal to the same loss at merged ones, whatever it does with them."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.flatten_util import ravel_pytree
from problems import EPS, SMALL, problem, rounding

import signal_drift as sd
from signal_drift.hessians import factored
from signal_drift.hessians.factored import Factored, composed_loss, evaluate
from signal_drift.testing import KINDS, random_instance

X = jnp.asarray(np.random.default_rng(0).standard_normal((5, 4)))
Z = jnp.asarray(np.random.default_rng(1).standard_normal((2, 5, 3)))


@jax.custom_jvp
def bilinear(W):
    return jnp.sum(jnp.tanh(X @ W.T))


@bilinear.defjvp
def _bilinear_jvp(primals, tangents):
    (W,), (dW,) = primals, tangents
    y = X @ W.T
    return jnp.sum(jnp.tanh(y)), jnp.sum((1 - jnp.tanh(y) ** 2) * (X @ dW.T))


def lax_product(x, W, element_type=None):
    """x Wᵀ, as flax takes it where the element type of the result is not stated."""
    return jax.lax.dot_general(x, W, (((1,), (1,)), ((), ())), preferred_element_type=element_type)


def heads(W):
    """The first axis of W, of four, as two."""
    return W.reshape(2, 2, W.shape[1])


def streamed(W, body=lambda f: f):
    """The mean over batches, one after the other."""
    return jax.lax.scan(lambda total, x: (total + body(lambda x: jnp.sum(jnp.tanh(W @ x)))(x), None), 0.0, X)[0]


def two_modes(W):
    """A loss that contains a gradient and a Jacobian product of its own."""
    f = lambda x: jnp.sum(jnp.tanh(x @ W.T) ** 2)  # noqa: E731
    return jnp.sum(jax.grad(f)(X) ** 2) + jax.jvp(f, (X,), (X,))[1]


USES = {
    # of one weight W (3, 4)
    "x Wᵀ": lambda W: jnp.sum(jnp.tanh(X @ W.T)),
    "W x": lambda W: jnp.sum(jnp.tanh(W @ X.T)),
    "Wᵀ x": lambda W: jnp.sum(jnp.tanh(W.T @ Z[0].T)),
    "x Wᵀ, by lax": lambda W: jnp.sum(jnp.tanh(lax_product(X.astype(W.dtype), W))),
    "x Wᵀ, result stated": lambda W: jnp.sum(jnp.tanh(lax_product(X.astype(W.dtype), W, jnp.float64))),
    "x Wᵀ, x in float64": lambda W: jnp.sum(jnp.tanh(lax_product(X, W, jnp.float64))),
    "x W, three axes": lambda W: jnp.sum(jnp.tanh(Z @ W)),
    "vector": lambda W: jnp.sum(jnp.tanh(W @ X[0])) + jnp.sum(jnp.tanh(Z[0, 0] @ W)),
    "einsum": lambda W: jnp.sum(jnp.tanh(jnp.einsum("abo,oi->iab", Z, W))),
    "einsum of two": lambda W: jnp.sum(jnp.einsum("ni,oi,pi->nop", X, W, W) ** 2),
    "vmap": lambda W: jnp.sum(jax.vmap(lambda x: jnp.tanh(W @ x))(X)),
    "W Wᵀ": lambda W: jnp.sum(jnp.tanh(W @ W.T)),
    "both axes": lambda W: jnp.tensordot(W, X[:3], 2) ** 2,
    "batch axis": lambda W: jnp.sum(jnp.tanh(jnp.einsum("oi,no->noi", W, Z[0]))),
    "entries": lambda W: jnp.sum(jnp.sin(W)) + W[0, 1] * W[2, 3],
    "reshape": lambda W: jnp.sum(jnp.tanh(X @ W.T.reshape(4, 3, 1)[..., 0])),
    "heads of the outputs": lambda W: jnp.sum(jnp.tanh(jnp.tensordot(Z, heads(W.T).transpose(2, 0, 1), 1))),
    "heads of the outputs, W first": lambda W: jnp.sum(jnp.tanh(jnp.tensordot(heads(W.T), Z, (2, 2)))),
    "heads of the outputs, exchanged": lambda W: jnp.sum(jnp.sin(Z @ heads(W.T).transpose(1, 0, 2).reshape(4, 3).T)),
    "heads of the inputs": lambda W: jnp.sum(jnp.tanh(jnp.tensordot(heads(X.T).T, heads(W.T).T, ((1, 2), (1, 2))))),
    "heads of the inputs, W first": lambda W: jnp.sum(jnp.tanh(jnp.tensordot(heads(W.T), heads(X.T), ((1, 0),) * 2))),
    "one of two heads": lambda W: jnp.sum(jnp.tanh(jnp.tensordot(heads(W.T), X[:2], (0, 0)))),
    "axes of both": lambda W: jnp.sum(jnp.tanh(heads(W.T).transpose(0, 2, 1) @ X[:2, :2])),
    "reshaped": lambda W: jnp.sum(jnp.tanh(X @ W.reshape(4, 3))),
    "transposed and reshaped": lambda W: jnp.sum(jnp.sin(jax.lax.reshape(W, (3, 2, 2), (1, 0)) @ X[0, :2])),
    "flattened": lambda W: jnp.sum(jnp.tanh(W.reshape(2, 6) @ X.reshape(-1)[:6])) + jnp.sum(W.reshape(12) ** 3),
    "cast": lambda W: jnp.sum(jnp.tanh(X @ W.astype(jnp.complex128).real.T)),
    "overwritten": lambda W: jnp.sum(jnp.tanh(X @ jnp.zeros((4, 3)).at[...].set(W.T))),
    "overwritten in part": lambda W: jnp.sum(jnp.tanh(X @ jnp.ones((4, 5)).at[:, 1:4].set(W.T))),
    "added to": lambda W: jnp.sum(jnp.tanh(X @ jnp.ones((4, 3)).at[...].add(W.T))),
    "jit": jax.jit(lambda W: jnp.sum(jnp.tanh(X @ W.T))),
    "jit of the weight": lambda W: jnp.sum(jnp.tanh(X @ jax.jit(jnp.transpose)(W))),
    "silu, logsumexp": lambda W: jnp.sum(jax.nn.logsumexp(jax.nn.silu(X @ W.T), axis=1)),
    "scan": streamed,
    "scan, checkpointed": lambda W: streamed(W, jax.checkpoint),
    "scan carrying W": lambda W: jnp.sum(jax.lax.scan(lambda V, x: (V * 0.9, jnp.tanh(V @ x)), W, X)[1]),
    "scan over W": lambda W: jax.lax.scan(lambda y, row: (jnp.tanh(y + row @ X[0]), None), jnp.zeros(()), W)[0],
    "cond": lambda W: jax.lax.cond(jnp.sum(W) > 0, lambda W: jnp.sum(W**3), lambda W: jnp.sum(jnp.tanh(X @ W.T)), W),
    "fori_loop": lambda W: jnp.sum(jax.lax.fori_loop(0, 3, lambda i, y: jnp.tanh(y @ W.T @ X[:3]), X)),
    "custom_jvp": bilinear,
    "grad and jvp inside": two_modes,
    "constant": lambda W: jnp.sum(X),
    "the entry itself": lambda W: W[0, 0],
}


@pytest.fixture(scope="module")
def point():
    rng = np.random.default_rng(2)
    return tuple(jnp.asarray(rng.standard_normal(shape)) for shape in ((3, 4), (3, 2), (2, 4)))


def orders(f, theta):
    """The value, the gradient and a product with the Hessian."""
    v = jnp.asarray(np.random.default_rng(3).standard_normal(theta.shape), theta.dtype)
    gradient, product = jax.jvp(jax.grad(f), (theta,), (v,))
    return f(theta), gradient, product


def agree(f, g, theta):
    """To rounding of a chain of products of inner length at most 20, relative to the largest entry or 1."""
    unit = float(jnp.finfo(theta.dtype).eps) / EPS
    for x, y in zip(*jax.jit(lambda theta: (orders(f, theta), orders(g, theta)))(theta), strict=True):
        size = max(1.0, float(jnp.max(jnp.abs(y))))
        assert np.allclose(x, y, rtol=0, atol=unit * rounding(20) * size * 20)


@pytest.mark.parametrize("use", USES)
def test_factored_weights_give_what_merged_ones_give(use, point):
    """Under jit, a loss that uses its weight in every way one can think of."""
    theta, unravel = ravel_pytree(Factored(*point))
    agree(
        lambda theta: evaluate(lambda w: USES[use](w["W"]), {"W": unravel(theta)}),
        lambda theta: USES[use](unravel(theta).merged()),
        theta,
    )


def merges(f, point):
    """How often a weight is merged while f is evaluated."""
    count = []
    original = Factored.merged
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Factored, "merged", lambda W: count.append(1) or original(W))
        evaluate(lambda w: f(w["W"]), {"W": Factored(*point)})
    return len(count)


def test_products_never_merge(point):
    """And everything else does (negative control)."""
    kept = ["x Wᵀ", "x Wᵀ, by lax", "x Wᵀ, result stated", "x Wᵀ, x in float64", "W x", "Wᵀ x", "x W, three axes"]
    kept += ["vector", "einsum", "vmap", "overwritten", "jit", "fori_loop"]
    kept += ["jit of the weight", "silu, logsumexp", "scan", "scan, checkpointed", "grad and jvp inside", "constant"]
    kept += [use for use in USES if use.startswith("heads")]
    assert {use for use in USES if merges(USES[use], point) == 0} == set(kept)


@pytest.mark.parametrize(("use", "count"), [("x Wᵀ, by lax", 0), ("x Wᵀ, result stated", 1), ("x Wᵀ, x in float64", 1)])
def test_in_float32_only_products_with_a_float64_result_merge(use, count, point):
    """No stated type is none, where NumPy takes it for float64."""
    assert merges(USES[use], [x.astype(jnp.float32) for x in point]) == count


@pytest.mark.parametrize(("m", "n"), [(1, 4), (4, 1)])
def test_a_row_or_a_column_has_no_group_of_axes_when_flattened(m, n):
    W = Factored(jnp.ones((m, n)), jnp.arange(2.0 * m).reshape(m, 2), jnp.arange(2.0 * n).reshape(2, n))
    square = lambda W: jnp.sum(W.reshape(-1).reshape(2, 2).T @ jnp.arange(2.0))  # noqa: E731
    assert evaluate(lambda w: square(w["W"]), {"W": W}) == square(W.merged())


def test_a_weight_may_be_written_into_another(point):
    """In whole and in part."""
    weights = {"V": Factored(*point), "W": Factored(*(x[::-1] for x in point))}
    for rows in (..., jnp.array([0, 2])):
        loss = lambda w, rows=rows: jnp.sum(jnp.tanh(X @ w["W"].at[rows].set(w["V"][rows]).T))  # noqa: E731
        merged = loss({k: W.merged() for k, W in weights.items()})
        assert np.allclose(evaluate(loss, weights), merged, rtol=0, atol=rounding(20) * 20)
    whole = lambda w: jnp.sum(X @ w["W"].at[...].set(w["V"]).T)  # noqa: E731
    assert np.allclose(evaluate(whole, weights), jnp.sum(X @ weights["V"].merged().T), rtol=0, atol=rounding(20) * 100)


def test_a_weight_without_rows_may_be_reshaped():
    W = Factored(jnp.ones((0, 4)), jnp.ones((0, 2)), jnp.ones((2, 4)))
    assert evaluate(lambda w: jnp.sum(w["W"].reshape(0, 7) @ jnp.ones(7)), {"W": W}) == 0


def test_factors_of_lower_precision_have_gradients_of_theirs(point):
    """W0 in float64, L and R in float32: promoted before anything is computed, as the gradient of W0 shows."""
    W = Factored(point[0], *(x.astype(jnp.float32) for x in point[1:]))
    found = jax.grad(lambda W: evaluate(lambda w: USES["x Wᵀ"](w["W"]), {"W": W}))(W)
    wanted = jax.grad(lambda W: USES["x Wᵀ"](W.merged()))(jax.tree.map(lambda x: x.astype(jnp.float64), W))
    assert [x.dtype for x in found] == [jnp.float64, jnp.float32, jnp.float32]
    for x, y in zip(found, wanted, strict=True):
        unit = float(jnp.finfo(x.dtype).eps) / EPS
        assert np.allclose(x, y, rtol=0, atol=unit * rounding(20) * 20 * max(1.0, float(jnp.max(jnp.abs(y)))))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_attention_never_merges(dtype, monkeypatch):
    """Whose kernels have an axis for the heads."""
    model = nnx.MultiHeadAttention(2, 16, decode=False, param_dtype=dtype, rngs=nnx.Rngs(0))
    base, forward = sd.base_and_forward(model)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((3, 5, 16)), dtype)
    adapters = jax.tree.map(lambda x: x + jnp.asarray(0.1, dtype), sd.init_adapters(jax.random.key(0), base, 2))
    theta, unravel = ravel_pytree(adapters)
    loss, s = (lambda w: jnp.mean(forward(w, x) ** 2)), {k: jnp.ones((), dtype) for k in base}
    agree(
        lambda theta: composed_loss(loss, base, unravel(theta), s),
        lambda theta: loss(sd.effective_weights(base, unravel(theta), s)),
        theta,
    )
    monkeypatch.setattr(Factored, "merged", None)
    assert composed_loss(loss, base, adapters, s).dtype == dtype


LOSSES = {name: partial(problem, name) for name in SMALL}
LOSSES |= {kind: partial(random_instance, kind, 3, 4.0, begins=False) for kind in KINDS}


@pytest.mark.parametrize("name", LOSSES)
def test_composed_loss_equals_the_loss_of_the_composition(name, monkeypatch):
    """Every loss of the tests and of the strategies, with all layers factored."""
    monkeypatch.setattr(factored, "cheaper", lambda W: W)
    x = LOSSES[name]()
    theta, unravel = ravel_pytree(x.adapters)
    s: Any = x.scaling if isinstance(x.scaling, dict) else dict.fromkeys(x.base, x.scaling)
    agree(
        lambda theta: composed_loss(x.loss, x.base, unravel(theta), s),
        lambda theta: x.loss(sd.effective_weights(x.base, unravel(theta), s)),
        theta,
    )


def test_adapters_wider_than_half_the_weight_are_merged():
    """2 r (d_in + d_out) > d_in d_out: products with the factors would cost more than they save."""
    cheap = Factored(jnp.zeros((16, 16)), jnp.zeros((16, 4)), jnp.zeros((4, 16)))
    dear = Factored(jnp.zeros((16, 16)), jnp.zeros((16, 5)), jnp.zeros((5, 16)))
    assert factored.cheaper(cheap) is cheap
    assert isinstance(factored.cheaper(dear), jax.Array)
