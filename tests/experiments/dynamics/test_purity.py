"""X14 and exponents by step on sign descent with G held, whose ratio has a closed form, and steps that are unknown."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr

import signal_drift as sd
from experiments.dynamics.eta_against_alpha import (
    ROUNDING,
    Families,
    counterexamples,
    exponent_by_step,
    purity,
    ratio_over_x14,
    run_label,
    share_above,
    trajectories,
)
from experiments.problems import PROBLEMS

D, STEPS = 16, 60
PROBLEM = replace(PROBLEMS["mlp"], width=D, depth=1, rank=1)
CONFIG = Families(PROBLEM, 2, 1e-3, 1.0, (16.0, 64.0, 256.0), (16.0, 64.0, 256.0), STEPS)


def sign_descent(eta: float, alpha: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """‖Δw_Signal‖ and ‖Δw_Drift‖ of every step on ⟨G, W⟩, G = uvᵀ, r = 1, and the closed form of their ratio.

    With S_B = sign(u)·sign(⟨v, A₀⟩) and S_A = −sign(S_Bᵀ G) of constant sign, B = −(t − 1)ηS_B and A = A₀ − (t − 2)ηS_A
    before step t ≥ 2, the signal is s(η²(2t − 3)S_B S_A − ηS_B A₀) and the drift sη²S_B S_A.
    """
    u, v, A0 = np.random.default_rng(seed).standard_normal((3, D))
    A0 = A0[None] / D**0.5
    G = jnp.asarray(np.outer(u, v))
    start = {"w": sd.Adapter(jnp.asarray(A0), jnp.zeros((D, 1)))}
    found = sd.train(lambda w: jnp.vdot(G, w["w"]), {"w": jnp.zeros((D, D))}, start, alpha, optax.sign_sgd(eta), STEPS)
    S_B = np.sign(u)[:, None] * np.sign(v @ A0[0])
    S_A = -np.sign(S_B.T @ np.outer(u, v))
    t = np.arange(2, STEPS + 1)[:, None, None]
    closed = np.linalg.norm((2 * t - 3) * (S_B @ S_A) - S_B @ A0 / eta, axis=(1, 2)) / np.linalg.norm(S_B @ S_A)
    return np.asarray(found.signal_norm), np.asarray(found.drift_norm), closed


@pytest.fixture(scope="module")
def held() -> tuple[xr.Dataset, np.ndarray]:
    found = [[sign_descent(*rates, seed) for rates in CONFIG.rates().values()] for seed in range(2)]
    signal, drift, closed = (np.array([[x[i] for x in runs] for runs in found]) for i in range(3))
    dims = ("seed", "run", "step")
    data = xr.Dataset(
        {"signal": (dims, signal), "drift": (dims, drift)},
        {"run": list(CONFIG.rates()), "step": np.arange(1, STEPS + 1)},
    )
    return data, closed


def test_ratio_over_x14_is_that_of_the_closed_form(held):
    """The geometric mean over t ≥ max(5, σ_A/(3η)): runs at η₀ are not as long, the largest rate is at the limit."""
    data, closed = held
    found = ratio_over_x14(CONFIG, data)
    assert list(found) == [run_label("η", m) for m in CONFIG.eta_multipliers]
    for i, m in enumerate(CONFIG.eta_multipliers):
        t = np.arange(2, STEPS + 1)
        past = t >= max(5, D**-0.5 / (3 * m * 1e-3))
        wanted = np.exp(np.mean(np.log(closed[:, i, past] / (2 * (t[past] - 1))), axis=1))
        np.testing.assert_allclose(found[f"{m:g}·η₀"], wanted, rtol=1e-9)
    assert np.all(np.abs(found["256·η₀"] - 1) < 0.1)
    off = np.exp(np.mean(np.log(closed[:, 2, 3:] / np.arange(5, STEPS + 1)), axis=1))
    assert np.all(np.abs(off - 1) > 0.5)  # t in place of 2(t − 1) is refuted


def test_exponent_goes_from_p4_to_x14(held):
    """At t = 2 the ratio is ‖A₀‖/(η‖S_A‖) to leading order; late it is 2(t − 1) at every η, and α never enters."""
    data, closed = held
    found = exponent_by_step(CONFIG, data)
    u = np.log(np.array(CONFIG.eta_multipliers))
    wanted = np.log(closed[:, :3]).transpose(0, 2, 1) @ (u - u.mean()) / np.sum((u - u.mean()) ** 2)
    np.testing.assert_allclose(found.sel(family="η"), wanted, atol=1e-9)
    np.testing.assert_allclose(found.sel(family="α"), 0, atol=1e-9)
    early, late = (np.abs(found.sel(family="η", step=t)) for t in (2, STEPS))
    assert np.all(late < 0.3)
    assert np.all(late < early / 2)


def made(ratios: list[list[float]]) -> xr.Dataset:
    """One seed, two runs; the first step has no ratio."""
    values = np.array(ratios)[None]
    data = {"signal": (("seed", "run", "step"), values), "drift": (("run",), [1.0, 1.0])}
    return xr.Dataset(data, {"run": ["a", "e"], "step": np.arange(1, values.shape[-1] + 1)})


def test_unknown_step_counts_neither_for_nor_against():
    data = made([[9, 2, 2, 0.5, np.nan, np.inf], [9, 1, 1, 1, 1, 1]])
    assert float(share_above(data, "a", "e")[0]) == pytest.approx(2 / 3)
    assert counterexamples(data, "a", "e") == (1, 3)
    assert counterexamples(data, "e", "a") == (2, 3)
    assert np.isnan(share_above(made([[9, np.nan], [9, 1]]), "a", "e")).all()
    assert np.isnan(purity(data).sel(run="a")).all()


def test_counterexample_is_lower_by_more_than_rounding():
    below, within = 1 - 2 * ROUNDING, 1 - ROUNDING / 2
    assert counterexamples(made([[1, below], [1, 1]]), "a", "e") == (1, 1)
    assert counterexamples(made([[1, within], [1, 1]]), "a", "e") == (0, 1)


def test_one_unit_of_rounding_in_the_start_changes_no_ratio_by_rounding(monkeypatch):
    """The trajectories themselves, at the largest rates: what `ROUNDING` calls a difference is none of arithmetic."""
    config = Families(PROBLEMS["mlp"].resized(16), 1, eta_multipliers=(128.0,), alpha_multipliers=(256.0,), steps=100)
    plain = trajectories(config, 0)
    exact = type(config.problem).adapters

    def shifted(problem, seed):
        drawn = exact(problem, seed)
        return {k: x._replace(A=jnp.nextafter(x.A, jnp.inf)) for k, x in drawn.items()}

    monkeypatch.setattr(type(config.problem), "adapters", shifted)
    moved = trajectories(config, 0)
    runs = ["128·η₀", "256·α₀"]
    before, after = ((x.signal / x.drift).sel(run=runs).isel(step=slice(1, None)) for x in (plain, moved))
    apart = float(abs(after / before - 1).max())
    assert 0 < apart < ROUNDING / 10
