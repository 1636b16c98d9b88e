"""X4 bit by bit, with pairs that it does not join, and what breaks it."""

from dataclasses import replace

import jax
import numpy as np
import optax
import pytest

import signal_drift as sd
from experiments.gauge import gauge_breaking, optimizer_gauge
from experiments.gauge.optimizer_gauge import EXACT, FALSE, INEXACT, YARDSTICK
from experiments.gauge.runs import Knobs, distance, gauge, trajectory
from experiments.lab.runner import results
from experiments.problems import PROBLEMS

QUICK = optimizer_gauge.EXPERIMENT.at(PROBLEMS["mlp"], quick=True)


@pytest.fixture(scope="module")
def data(stored):
    return results(optimizer_gauge.EXPERIMENT, QUICK, stored)


@pytest.mark.parametrize("pair", EXACT)
def test_powers_of_two_leave_every_bit(data, pair):
    assert float(data.distance.sel(pair=pair).max()) == 0
    np.testing.assert_array_equal(data.loss.sel(pair=pair, side=0), data.loss.sel(pair=pair, side=1))


@pytest.mark.parametrize("pair", FALSE)
def test_pairs_that_are_not_joined_part(data, pair):
    assert float(data.distance.sel(pair=pair).max("step").min()) > 0.01


def test_other_factors_leave_no_more_than_rounding(data):
    """Each of the T steps rounds as often as the yardstick's single one: T times its size, and ten for safety."""
    far = data.distance.max("step")
    limit = 10 * QUICK.steps * float(far.sel(pair=YARDSTICK).max())
    assert 0 < float(far.sel(pair=INEXACT).max()) < limit < float(far.sel(pair=list(FALSE)).min())


@pytest.mark.parametrize(("p", "q"), [(2.0, 1.0), (1.0, 0.25), (0.125, 16.0)])
def test_every_gauge_holds_and_a_forgotten_factor_is_noticed(p, q):
    plain = trajectory(QUICK, 0, Knobs())
    assert distance(plain, trajectory(QUICK, 0, gauge(p, q))).max() == 0
    for forgotten in ("alpha", "A", "eta_a", "eta_b"):
        if getattr(gauge(p, q), forgotten) != 1 and (forgotten, q) != ("alpha", 1 / p):
            other = trajectory(QUICK, 0, gauge(p, q)._replace(**{forgotten: 1.0}))
            assert distance(plain, other).max() > 1e-3


def test_gradient_descent_needs_the_square():
    """∇_B' = ∇_B/q and ΔB' = q·ΔB ask for η_B·q²: α×c equals η_B×c² there, and η_B×c as under Adam is refuted."""
    base, loss = QUICK.problem.draw(0)
    start, c, eta = QUICK.problem.adapters(0), 4.0, 1e-2

    @jax.jit
    def losses(s, eta_B):
        return sd.train(loss, base, start, s, sd.separate_rates(optax.sgd(eta), optax.sgd(eta_B)), 10).loss

    scaled = losses(c, eta)
    np.testing.assert_array_equal(scaled, losses(1.0, c**2 * eta))
    assert np.max(np.abs(scaled / losses(1.0, c * eta) - 1)) > 1e-3


@pytest.fixture(scope="module")
def broken(stored):
    return results(
        gauge_breaking.EXPERIMENT,
        gauge_breaking.EXPERIMENT.at(PROBLEMS["mlp"], quick=True),
        stored,
    )


def test_small_breaks_grow_in_proportion(broken):
    """To first order the break is linear in ε and in the weight decay; quadratic or constant is refuted."""
    for kind, step in (("epsilon", 100.0), ("decay", 10.0)):
        small = broken[kind].transpose(f"{kind}_value", "seed").values
        growth = small[1] / small[0]
        np.testing.assert_allclose(growth, step, rtol=0.01)
        for wrong in (1.0, step**2):
            assert not np.any(np.isclose(growth, wrong, rtol=0.5))


def test_clipping_breaks_only_where_it_clips(broken):
    assert float(broken["clip"].sel(clip_value=1e3).max()) == 0
    assert float(broken["clip"].sel(clip_value=1e-6).max()) > 1e-4


def test_the_report_says_when_x4_fails(data):
    said = optimizer_gauge.report(QUICK, data).sentences[0]
    assert "no tied learning rate" in said
    moved = data.assign(distance=data.distance + 1e-9)
    assert "X4 FAILS" in optimizer_gauge.report(QUICK, moved).sentences[0]


def test_a_yardstick_of_one_unit_of_rounding_grows_with_the_steps():
    short, long = (
        distance(*(trajectory(replace(QUICK, steps=n), 0, k) for k in (Knobs(), Knobs(A=1 + 2.0**-52)))).max()
        for n in (2, QUICK.steps)
    )
    assert 0 < short <= long < 1e-10
