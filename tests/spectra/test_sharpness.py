"""Critical sharpness against closed forms of its definition, in both precisions, with wrong definitions as controls."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial
from problems import problem, quadratic_loss, rejects

import signal_drift as sd

N, TOLERANCE = 5, 1e-3
MOST = 40
"""Passes on any loss."""


def scalar(loss: Any, x: float, u: float) -> sd.CriticalSharpness:
    return sd.critical_sharpness(loss, jnp.asarray(x), jnp.asarray(u))


class Quadratic:
    """½wᵀHw + bᵀw at a point, an update u, and what the definition gives along it, in float64."""

    def __init__(self, kind: str, along: str, seed: int, scale: float = 1.0) -> None:
        rng = np.random.default_rng(seed)
        R, b, x, v = np.linalg.qr(rng.standard_normal((N, N)))[0], *rng.standard_normal((3, N))
        values = np.linspace(0.5, 4, N) if kind == "definite" else np.linspace(-2, 4, N)
        self.H, self.top = (R * values) @ R.T, values[-1]
        if along == "top eigenvector":
            b = 3 * R[:, -1] - self.H @ x
        g = self.H @ x + b
        v = {"gradient": -g, "top eigenvector": -g, "any": -np.sign(g @ v) * v}[along]
        if kind == "bent down":
            v = -np.sign(g @ R[:, 0]) * R[:, 0]
        self.b, self.x, self.g, self.u = b, x, g, scale * v
        self.bend, self.slope = self.u @ self.H @ self.u, g @ self.u
        self.exact = max(0.0, self.bend / -self.slope)

    def found(self, dtype: str) -> sd.CriticalSharpness:
        H, b, x, u = (jnp.asarray(a, dtype) for a in (self.H, self.b, self.x, self.u))
        return sd.critical_sharpness(Partial(quadratic_loss, H, b), {"x": x}, {"x": u}, tolerance=TOLERANCE)

    def slack(self, dtype: str) -> float:
        """How far λ_c may be off, relatively: half the bracket, and what rounding moves η_c = 2/λ_c by.

        With |w| ≤ |θ| + η|u| the loss errs by (2N + 3)·ε·(½|w|ᵀ|H||w| + |b|ᵀ|w|), two sums of N terms and three more
        operations, at both points, and by as much again for H, b, θ and u rounded to the dtype; it rises with slope
        −gᵀu at η_c.
        """
        eta = 2 / self.exact
        size = np.abs(self.x) + eta * np.abs(self.u)
        loss = size @ np.abs(self.H) @ size / 2 + np.abs(self.b) @ size
        rounding = 4 * (2 * N + 3) * float(jnp.finfo(dtype).eps) * loss / -self.slope
        return TOLERANCE / 2 + rounding / eta


DTYPES = pytest.mark.parametrize("dtype", ["float64", "float32"])
CASES = [
    Quadratic(kind, along, seed, scale)
    for kind, along, scale in [
        ("definite", "gradient", 1.0),
        ("definite", "gradient", 1e-4),
        ("definite", "top eigenvector", 1.0),
        ("definite", "any", 1.0),
        ("definite", "any", 300.0),
        ("indefinite", "gradient", 1.0),
        ("indefinite", "any", 0.02),
    ]
    for seed in range(4)
]
RISING = [x for x in CASES if x.bend > 0.1 * (x.u @ x.u)]
"""Those that turn up again, by more than rounding."""


def off(found: Any, exact: float) -> float:
    return abs(float(found) / exact - 1)


@DTYPES
def test_a_quadratic_has_the_directional_formula(dtype):
    """λ_c = uᵀHu/(−gᵀu), by NumPy; 1/η_c for 2/η_c and ‖u‖² for −gᵀu are told from it."""
    assert len(RISING) >= 20
    told = 0
    for x in RISING:
        found, slack = x.found(dtype), x.slack(dtype)
        assert off(found.sharpness, x.exact) <= slack
        assert bool(found.bracketed)
        assert float(found.high) <= (1 + TOLERANCE) * float(found.low) * (1 + 4 * float(jnp.finfo(dtype).eps))
        assert int(found.passes) <= 5 + max(0, np.log2(2 / x.exact) / 4)  # each reaches 16 times as far
        assert off(1 / found.rate, x.exact) > slack
        told += off(found.sharpness, x.bend / (x.u @ x.u)) > slack
    assert told >= sum(not np.allclose(x.u, -x.g) for x in RISING)


def test_along_the_gradient_it_is_bounded_by_the_top_and_reaches_it():
    """gᵀHg/gᵀg ≤ λ_max with equality on its eigenvector; the gradient beside it stays visibly below."""
    for seed in range(4):
        below, there = Quadratic("definite", "gradient", seed), Quadratic("definite", "top eigenvector", seed)
        slack = max(x.slack("float64") for x in (below, there))
        assert float(below.found("float64").sharpness) < below.top * (1 - 10 * slack)
        assert off(there.found("float64").sharpness, there.top) <= slack


def test_it_is_proportional_to_the_update():
    """η_c of c·u is η_c/c; a λ_c that is the same, or falls, is told."""
    one, three = Quadratic("definite", "any", 0), Quadratic("definite", "any", 0, 3.0)
    ratio = float(three.found("float64").sharpness / one.found("float64").sharpness)
    assert abs(ratio - 3) <= 3 * (one.slack("float64") + three.slack("float64"))


@DTYPES
def test_a_quadratic_that_bends_down_never_rises(dtype):
    found = Quadratic("bent down", "any", 0).found(dtype)
    assert float(found.sharpness) == 0
    assert float(found.rate) == np.inf
    assert float(found.low) >= 2.0**40
    assert not found.bracketed
    assert int(found.passes) <= MOST


def test_it_is_the_first_rise_and_not_the_curvature_here():
    """−ax + bx⁴ from 0 rises at η_c = ∛(a/b), where the curvature at 0 is none."""
    for a, b, u in [(1.0, 1.0, 1.0), (1.0, 1e6, 1.0), (5.0, 1e-3, 1.0), (2.0, 3.0, 1e-3), (2.0, 3.0, 1e3)]:
        found = scalar(Partial(lambda a, b, x: b * x**4 - a * x, jnp.asarray(a), jnp.asarray(b)), 0.0, u)
        assert off(found.sharpness, 2 * u * np.cbrt(b / a)) <= TOLERANCE / 2 + 1e-12
        assert bool(found.bracketed)
        assert int(found.passes) <= MOST


def test_an_update_that_climbs_rises_at_once():
    found = scalar(lambda x: x**2, 1.0, 0.5)
    assert (float(found.rate), float(found.sharpness), int(found.passes)) == (0, np.inf, 1)
    assert not found.bracketed


def test_at_a_minimum_nothing_descends():
    found = scalar(lambda x: x**2, 0.0, 1.0)
    assert float(found.sharpness) == np.inf
    assert not found.bracketed
    assert int(found.passes) <= MOST


@pytest.mark.parametrize("loss", [lambda x: 0 * x + 1, lambda x: -x], ids=["flat", "falling"])
def test_a_loss_that_never_rises_has_none(loss):
    found = scalar(loss, 0.0, 1.0)
    assert (float(found.rate), float(found.sharpness)) == (np.inf, 0)
    assert not found.bracketed
    assert int(found.passes) <= MOST


@pytest.mark.parametrize("wall", [1e-5, 0.3, 1e5])
@pytest.mark.parametrize("there", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_has_risen(wall, there):
    """−x up to a wall; η_c is where the wall stands."""
    loss = Partial(lambda wall, there, x: jnp.where(x < wall, -x, there), jnp.asarray(wall), jnp.asarray(there))
    found = scalar(loss, 0.0, 1.0)
    assert float(found.low) < wall <= float(found.high)
    assert float(found.high) <= (1 + TOLERANCE) * float(found.low)
    assert int(found.passes) <= MOST


def test_a_fall_below_rounding_is_not_called_bracketed():
    """In float32 ½x² + 1 at x = 10⁻⁵ falls by less than ε: η_c = 2 cannot be seen, and `rounding` says so."""
    found = sd.critical_sharpness(lambda x: x**2 / 2 + 1, jnp.float32(1e-5), jnp.float32(-1e-5))
    assert float(found.rounding) > 2
    assert not found.bracketed
    seen = sd.critical_sharpness(lambda x: x**2 / 2 + 1, jnp.float32(0.1), jnp.float32(-0.1))
    assert bool(seen.bracketed)
    assert abs(float(seen.rate) - 2) <= 2 * TOLERANCE / 2 + 4 * float(seen.rounding)


def test_passes_are_the_values_of_the_loss():
    calls = []

    def loss(x):
        jax.debug.callback(lambda: calls.append(None))
        return x**2

    found = scalar(loss, 1.0, -1.0)
    jax.effects_barrier()
    assert len(calls) == int(found.passes)


def test_adapters_move_the_effective_weights():
    """Along ΔB, w moves by s ΔB A on a line, on which the loss of a quadratic problem is Q's, by NumPy."""
    P = problem("psd")
    assert P.quadratic is not None
    Q, b = P.quadratic

    def loss(theta):
        return P.loss(sd.effective_weights(P.base, theta, P.scaling))

    weights = np.concatenate(
        [np.ravel(P.base[k] + P.s[k] * np.asarray(B) @ np.asarray(A)) for k, (A, B) in sorted(P.adapters.items())]
    )
    g = Q @ weights + b
    gradient = jax.grad(loss)(P.adapters)
    update = {k: sd.Adapter(A=0 * A, B=-B) for k, (A, B) in gradient.items()}
    moved = np.concatenate(
        [P.s[k] * np.ravel(np.asarray(update[k].B) @ np.asarray(P.adapters[k].A)) for k in sorted(P.base)]
    )
    exact = float(moved @ Q @ moved / -(g @ moved))
    found = sd.critical_sharpness(loss, P.adapters, update)
    assert off(found.sharpness, exact) <= 1e-3 / 2 + 10 * float(found.rounding / found.rate)


def test_a_step_lowers_the_loss_where_it_is_below_two():
    """Recorded along a run of growing rates, against the losses that the run itself has seen."""
    x = Quadratic("definite", "gradient", 0)
    loss = Partial(quadratic_loss, jnp.asarray(x.H), jnp.asarray(x.b))

    def record(step):
        return sd.critical_sharpness(loss, step.theta, step.delta).sharpness

    base = {"x": jnp.asarray(x.x)[:, None]}
    rates = optax.exponential_decay(0.2, 1, 1.3)
    run = sd.train(loss, base, None, 1.0, optax.sgd(rates), 8, record=record)
    falls = np.diff(run.loss) <= 0
    assert np.any(falls)
    assert not np.all(falls)
    assert np.array_equal(np.asarray(run.recorded) < 2, falls)


@jax.custom_vjp
def _square(x):
    return x**2


_square.defvjp(lambda x: (x**2, x), lambda x, y: (2 * x * y,))


def test_a_loss_with_a_reverse_rule_alone_will_do():
    found = scalar(_square, 1.0, -1.0)
    assert abs(float(found.rate) - 2) <= TOLERANCE


def test_what_does_not_fit_is_named():
    point = {"a": jnp.ones(2), "b": jnp.ones(3)}

    def loss(x):
        return jnp.sum(x["a"]) + jnp.sum(x["b"])

    with rejects("update", "{'a':"):
        sd.critical_sharpness(loss, point, {"a": jnp.ones(2)})
    with rejects("update['b']", (3,), (2,)):
        sd.critical_sharpness(loss, point, {"a": jnp.ones(2), "b": jnp.ones(2)})
    with rejects("point['a']", "dtype int"):
        sd.critical_sharpness(loss, {**point, "a": jnp.ones(2, int)}, point)
    with rejects("point", {}):
        sd.critical_sharpness(loss, {}, {})
    with rejects("tolerance", 0.0):
        sd.critical_sharpness(loss, point, point, tolerance=0.0)
    with rejects("loss", "nan"):
        sd.critical_sharpness(lambda x: loss(x) * jnp.nan, point, point)
    with rejects("loss", (2,)):
        sd.critical_sharpness(lambda x: x["a"], point, point)
