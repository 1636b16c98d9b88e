"""G = J_fᵀ(∇²c)J_f against explicit Jacobians, finite differences and the residual term it leaves out of H_ℓ."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from problems import PAIR, Problem, central_difference, flat, flat_weights, random_point, rejects, rounding

import signal_drift as sd
from signal_drift.hessians.gauss_newton import criterion_curvature
from signal_drift.losses.composite import composite, outputs_and_criterion


def linear_outputs(M, weights):
    return M @ jnp.concatenate([weights[k].ravel() for k in sorted(weights)])


def bent_outputs(X, weights):
    """A dict of two outputs, so that what the criterion sees is no single array."""
    first, second = sorted(weights)
    hidden = jnp.tanh(X @ weights[first].T)
    return {"hidden": hidden[:, :1], "last": hidden @ weights[second].T}


def half_square(Y, outputs):
    return jnp.sum((outputs - Y) ** 2) / 2


def log_sum(labels, outputs):
    """Softmax cross-entropy of one output and a quartic of the other: convex, and no quadratic."""
    logits = jax.nn.log_softmax(outputs["last"])
    return -jnp.mean(jnp.take_along_axis(logits, labels[:, None], 1)) + jnp.sum(outputs["hidden"] ** 4)


@cache
def problem(name):
    rng = np.random.default_rng(5)
    point = random_point(rng, PAIR, {"first": 2, "second": 3}, 0.5)
    D = sum(W0.size for W0 in point[0].values())
    if name == "linear":
        outputs = Partial(linear_outputs, jnp.asarray(rng.standard_normal((7, D))))
        loss = composite(outputs, Partial(half_square, jnp.asarray(rng.standard_normal(7))))
    else:
        outputs = Partial(bent_outputs, jnp.asarray(rng.standard_normal((6, 4))))
        loss = composite(outputs, Partial(log_sum, jnp.asarray(rng.integers(0, 2, 6))))
    return Problem(loss, *point, scaling={"first": 0.7, "second": 1.5})


def matrices(name):
    P = problem(name)
    G = sd.gauss_newton(P.loss, P.base, P.adapters, P.scaling)
    return np.asarray(G.task.dense()), np.asarray(G.signal.dense())


def halves(name):
    """(w, f, c) on flat vectors, the outputs in the order of the keys."""
    P = problem(name)
    model, criterion = P.loss.args

    def unflat(w):
        weights, start = {}, 0
        for k in sorted(P.base):
            weights[k] = w[start : (start := start + P.base[k].size)].reshape(P.base[k].shape)
        return weights

    def f(w):
        out = model(unflat(w))
        return jnp.concatenate([out[k].ravel() for k in sorted(out)]) if isinstance(out, dict) else out

    def c(y):
        return criterion(y if name == "linear" else {"hidden": y[:6].reshape(6, 1), "last": y[6:].reshape(6, 2)})

    return np.asarray(flat_weights(P, flat(P.adapters))), f, c


def test_composite_is_the_criterion_of_the_outputs():
    P, (w, f, c) = problem("bent"), halves("bent")
    assert float(P.loss(sd.effective_weights(P.base, P.adapters, P.scaling))) == pytest.approx(
        float(c(f(w))), rel=1e-14
    )


def test_only_a_composite_loss_is_split():
    outputs, criterion = Partial(linear_outputs, jnp.eye(2)), Partial(half_square, jnp.ones(2))
    assert outputs_and_criterion(composite(outputs, criterion)) == (outputs, criterion)
    plain = composite(lambda weights: weights["W"], jnp.sum)
    assert [half.func for half in outputs_and_criterion(plain) or ()] == [plain.args[0].func, jnp.sum]
    assert outputs_and_criterion(lambda weights: jnp.sum(weights["W"])) is None
    assert outputs_and_criterion(Partial(half_square, jnp.ones(2))) is None


def test_data_of_both_halves_are_traced():
    """Other data of the same shapes reuse the compiled code, through jit as well."""
    traced = []

    def counted(Y, outputs):
        traced.append(1)
        return half_square(Y, outputs)

    P = problem("linear")
    M = P.loss.args[0].args[0]
    losses = [composite(Partial(linear_outputs, c * M), Partial(counted, c * jnp.ones(7))) for c in (1.0, 2.0)]
    first = sd.gauss_newton(losses[0], P.base, P.adapters, P.scaling).task.dense()
    count = len(traced)
    second = jax.jit(lambda op: op.dense())(sd.gauss_newton(losses[1], P.base, P.adapters, P.scaling).task)
    assert np.array_equal(second, 4 * first)  # a factor of 2 commutes with rounding
    assert len(traced) - count <= 3  # the shape is checked and the value taken twice, nothing is compiled again


def test_gauss_newton_of_linear_outputs_is_the_whole_hessian():
    """½‖Mw − y‖²: G = H_ℓ = MᵀM exactly."""
    P = problem("linear")
    M = np.asarray(P.loss.args[0].args[0])
    task, signal = matrices("linear")
    parts = sd.decompose(P.loss, P.base, P.adapters, P.scaling)
    J = np.asarray(parts.jacobian.dense())
    assert np.allclose(task, M.T @ M, rtol=0, atol=rounding(P.D, M, M))
    assert np.allclose(task, parts.task.dense(), rtol=0, atol=rounding(P.D, M, M))
    assert np.allclose(signal, J.T @ M.T @ M @ J, rtol=0, atol=rounding(P.D, J, M, M, J))
    assert np.linalg.matrix_rank(task) == 7 < P.D


def test_gauss_newton_is_the_explicit_product():
    """J_f by central differences of the outputs, ∇²c by central differences of ∇c: no code in common with G.

    With errors d_J and d_C in Frobenius norm, JᵀCJ errs by at most 2 d_J‖J‖‖C‖ + d_C‖J‖² + d_J²‖C‖, to second order.
    """
    P, (w, f, c) = problem("bent"), halves("bent")
    (J_f, e_J), (C, e_C) = central_difference(f, w), central_difference(jax.grad(c), np.asarray(f(w)))
    N, D = J_f.shape
    d_J, d_C = e_J * np.sqrt(N * D), e_C * N  # Frobenius norms of the errors
    size = np.linalg.norm
    error = 2 * d_J * size(J_f) * size(C) + d_C * size(J_f) ** 2 + d_J**2 * size(C)
    task, signal = matrices("bent")
    assert np.allclose(task, J_f.T @ C @ J_f, rtol=0, atol=error + rounding(D, J_f, C, J_f))
    J = np.asarray(sd.decompose(P.loss, P.base, P.adapters, P.scaling).jacobian.dense())
    assert np.allclose(signal, J.T @ task @ J, rtol=0, atol=rounding(D, J, task, J))
    assert error < 1e-4 * size(task)


def test_what_is_left_of_the_hessian_is_the_residual_term():
    """H_ℓ − G = Σ_k (∂c/∂f_k) ∇²f_k, which is not zero for bent outputs (so that G is not H_ℓ, the control)."""
    P, (w, f, c) = problem("bent"), halves("bent")
    task, _ = matrices("bent")
    H = np.asarray(sd.decompose(P.loss, P.base, P.adapters, P.scaling).task.dense())
    curved, residual = np.asarray(jax.hessian(f)(w)), np.asarray(jax.grad(c)(f(w)))
    left = np.einsum("k,kij->ij", residual, curved)
    error = rounding(P.D, H) + rounding(P.D, residual, curved)
    R = np.asarray(sd.gauss_newton(P.loss, P.base, P.adapters, P.scaling).residual.dense())
    assert np.allclose(R, left, rtol=0, atol=error)
    assert np.allclose(H - task, left, rtol=0, atol=error)
    assert np.linalg.norm(left) > 0.01


def test_criterion_curvature_is_the_hessian_of_the_criterion():
    P, (w, f, c) = problem("bent"), halves("bent")
    C = np.asarray(criterion_curvature(P.loss, P.base, P.adapters, P.scaling).dense())
    expected, error = central_difference(jax.grad(c), np.asarray(f(w)))
    assert np.allclose(C, expected, rtol=0, atol=error)
    assert C.shape == (18, 18)


def test_gauss_newton_is_semidefinite_where_the_hessian_is_not():
    """X6 and its premise: the same loss with its sign turned has G ⪯ 0."""
    P = problem("bent")
    task, signal = matrices("bent")
    H = np.asarray(sd.decompose(P.loss, P.base, P.adapters, P.scaling).task.dense())
    assert np.linalg.eigvalsh(H)[0] < -0.01
    for G in (task, signal):
        assert np.linalg.eigvalsh(G)[0] >= -rounding(len(G), G)
    turned = composite(P.loss.args[0], lambda outputs: -P.loss.args[1](outputs))
    assert np.linalg.eigvalsh(sd.gauss_newton(turned, P.base, P.adapters, P.scaling).signal.dense())[0] < -0.01


def whole(weights):
    return sum(jnp.sum(W) for W in weights.values())


@pytest.mark.parametrize("make", [sd.gauss_newton, criterion_curvature])
def test_loss_that_is_not_composite_is_named(make):
    P = problem("linear")
    with rejects("loss", "composite", "'whole'"):
        make(whole, P.base, P.adapters, P.scaling)
    with rejects("loss", "composite", "'half_square'"):
        make(Partial(half_square, jnp.ones(100)), P.base, P.adapters, P.scaling)
