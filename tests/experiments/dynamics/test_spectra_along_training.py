"""The preconditioned Hessian against H_LoRA in full, Adam's edge against momentum on a quadratic, and the report."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr
from jax.flatten_util import ravel_pytree

import signal_drift as sd
from experiments.dynamics import spectra_along_training as along
from experiments.problems import PROBLEMS

QUICK = along.EXPERIMENT.at(PROBLEMS["mlp"], quick=True)
EPS = float(np.finfo(float).eps)


def adam_by_hand(loss, base, start, s: float, eta: float, steps: int):
    """θ and v after so many steps of Adam, from its definition (Kingma and Ba, Algorithm 1)."""
    theta, unravel = ravel_pytree(start)
    gradient = jax.jit(jax.grad(lambda x: loss(sd.effective_weights(base, unravel(x), s))))
    m = v = jnp.zeros_like(theta)
    for t in range(1, steps + 1):
        g = gradient(theta)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        theta = theta - eta * m / (1 - 0.9**t) / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return theta, v, unravel


@pytest.fixture(scope="module")
def measured() -> xr.Dataset:
    return along.measure(QUICK, 1, "64·η₀")


@pytest.mark.parametrize("t", [2, 6])
def test_sharpness_is_that_of_the_hessian_scaled_by_adams_steps(measured, t):
    """Adam by hand, H_LoRA in full, P from Adam's own update −ηP⁻¹m; without its factor 1 − β₁ᵗ it is another."""
    problem = QUICK.problem
    drawn, s, eta = problem.draw(1), problem.scaling(1.0), 64 * QUICK.learning_rate
    theta, v, unravel = adam_by_hand(drawn.loss, drawn.base, problem.adapters(1), s, eta, t)
    P = (1 - 0.9**t) * (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8)
    H = np.asarray(jax.hessian(lambda x: drawn.loss(sd.effective_weights(drawn.base, unravel(x), s)))(theta))
    top = float(np.linalg.eigvalsh(H / np.sqrt(np.outer(P, P)))[-1])
    found = float(measured.preconditioned.sel(step=t))
    # P^{-1/2} of an entry whose gradient is nearly 0 carries that gradient's rounding, hence no tighter than 1e-6
    slack = float(measured.preconditioned_reach.sel(step=t)) + 1e-6 * top
    assert abs(found - top) <= slack
    assert abs(found / (1 - 0.9**t) - top) > slack


@pytest.mark.parametrize(("factor", "grows"), [(0.99, False), (1.01, True)])
def test_edge_is_where_momentum_on_a_quadratic_begins_to_grow(factor, grows):
    """½λx² by the average m ← β₁m + (1 − β₁)λx, x ← x − ηm: the roots of its recurrence leave the unit circle."""
    eta, curvature = 1.0, factor * along.EDGE
    step = np.array([[1 - eta * 0.1 * curvature, -eta * 0.9], [0.1 * curvature, 0.9]])
    assert bool(np.max(np.abs(np.linalg.eigvals(step))) > 1) is grows


def test_ends_are_those_of_the_hessians_in_full(measured):
    """At B = 0 and after six steps; ‖H_Drift‖₂ = s·max σ(G) (X1) against the matrix itself."""
    problem = QUICK.problem
    drawn, s = problem.draw(1), problem.scaling(1.0)
    theta, _, unravel = adam_by_hand(drawn.loss, drawn.base, problem.adapters(1), s, 64 * QUICK.learning_rate, 6)
    for look, here in ((0, problem.adapters(1)), (6, unravel(theta))):
        parts, found = sd.decompose(drawn.loss, drawn.base, here, s), measured.sel(look=look)
        lora = sd.eigenvalues(parts.lora)[[0, -1]]
        scale = float(np.max(np.abs(lora)))
        assert np.all(np.abs(found.lora.values - lora) <= found.lora_reach.values + 1e-9 * scale)
        assert abs(float(found.signal) - sd.eigenvalues(parts.signal)[-1]) <= 2 * QUICK.fine_tolerance * scale
        assert float(found.drift) == pytest.approx(sd.eigenvalues(parts.drift)[-1], rel=1e-9)


def test_one_run_is_recorded_on_its_way(measured):
    """The loss at every step is that of optax's own loop."""
    problem = QUICK.problem
    drawn, theta, optimizer = problem.draw(1), problem.adapters(1), optax.adam(64 * QUICK.learning_rate)
    state = optimizer.init(theta)
    value = jax.jit(jax.value_and_grad(lambda x: drawn.loss(sd.effective_weights(drawn.base, x, problem.scaling(1.0)))))
    for t in range(QUICK.steps + 1):
        loss, gradient = value(theta)
        assert float(measured.loss[t]) == pytest.approx(float(loss), rel=1e4 * EPS)
        delta, state = optimizer.update(gradient, state)
        theta = optax.apply_updates(theta, delta)


def test_without_drift_the_hessian_is_that_of_the_weights_that_the_signal_alone_has_reached():
    """Adam by hand, w followed by itself: w ← w + s(BΔA + ΔB A); at the w of the run with its drift it is another."""
    problem, t = QUICK.problem, 6
    drawn, s, eta = problem.draw(1), problem.scaling(1.0), 64 * QUICK.learning_rate
    theta, unravel = ravel_pytree(problem.adapters(1))
    w, flat_to_weights = ravel_pytree(drawn.base)

    def ordinary(x):
        return ravel_pytree(sd.effective_weights(drawn.base, unravel(x), s))[0]

    @jax.jit
    def signal(theta, delta):
        return jax.jvp(ordinary, (theta,), (delta,))[1]

    @jax.jit
    def pulled(theta, w):
        return jax.vjp(ordinary, theta)[1](jax.grad(lambda w: drawn.loss(flat_to_weights(w)))(w))[0]

    m = v = jnp.zeros_like(theta)
    for i in range(1, t + 1):
        g = pulled(theta, w)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        delta = -eta * m / (1 - 0.9**i) / (jnp.sqrt(v / (1 - 0.999**i)) + 1e-8)
        theta, w = theta + delta, w + signal(theta, delta)
    P = (1 - 0.9**t) * (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8)

    def top(w):
        """At θ with the W₀ that makes w."""
        rest = w - ordinary(theta)
        H = jax.hessian(lambda x: drawn.loss(flat_to_weights(ordinary(x) + rest)))(theta)
        return float(np.linalg.eigvalsh(np.asarray(H) / np.sqrt(np.outer(P, P)))[-1])

    found = along.measure(QUICK, 1, "64·η₀, drift removed")
    expected = top(w)
    slack = float(found.preconditioned_reach.sel(step=t)) + 1e-6 * expected
    assert abs(float(found.preconditioned.sel(step=t)) - expected) <= slack
    assert abs(top(ordinary(theta)) - expected) > slack
