"""The crossover against dense matrices, the rules against simulation, and what is read off the sweeps."""

import dataclasses
import math

import numpy as np
import pytest
import xarray as xr

import signal_drift as sd
from experiments.problems import PROBLEMS
from experiments.tuning import crossover
from experiments.tuning.crossover import RULES

TINY = crossover.EXPERIMENT.at(PROBLEMS["teacher64"], quick=True)
RANKS, SEEDS = [1, 2, 4, 8], [0, 1, 2]


def test_both_sides_are_those_of_the_dense_matrices():
    drift, signal = crossover.sides(TINY.problem, 0, 2, 1e-6)
    drawn, theta = TINY.problem.draw(0), TINY.problem.adapters(0, 2)
    parts = sd.decompose(drawn.loss, drawn.base, theta, 1.0)
    ends = [np.linalg.eigvalsh(np.asarray(op.dense()))[-1] for op in (parts.drift, parts.signal)]
    np.testing.assert_allclose([drift, signal], ends, rtol=1e-5)


@pytest.mark.parametrize(("rank", "d_in"), [(1, 6), (6, 6), (12, 4)])
def test_the_matching_alpha_takes_a_first_step_as_long_as_that_of_full_fine_tuning(rank, d_in):
    """Sign descent on 4000 draws of A, the mean square within four standard errors; without 2/π it is not (X8)."""
    draws, d_out, sigma, count = np.random.default_rng(0), 5, 0.7, 4000
    G = draws.standard_normal((d_out, d_in))
    s = crossover.matching_alpha(rank, sigma, d_in) / rank
    A = sigma * draws.standard_normal((count, rank, d_in))
    steps = s * np.sign(np.einsum("oi,nri->nor", G, A)) @ A
    ratio = np.sum(steps**2, axis=(1, 2)) / G.size
    error = ratio.std(ddof=1) / math.sqrt(count)
    assert abs(ratio.mean() - 1) < 4 * error
    wrong = (1 + (rank - 1) / d_in) / (1 + 2 * (rank - 1) / (math.pi * d_in))
    assert rank == 1 or abs(ratio.mean() - wrong) > 8 * error, "the near control"


def test_rules_are_those_of_the_paper():
    problem, rank = TINY.problem, 4
    alphas = crossover.ruled(problem, rank)
    (sigma,) = set(problem.sigma_a().values())
    assert alphas["V2"] == pytest.approx(rank**0.5 / sigma)
    assert alphas["V1"] == 512
    assert alphas["α = r"] == 4
    assert alphas["first step"] < alphas["V2"]


def made(power, lost=0.5):
    """Data in which α* of every seed is the rule's times r^power, but for the seed's own factor."""
    shape, alpha = ("rule", "rank", "seed"), np.ones((len(RULES), len(RANKS), len(SEEDS)))
    alpha *= 3 * np.array(RANKS)[:, None]
    best = alpha[0] * np.array(RANKS)[:, None] ** power * np.array([1.0, 2.0, 4.0])
    return xr.Dataset(
        {"alpha": (shape, alpha), "best": (("rank", "seed"), best), "lost": (shape, np.full_like(alpha, lost))},
        coords={"rule": list(RULES), "rank": RANKS, "seed": SEEDS},
    )


@pytest.mark.parametrize("power", [0.0, 0.5, -2.0])
def test_exponent_and_correlation_are_those_put_in(power):
    data = made(power)
    for rule in RULES:
        np.testing.assert_allclose(crossover.exponent(data, rule), power, atol=1e-12)
        np.testing.assert_allclose(crossover.correlation(data, rule), -1.0 if power < -1 else 1.0, atol=1e-12)
        np.testing.assert_allclose(crossover.lost(data, rule), 0.5, atol=1e-15)
    assert crossover.distance(made(0.0), "V2").value == pytest.approx(2.0)


def test_ranks_whose_best_is_on_the_edge_are_left_out():
    data = made(0.5)
    data.best.loc[{"rank": 8, "seed": 0}] = np.nan
    np.testing.assert_allclose(crossover.exponent(data, "V2"), 0.5, atol=1e-12)
    data.best.loc[{"rank": [1, 2], "seed": 0}] = np.nan
    assert np.isnan(crossover.exponent(data, "V2")).tolist() == [True, False, False]
    assert np.isnan(crossover.correlation(data, "V2")).tolist() == [True, False, False]


def test_point_is_read_from_the_sweeps():
    """A parabola with its best at 8: every rule loses what lies between."""
    config = dataclasses.replace(TINY, alphas=tuple(2.0**k for k in range(-2, 13)))
    losses = (np.log(config.alphas) - math.log(8.0)) ** 2
    first = xr.Dataset({"by_alpha": (("rank", "seed", "alpha"), losses[None, None])}, {"rank": [4], "seed": [0]})
    found = crossover.measure(config, first, 4, 0)
    assert float(found.best) == pytest.approx(8.0)
    assert float(found.lost.sel(rule="α = r")) == pytest.approx(math.log(2) ** 2)
    assert float(found.alpha.sel(rule="α_c")) == pytest.approx(4 * float(found.drift / found.signal))
    data = found.expand_dims(rank=[4], seed=[0]).reindex(rank=list(config.ranks))
    report = crossover.report(config, data)
    assert len(report.rows) == 4 * len(RULES)
    report.figures["crossover"]()
