"""The definitions of F2 on trajectories made by hand, and the experiment at tiny size."""

from dataclasses import replace

import numpy as np
import pytest

from experiments.analysis.divergence import classify, counted, jitter, largest_rise, per_run
from experiments.dynamics import readings
from experiments.dynamics import trajectories as dynamics
from experiments.dynamics.eta_against_alpha import FAMILIES, STATED, slope
from experiments.lab.runner import results
from experiments.problems import PROBLEMS

T = np.arange(101)
DESCENT = np.exp(-T / 20)
QUICK = {e: e.EXPERIMENT.at(PROBLEMS["mlp"], quick=True) for e in (dynamics, readings)}


@pytest.mark.parametrize(
    ("loss", "word"),
    [
        (DESCENT, "stable"),
        (DESCENT * (1 + 0.03 * np.cos(np.pi * T)), "stable"),  # climbs 6% at most
        (DESCENT * (1 + 0.10 * np.cos(np.pi * T)), "oscillates"),  # climbs 16%
        (np.where(T == 50, 1e6, DESCENT), "oscillates"),  # one spike, recovered from
        (np.where(T > 80, 1.5, DESCENT), "diverges"),
        (np.where(T == 100, 1.5, DESCENT), "oscillates"),  # the last value alone does not decide
        (np.where(T > 80, np.nan, DESCENT), "diverges"),
        (np.where(T == 3, np.inf, DESCENT), "diverges"),
    ],
)
def test_the_word_for_a_trajectory(loss, word):
    assert classify(loss) == word


def test_largest_rise_is_one_for_a_descent_and_the_height_of_a_spike_otherwise():
    assert largest_rise(DESCENT) == 1
    assert largest_rise(np.array([4.0, 2.0, 1.0, 3.0, 0.5])) == 3


def test_jitter_sees_fluctuation_and_not_level():
    """With log n_t = −t/20 + δ(−1)^t each step departs from its neighbours' mean by 2δ."""
    assert jitter(DESCENT) < 1e-12
    assert jitter(np.append(0.0, 1e9 * DESCENT)) < 1e-12
    assert jitter(DESCENT * np.exp(0.1 * (-1.0) ** T)) == pytest.approx(0.2, rel=1e-12)


@pytest.fixture(scope="module")
def data(stored):
    return results(dynamics.EXPERIMENT, QUICK[dynamics], stored)


def test_all_runs_start_from_the_same_weights(data):
    start = data.loss.isel(time=0)
    np.testing.assert_array_equal(start, start.sel(run="LoRA").broadcast_like(start))
    assert float(data.loss.isel(time=-1).std("run").min()) > 0


def test_drift_is_absent_from_full_fine_tuning_and_from_the_first_step_only(data):
    assert float(data.drift.sel(run="FFT").max()) == 0
    assert float(data.drift.isel(step=0).max()) == 0
    assert float(data.drift.drop_sel(run="FFT").isel(step=1).min()) > 0


@pytest.mark.parametrize("name", ["mlp", "transformer", pytest.param("minilm", marks=pytest.mark.slow)])
def test_at_the_second_step_the_ratio_falls_with_eta_and_not_with_alpha(name, stored):
    """P4: exponents −1 and 0. Each prediction must refute the other family's measurement; the report has every pair."""
    config = dynamics.EXPERIMENT.at(PROBLEMS[name], quick=True)
    data = results(dynamics.EXPERIMENT, config, stored)
    second = (data.signal / data.drift).drop_sel(run="FFT").isel(step=1)
    eta, alpha = (slope(config, second, family).value for family in FAMILIES)
    assert abs(eta + 1) < 0.15 < abs(alpha + 1)
    assert abs(alpha) < 0.15 < abs(eta)
    told = [row.quantity for row in dynamics.report(config, data).rows]
    assert any("128·α₀ over 64·η₀" in quantity for quantity in told)


def test_the_report_follows_the_store(data):
    """An exploding trajectory put in the place of a measured one changes the word in the report."""
    config = QUICK[dynamics]
    exploding = data.copy(deep=True)
    exploding.loss.loc[{"run": "128·η₀"}] = np.exp(np.arange(config.steps + 1) / 5.0)
    for stored, word in ((data, counted(per_run(classify, data.loss).sel(run="128·η₀"))), (exploding, "diverges 2/2")):
        report = dynamics.report(config, stored)
        (row,) = [row for row in report.rows if "128·η₀: behaviour" in row.quantity]
        assert word in row.measured
        assert any(f"128·η₀ is reported to be: diverges; measured: {word}" in line for line in report.sentences)
    assert "diverges" not in counted(per_run(classify, data.loss).sel(run="128·η₀"))


def test_a_full_batch_is_the_plain_reading_and_a_part_of_it_is_not(monkeypatch):
    config = replace(QUICK[readings], seeds=1, steps=10)
    plain = readings.measure(config, 0, "plain").loss
    for batch, same in ((config.problem.samples, True), (config.problem.samples // 2, False)):
        monkeypatch.setitem(readings.VARIANTS, "minibatch", readings.Variant(run={"batch": batch}))
        other = readings.measure(config, 0, "minibatch").loss
        assert np.allclose(plain, other, rtol=1e-4) is same  # float32, in another order


def test_rules_of_the_scaling():
    """α/r, α and rsLoRA's α/√r at α = 8, r = 4."""
    found = [replace(QUICK[readings].problem, scaling_rule=rule).scaling(8.0, 4) for rule in readings.RULES.values()]
    assert dict(zip(readings.RULES, found, strict=True)) == {"s = α/r": 2.0, "s = α/√r": 4.0, "s = α": 8.0}


def test_readings_are_judged_by_all_three_runs(stored):
    data = results(readings.EXPERIMENT, QUICK[readings], stored)
    assert len(readings.report(QUICK[readings], data).rows) == len(readings.RULES) * len(readings.VARIANTS)
    names = per_run(classify, data.loss)
    assert readings.nearest(names)[0] < len(readings.RUNS)  # nothing diverges at this size
    for name, word in STATED.items():
        if name in readings.RUNS:
            names.loc[{"rule": "s = α", "variant": "summed", "run": name}] = word
    assert readings.nearest(names) == (3, ["s = α, squared error summed"])
