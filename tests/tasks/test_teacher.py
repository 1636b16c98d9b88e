"""The teacher of App. E and the mean squared error."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from problems import rejects, rounding

import signal_drift as sd
from signal_drift.tasks.teacher import Regression, spectral_teacher, squared_error, teacher_regression

KEY = jax.random.key(3)


@pytest.mark.parametrize("shape", [(6, 6), (3, 7), (7, 3), (1, 4)], ids=str)
def test_teacher_has_singular_values_one_over_i(shape):
    W = np.asarray(spectral_teacher(KEY, *shape))
    k = min(shape)
    assert W.shape == shape
    sigma = np.linalg.svd(W, compute_uv=False)
    assert np.allclose(sigma, 1 / np.arange(1, k + 1), rtol=0, atol=rounding(max(shape), W))


def test_teacher_has_two_independent_bases():
    """Its left and right singular vectors are different draws, and another key gives another teacher."""
    W = np.asarray(spectral_teacher(KEY, 5, 5))
    assert np.linalg.norm(W - W.T) > 0.1
    assert np.linalg.norm(W - spectral_teacher(jax.random.key(4), 5, 5)) > 0.1


@pytest.mark.parametrize("scale", [1.0, -2.5])
@pytest.mark.parametrize(("d_out", "d_in"), [(4, 4), (2, 5), (5, 3)])
def test_targets_are_the_scaled_teacher_of_the_inputs(d_out, d_in, scale):
    """More samples than inputs determine W_true: least squares leaves no residual, and σ_i(W_true) = |c|/i.

    Least squares errs by n·ε·‖Y‖ times the inverse of the smallest singular value of X.
    """
    X, Y = (np.asarray(x) for x in teacher_regression(KEY, 40, d_out, d_in, scale))
    assert (X.shape, Y.shape) == ((40, d_in), (40, d_out))
    W = np.linalg.lstsq(X, Y)[0].T
    smallest = np.linalg.svd(X, compute_uv=False)[-1]
    assert np.allclose(X @ W.T, Y, rtol=0, atol=rounding(40, X, Y) / smallest)
    sigma = np.linalg.svd(W, compute_uv=False)
    expected = abs(scale) / np.arange(1, min(d_out, d_in) + 1)
    assert np.allclose(sigma, expected, rtol=0, atol=rounding(40, Y) / smallest)


def test_target_scale_changes_the_targets_alone():
    one, three = (teacher_regression(KEY, 5, 2, 3, scale) for scale in (1.0, 3.0))
    assert np.array_equal(one.X, three.X)
    assert np.allclose(3 * one.Y, three.Y, rtol=0, atol=rounding(3, three.Y))


def test_inputs_are_standard_normal():
    """Mean and mean square of N = 20000 entries, each within four standard errors 1/√N and √(2/N) (6·10⁻⁵ each)."""
    X = np.asarray(teacher_regression(KEY, 4000, 1, 5).X)
    assert abs(np.mean(X)) < 4 / np.sqrt(X.size)
    assert abs(np.mean(X**2) - 1) < 4 * np.sqrt(2 / X.size)


def test_teacher_and_inputs_do_not_share_a_key():
    """A teacher drawn with the key itself is not the one that the targets reveal."""
    X, Y = teacher_regression(KEY, 40, 4, 4)
    assert np.linalg.norm(np.linalg.lstsq(np.asarray(X), np.asarray(Y))[0].T - spectral_teacher(KEY, 4, 4)) > 0.1


@pytest.mark.parametrize(("reduction", "divisor"), [("mean", 6 * 2), ("sum", 1)])
def test_squared_error_sums_or_averages_over_all_entries(reduction, divisor):
    base, forward = sd.base_and_forward(sd.MLP((3, 2), rngs=nnx.Rngs(0)))
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((6, 3)), rng.standard_normal((6, 2))
    loss = squared_error(forward, Regression(jnp.asarray(X), jnp.asarray(Y)), reduction)
    expected = np.sum((X @ np.asarray(base["layers.0"]).T - Y) ** 2) / divisor
    assert float(loss(base)) == pytest.approx(expected, rel=rounding(12))


def test_squared_error_is_a_mean_by_default():
    base, forward = sd.base_and_forward(sd.MLP((3, 2), rngs=nnx.Rngs(0)))
    data = teacher_regression(KEY, 6, 2, 3)
    assert squared_error(forward, data)(base) == squared_error(forward, data, "mean")(base)


def test_squared_error_of_other_data_has_the_same_structure():
    """So that one compilation serves every data set."""
    _, forward = sd.base_and_forward(sd.MLP((3, 2), rngs=nnx.Rngs(0)))
    losses = [squared_error(forward, teacher_regression(jax.random.key(i), 6, 2, 3)) for i in range(2)]
    assert jax.tree.structure(losses[0]) == jax.tree.structure(losses[1])


@pytest.mark.parametrize("samples", [0, -5])
def test_too_few_samples_are_named(samples):
    with rejects("samples", samples):
        teacher_regression(KEY, samples, 2, 3)
