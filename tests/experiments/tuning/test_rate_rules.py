"""Every sharpness against dense matrices and the loss itself, and the rules judged on sweeps of known truth."""

import dataclasses

import jax
import numpy as np
import pytest
import xarray as xr

import signal_drift as sd
from experiments.claims.own import best_rate
from experiments.ledger.verdict import decide
from experiments.problems import PROBLEMS
from experiments.tuning import rate_rules
from experiments.tuning.rate_rules import RULES

TINY = rate_rules.EXPERIMENT.at(PROBLEMS["teacher64"], quick=True)
PROBLEM = rate_rules.EXPERIMENT.at(PROBLEMS["teacher64"])
RANK, SCALINGS = 4, [0.25, 1.0, 16.0]
ADAM, DESCENT = "1/λ_c, Adam's first step", "1/λ_c, −∇ℓ"


@pytest.fixture(scope="module")
def found() -> dict:
    return rate_rules.sharpness(TINY.problem, 0, RANK, SCALINGS, 1e-6)


def test_largest_eigenvalues_are_those_of_the_dense_matrices(found):
    drawn, theta = TINY.problem.draw(0), TINY.problem.adapters(0, RANK)
    for k, s in enumerate(SCALINGS):
        parts = sd.decompose(drawn.loss, drawn.base, theta, s)
        for rule, op in (("1/λmax[H_LoRA]", parts.lora), ("1/λmax[H_Signal]", parts.signal)):
            np.testing.assert_allclose(found[rule][k], np.linalg.eigvalsh(np.asarray(op.dense()))[-1], rtol=1e-5)


@pytest.mark.parametrize(("rule", "sign"), [(ADAM, True), (DESCENT, False)])
def test_loss_is_where_it_was_after_the_critical_step(found, rule, sign):
    """The step written out in the weights: W₀ − η s sign(GAᵀ)A, or W₀ − η s² GAᵀA, at 0.99 and 1.01 of 2/λ_c."""
    drawn, theta = TINY.problem.draw(0), TINY.problem.adapters(0, RANK)
    gradient = jax.grad(drawn.loss)(drawn.base)
    start = float(drawn.loss(drawn.base))
    for k, s in enumerate(SCALINGS):
        for factor, rises in ((0.99, False), (1.01, True)):
            eta, moved = 2 * factor / found[rule][k], {}
            for layer, W0 in drawn.base.items():
                A, G = np.asarray(theta[layer].A), np.asarray(gradient[layer])
                step = s * np.sign(G @ A.T) if sign else s**2 * G @ A.T
                moved[layer] = W0 - eta * (step @ A)
            assert (float(drawn.loss(moved)) > start) == rises


def test_critical_sharpness_has_the_power_of_alpha_that_is_stated(found):
    """α and α² at B = 0, to the width of two brackets; α^1.01 is told apart."""
    s = np.array(SCALINGS)
    for rule, power in ((ADAM, 1), (DESCENT, 2)):
        np.testing.assert_allclose(found[rule] / found[rule][1], s**power, rtol=2e-3)
        assert not np.allclose(found[rule] / found[rule][1], s ** (power + 0.01), rtol=2e-3)


POWERS = dict(zip(RULES, (1.0, 2.0, 0.5, 1.5, 0.0), strict=True))
"""The power of α in the sharpness of every rule, in invented data."""


def made(power: float, seeds: int = 6) -> xr.Dataset:
    """Sweeps whose η* is α^power times a factor of seed and rank, on a parabola in ln η of unit curvature.

    A rule's sharpness is α to its own power, over the factor of the rank.
    """
    alphas, rates, ranks = np.array(PROBLEM.grid_alphas), np.array(PROBLEM.grid_rates), list(PROBLEM.path_ranks)
    of_seed, of_rank = np.linspace(0.8, 1.25, seeds)[:, None, None], np.array([0.5, 1.0, 2.0])[:, None]
    best = of_seed * of_rank * (alphas / alphas[3]) ** power
    losses = (np.log(rates) - np.log(best)[..., None]) ** 2
    sharpness = [np.broadcast_to(alphas ** POWERS[rule] / of_rank, best.shape) for rule in RULES]
    shape = ("seed", "rank", "alpha")
    return xr.Dataset(
        {
            "best": (shape, 2 * best),
            "sharpness": (("rule", *shape), np.array(sharpness)),
            "log_loss": ((*shape, "multiple"), losses),
            "eta_fft": ("seed", np.full(seeds, 2.0)),
        },
        coords={"rule": list(RULES), "rank": ranks, "alpha": alphas, "multiple": rates, "seed": range(seeds)},
    )


@pytest.mark.parametrize("power", [-1.0, -0.5])
def test_exponent_is_that_of_the_best_rate_and_of_the_rule(power):
    data = made(power)
    for rule in RULES:
        found = rate_rules.exponent(data, rule)
        assert found.shape == (6,)
        np.testing.assert_allclose(found, power + POWERS[rule], atol=1e-12)


def test_exponent_is_the_mean_over_ranks():
    """At one rank of three η* is steeper by 0.3: by 0.1 on average."""
    data, alphas = made(-1.0), np.array(PROBLEM.grid_alphas)
    data.best[:, 0] = data.best[:, 0] * alphas**0.3
    np.testing.assert_allclose(rate_rules.exponent(data, "constant"), -0.9, atol=1e-12)


def test_correlation_is_that_of_all_ranks_and_alphas():
    """1 where the rule has the rank's factor too; less where it has not."""
    data = made(-1.0)
    np.testing.assert_allclose(rate_rules.correlation(data, "1/λmax[H_LoRA]"), 1.0)
    assert np.isnan(rate_rules.correlation(data.isel(rank=[1]), "constant")).all()
    data.sharpness[:] = data.sharpness * np.array([0.01, 1.0, 100.0])[:, None]
    assert (rate_rules.correlation(data, "1/λmax[H_LoRA]") < 0.9).all()


def test_what_is_not_known_is_not_judged():
    data = made(-1.0)
    data.sharpness[0, 2, 1, 3] = np.nan
    assert np.isnan(rate_rules.exponent(data, "1/λmax[H_LoRA]")).tolist() == [k == 2 for k in range(6)]
    assert np.isfinite(rate_rules.exponent(data, "constant")).all()


STEP = np.log(PROBLEM.grid_rates[1] / PROBLEM.grid_rates[0])


def test_the_loss_lost_is_that_of_the_parabola_at_the_best_constant():
    """The mean square of ln η* − ln η about its mean, to what the grid is coarse by; the true rule loses that alone."""
    data, u = made(-0.5), np.log(PROBLEM.grid_alphas)
    for rule, power in POWERS.items():
        ln = ((0.5 - power) * u) if power else (0.5 * u + np.log([0.5, 1.0, 2.0])[:, None] * -1)
        expected = np.mean((ln - ln.mean()) ** 2)
        if np.ptp((0.5 - power) * u) < np.ptp(np.log(PROBLEM.grid_rates)) / 2:
            np.testing.assert_allclose(rate_rules.lost(data, rule), expected, atol=STEP**2 / 2)
    assert (rate_rules.lost(data, ADAM) < STEP**2 / 2).all()
    assert (rate_rules.lost(data, "constant") > 2).all()


def test_a_constant_of_the_rule_changes_nothing():
    data = made(-0.5)
    before = rate_rules.lost(data, ADAM)
    data.sharpness[:] = 1e3 * data.sharpness
    np.testing.assert_allclose(rate_rules.lost(data, ADAM), before, rtol=1e-9)


def test_a_run_that_diverged_learned_nothing_and_no_more_is_lost():
    """At every rate but the smallest all runs of one α diverge: there the rule loses what was there to be learned."""
    data = made(-1.0)
    data.log_loss[:] = np.where(data.log_loss < 1, -1.0, 0.0)  # nothing to lose but 1
    assert (rate_rules.lost(data, "constant") <= 1).all()
    finite = rate_rules.lost(data, "constant")
    data.log_loss[:] = np.where(data.log_loss == 0, np.inf, data.log_loss)
    data.log_loss[:, :, 0, 0] = 0.0
    np.testing.assert_allclose(rate_rules.lost(data, "constant"), finite, atol=1e-12)


def test_what_is_beyond_the_grid_is_counted_and_has_the_loss_of_its_end():
    data = made(-0.5)
    assert (rate_rules.beyond(data, "constant") == 0).all()
    assert (rate_rules.beyond(data, "1/λmax[H_Signal]") > 0.2).all()
    assert np.isfinite(rate_rules.lost(data, "1/λmax[H_Signal]")).all()


@pytest.mark.parametrize(
    ("power", "verdicts"),
    [
        (-1.0, ("supported", "refuted", "supported", "refuted", "supported")),
        (-0.75, ("refuted", "refuted", "supported", "refuted", "supported")),
        (-0.5, ("refuted", "refuted", "inconclusive", "supported", "supported")),
        (0.0, ("refuted", "supported", "refuted", "refuted", "refuted")),
    ],
)
def test_X20_best_rate(power, verdicts):
    """The rule as stated, its control, its use, and the same of λ_c; a quarter of a power off is told apart."""
    (claim,) = best_rate.CLAIMS
    data = made(power)
    readings = (claim.evidence[0].plain, claim.evidence[0].control, *claim.readings)
    found = [decide(r.findings(PROBLEM, data)).verdict for r in readings if r]
    assert all(seen == said for seen, said in zip(found, verdicts, strict=True) if said != "inconclusive"), found


def test_point_is_read_from_the_grids():
    config = dataclasses.replace(TINY, grid_ranks=(RANK,))
    losses = (np.log(config.grid_rates) - np.log(0.1)) ** 2 * np.ones((len(config.grid_alphas), 1))
    first = xr.Dataset(
        {"by_both": (("rank", "seed", "grid_alpha", "grid_rate"), losses[None, None]), "eta_fft": 3.0},
        {"rank": [RANK], "seed": [0]},
    )
    found = rate_rules.measure(config, first, RANK, 0)
    np.testing.assert_allclose(found.best, 0.3, rtol=0.02)
    scalings = [alpha / RANK for alpha in config.grid_alphas]
    stated = rate_rules.sharpness(config.problem, 0, RANK, scalings, config.tolerance)
    for rule in RULES:
        np.testing.assert_allclose(found.sharpness.sel(rule=rule), stated[rule], rtol=1e-6)
    data = found.expand_dims(rank=[RANK], seed=[0])
    report = rate_rules.report(config, data)
    assert len(report.rows) == 4 * len(RULES)
    report.figures["rate_rules"]()
