"""Exponents of one update against those derived, each derivation refuted by another optimizer."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.linalg

import signal_drift as sd
from experiments.dynamics import signal_descent, update_scaling
from experiments.dynamics.eta_against_alpha import FAMILIES
from experiments.dynamics.one_step import FORGETFUL, OPTIMIZERS, expected, polar_descent
from experiments.dynamics.update_scaling import exponent_error, fitted
from experiments.lab.runner import results
from experiments.problems import PROBLEMS


@pytest.fixture(scope="module")
def data(stored):
    experiment = update_scaling.EXPERIMENT
    return results(experiment, experiment.at(PROBLEMS["mlp"], quick=True), stored)


@pytest.mark.parametrize("optimizer", [name for name in OPTIMIZERS if name != "Adam-1e-8"])
def test_away_from_zero_the_exponents_are_the_derived_ones(data, optimizer):
    """The gradient is the same at every (η, α) by construction, so that the powers are exact.

    optax-Muon adds ε = 1e-8 to a Frobenius norm, which leaves a trace of the gradient's size.
    """
    assert exponent_error(data, optimizer, "generic") < (1e-3 if optimizer == "optax-Muon" else 1e-9)


def test_the_derivation_for_adaptive_optimizers_is_refuted_by_gradient_descent(data, monkeypatch):
    monkeypatch.setattr(update_scaling, "expected", lambda optimizer, state: expected("Adam", state))
    assert exponent_error(data, "GD", "generic") > 0.9
    assert exponent_error(data, "Adam", "generic") < 1e-9


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_second_step_from_zero_follows_to_leading_order(data, optimizer):
    assert exponent_error(data, optimizer, "second") < 0.15


def test_the_first_step_from_zero_has_no_drift(data):
    first = data.norm.sel(step=1, part="drift")
    assert float(first.sel(state="second").max()) == 0
    assert float(first.sel(state="generic").min()) > 0


@pytest.mark.parametrize("name", ["transformer", pytest.param("minilm", marks=pytest.mark.slow)])
def test_elsewhere_the_exponents_of_adam_are_those_stated_and_those_of_gradient_descent_are_not(name, stored):
    experiment = update_scaling.EXPERIMENT
    data = results(experiment, experiment.at(PROBLEMS[name], quick=True), stored)

    def furthest(optimizer):
        powers = [(part, family, e[i]) for part, e in FORGETFUL.items() for i, family in enumerate(FAMILIES)]
        return max(abs(fitted(data, optimizer, "generic", part, family).value - e) for part, family, e in powers)

    assert furthest("Adam") < 1e-9
    assert furthest("GD") > 0.9


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 4)])
def test_polar_descent_is_the_polar_factor(shape):
    """SciPy's polar decomposition as the oracle; of rank one and of zero, the compact SVD."""
    G = np.asarray(jax.random.normal(jax.random.key(0), shape, jnp.float64))
    optimizer = polar_descent(0.5)

    def step(G):
        gradient = jnp.asarray(G)
        return np.asarray(optimizer.update(gradient, optimizer.init(gradient))[0])

    np.testing.assert_allclose(step(G), -0.5 * scipy.linalg.polar(G)[0], atol=1e-14)
    assert np.max(np.abs(step(G) + 0.5 * np.sign(G))) > 0.1
    u, v = G[:, :1], G[:1]
    np.testing.assert_allclose(step(u @ v), -0.5 * u @ v / np.linalg.norm(u) / np.linalg.norm(v), atol=1e-14)
    assert np.all(step(0 * G) == 0)


def test_without_momentum_adam_never_ascends_and_with_it_it_can():
    """On ½w² from w = 1 with η = 0.4: momentum carries w through the minimum and up the other side."""

    def alignment(b1: float) -> np.ndarray:
        run = sd.train(
            lambda w: jnp.sum(w["w"] ** 2) / 2, {"w": jnp.ones((1, 1))}, None, 1.0, optax.adam(0.4, b1=b1), 30
        )
        return np.asarray(run.signal_alignment)

    assert np.all(alignment(0.0) >= 0)
    assert np.any(alignment(0.9) < 0)


def test_the_share_of_ascending_steps_counts_signs(stored):
    config = signal_descent.EXPERIMENT.at(PROBLEMS["mlp"], quick=True)
    data = results(signal_descent.EXPERIMENT, config, stored)
    assert float(signal_descent.ascending(data).sel(momentum=0.0).max()) == 0
    assert "always a descent direction" in signal_descent.report(config, data).sentences[1]
    uphill = data.assign(alignment=-abs(data.alignment))
    assert float(signal_descent.ascending(uphill).min()) == 1
    assert np.isnan(signal_descent.ascending(data.assign(alignment=np.nan * data.alignment))).all()
    assert "not always" in signal_descent.report(config, uphill).sentences[1]
