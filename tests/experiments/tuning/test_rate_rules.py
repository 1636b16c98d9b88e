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


def made(power: float, seeds: int = 6) -> xr.Dataset:
    """Sweeps whose η* is α^power times a factor of the seed, on a parabola in ln η; every rule but one is 1/α."""
    alphas, rates, ranks = np.array(PROBLEM.grid_alphas), np.array(PROBLEM.grid_rates), list(PROBLEM.path_ranks)
    factor = np.linspace(0.8, 1.25, seeds)[:, None, None]
    best = factor * np.broadcast_to((alphas / alphas[3]) ** power, (seeds, len(ranks), len(alphas)))
    losses = np.minimum((np.log(rates) - np.log(best)[..., None]) ** 2 / 100 - 1, 0)
    shape, at = ("seed", "rank", "alpha"), (len(RULES), seeds, len(ranks), len(alphas))
    sharpness = np.broadcast_to(alphas, at).copy()
    sharpness[list(RULES).index("constant")] = 1
    return xr.Dataset(
        {
            "best": (shape, 2 * best),
            "sharpness": (("rule", *shape), sharpness),
            "log_loss": ((*shape, "multiple"), losses),
            "eta_fft": ("seed", np.full(seeds, 2.0)),
        },
        coords={"rule": list(RULES), "rank": ranks, "alpha": alphas, "multiple": rates, "seed": range(seeds)},
    )


@pytest.mark.parametrize("power", [-1.0, -0.5])
def test_exponent_and_correlation_are_those_put_in(power):
    data = made(power)
    np.testing.assert_allclose(rate_rules.exponent(data, ADAM), power + 1, atol=1e-12)
    np.testing.assert_allclose(rate_rules.exponent(data, "constant"), power, atol=1e-12)
    np.testing.assert_allclose(rate_rules.correlation(data, ADAM), 1.0)
    assert np.isnan(rate_rules.correlation(data, "constant")).all()


def test_a_true_rule_loses_what_the_grid_is_coarse_by_and_a_constant_more():
    """With the parabola (ln η/η*)²/100 a wrong constant loses the mean square of ln η* about its mean."""
    data = made(-0.5)
    wrong = np.log(np.array(PROBLEM.grid_alphas))
    expected = np.mean((wrong - wrong.mean()) ** 2) / 400
    step = np.log(PROBLEM.grid_rates[1] / PROBLEM.grid_rates[0])
    np.testing.assert_allclose(rate_rules.lost(data, "constant"), expected, atol=step**2 / 100)
    np.testing.assert_allclose(rate_rules.lost(data, ADAM), expected, atol=step**2 / 100)
    assert np.all(rate_rules.lost(made(-1.0), ADAM) < step**2 / 400 + 1e-12)


def test_beyond_the_grid_the_loss_is_that_of_its_end_and_a_run_that_diverged_learned_nothing():
    data = made(-0.5)
    steep = data.sharpness.sel(rule=ADAM) ** 9
    data.sharpness.loc[{"rule": ADAM}] = steep
    assert np.isfinite(rate_rules.lost(data, ADAM)).all()
    data = made(-1.0)
    data.log_loss[..., -3:] = np.inf
    assert (rate_rules.lost(data, "constant") <= 1).all()


@pytest.mark.parametrize(
    ("power", "plain", "control", "use"),
    [
        (-1.0, "supported", "refuted", "supported"),
        (0.0, "refuted", "supported", "refuted"),
        (-0.4, "refuted", "refuted", "refuted"),
    ],
)
def test_X20_best_rate(power, plain, control, use):
    (claim,) = best_rate.CLAIMS
    data = made(power)
    readings = (claim.evidence[0].plain, claim.evidence[0].control, claim.readings[0])
    assert [decide(r.findings(PROBLEM, data)).verdict for r in readings if r] == [plain, control, use]


def test_point_is_read_from_the_grids():
    config = dataclasses.replace(TINY, grid_ranks=(RANK,))
    losses = (np.log(config.grid_rates) - np.log(0.1)) ** 2 * np.ones((len(config.grid_alphas), 1))
    first = xr.Dataset(
        {"by_both": (("rank", "seed", "grid_alpha", "grid_rate"), losses[None, None]), "eta_fft": 3.0},
        {"rank": [RANK], "seed": [0]},
    )
    found = rate_rules.measure(config, first, RANK, 0)
    np.testing.assert_allclose(found.best, 0.3, rtol=0.02)
    data = found.expand_dims(rank=[RANK], seed=[0])
    report = rate_rules.report(config, data)
    assert len(report.rows) == 3 * len(RULES)
    report.figures["rate_rules"]()
