"""η_FFT at tiny size: it lies at the lowest loss, is flagged on the edge, and is the same definition everywhere."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import optax
import pytest
import xarray as xr

import signal_drift as sd
from experiments.lab.errors import OptionError
from experiments.lab.runner import results
from experiments.problems import PROBLEMS
from experiments.tuning.rates import EXPERIMENT, report
from experiments.tuning.runs import fft_rate, full_runs

TINY = replace(EXPERIMENT.at(PROBLEMS["teacher64"], quick=True), steps=8, dtype="float64")


def test_eta_fft_lies_at_the_lowest_loss(tmp_path: Path) -> None:
    losses = results(EXPERIMENT, TINY, tmp_path).log_loss
    rates, mean = np.array(TINY.fft_rates), losses.mean("seed").values
    step, lowest = rates[1] / rates[0], rates[np.argmin(mean)]
    assert lowest / step < fft_rate(losses) < lowest * step
    edge = losses.isel(rate=slice(0, 4))  # all far too small
    assert fft_rate(edge) == float(f"{rates[3]:.3g}")
    found = report(replace(TINY, fft_rates=TINY.fft_rates[:4]), edge.to_dataset(name="log_loss"))
    assert found.rows[0][2:] == ("edge", "–")
    assert "on the edge of the sweep" in found.sentences[0]


def test_losses_are_those_of_single_runs() -> None:
    swept = full_runs(TINY, 1, [1e-3, 1e-2]).log_loss
    problem = TINY.problem
    base, training = problem.draw(1).base, problem.training(1, 8)
    single = [sd.train(training.loss, base, None, 1.0, optax.adam(rate), 8).loss[-1] for rate in (1e-3, 1e-2)]
    np.testing.assert_allclose(swept, np.log(single), rtol=1e-9)


def test_planted_optimum_is_recovered() -> None:
    config = EXPERIMENT.at(PROBLEMS["digits"])
    losses = (np.log(config.fft_rates) - np.log(1e-3)) ** 2
    data = xr.Dataset(
        {"log_loss": (("seed", "rate"), np.tile(losses, (5, 1)))}, {"seed": range(5), "rate": list(config.fft_rates)}
    )
    row = report(config, data).rows[0]
    assert float(row.measured) == pytest.approx(1e-3, rel=1e-3)
    assert fft_rate(data.log_loss) == pytest.approx(1e-3, rel=1e-9)


def test_a_problem_without_a_sweep_is_refused() -> None:
    assert EXPERIMENT.refuses(PROBLEMS["mlp"])
    with pytest.raises(OptionError, match="problem: 'mlp' has no sweep"):
        EXPERIMENT.at(PROBLEMS["mlp"])


@pytest.mark.parametrize("change", [{"fft_rates": (1e-3, 1e-2)}, {"fft_rates": (1e-1, 1e-2, 1e-3)}, {"steps": 0}])
def test_bad_options_are_named(change: dict) -> None:
    with pytest.raises(OptionError, match=next(iter(change))):
        replace(TINY, **change)
