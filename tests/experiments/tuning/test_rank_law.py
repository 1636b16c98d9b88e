"""The rank law at tiny size: one compilation for all ranks, diverged runs as data, planted laws found and refuted."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest
import xarray as xr
from jax.tree_util import Partial

import signal_drift as sd
from experiments.lab.errors import OptionError
from experiments.lab.experiment import Row, table
from experiments.lab.runner import results
from experiments.problems import PROBLEMS
from experiments.tuning.rank_law import EXPERIMENT, report
from experiments.tuning.rank_sweeps import Config, coefficients_over_rate
from experiments.tuning.runs import final_losses, padded_adapters, sweep_of, swept_losses, swept_losses_and_purity

TINY = replace(
    EXPERIMENT.at(PROBLEMS["teacher64"], quick=True),
    steps=8,
    ranks=(1, 3),
    grid_ranks=(3,),
    alphas=(1.0, 16.0, 64.0),
    starts=(16.0, 1.0),
    dtype="float64",
)


def test_ranks_seeds_and_runs_share_one_compilation() -> None:
    traced: list[int] = []

    def counted(loss: Partial, weights: Any) -> jax.Array:
        traced.append(1)
        return loss(weights)

    def run(rank: int, padded: int, seed: int, count: int) -> int:
        sweep = sweep_of(TINY, seed, rank, padded, [(float(rank), 1e-3)] * count, 4)
        loss = Partial(counted, sweep.training.loss)
        ready = sweep._replace(training=sweep.training._replace(loss=loss, fit=loss))
        before = len(traced)
        final_losses(ready, steps=5).block_until_ready()
        return len(traced) - before

    assert run(1, 8, 0, 4) > 0
    assert [run(rank, 8, seed, count) for rank, seed, count in [(2, 0, 4), (4, 1, 3), (8, 2, 1)]] == [0, 0, 0]
    assert run(4, 4, 0, 4) > 0  # without the common padding a rank compiles anew


def test_swept_losses_are_those_of_single_unpadded_runs() -> None:
    points = [(1.0, 1e-2), (16.0, 1e-2), (4.0, 0.3)]
    sweep = sweep_of(TINY, 1, 3, 8, points, 7)
    swept, (again, pure) = swept_losses(TINY, sweep), swept_losses_and_purity(TINY, sweep)
    problem = TINY.problem
    base, loss, start = problem.draw(1).base, problem.training(1, 8).loss, padded_adapters(problem, 1, 3, 3, "float64")
    single = [sd.train(loss, base, start, alpha / 3, optax.adam(eta), TINY.steps) for alpha, eta in points]
    np.testing.assert_allclose(swept, np.log([run.loss[-1] for run in single]), rtol=1e-9)
    np.testing.assert_allclose(again, swept, rtol=1e-9)
    ratios = [np.log(np.asarray(run.signal_norm / run.drift_norm)[1:]).mean() for run in single]
    np.testing.assert_allclose(np.log(pure), ratios, rtol=1e-6)
    wrong = [sd.train(loss, base, start, alpha, optax.adam(eta), TINY.steps).loss[-1] for alpha, eta in points]
    assert not np.allclose(swept, np.log(wrong), rtol=1e-2)  # α in place of α/r


def test_diverged_run_is_data() -> None:
    config = replace(TINY, dtype="float32")
    losses, pure = swept_losses_and_purity(config, sweep_of(config, 0, 1, 3, [(16.0, 1e-3), (4096.0, 1e30)], 2))
    assert np.isfinite(losses[0])
    assert np.isfinite(pure[0])
    assert losses[1] == np.inf
    assert np.isnan(pure[1])


def planted(config: Config, slope: float, C: float, rate_slope: float = -0.5) -> xr.Dataset:
    """A store in which α*(r) = C·r^slope, η has its best multiplier at 2, and η* = 10 η_FFT·(α/α₀)^rate_slope.

    The loss at the best η falls with α.
    """
    ranks, start = np.array(config.ranks), config.starts[-1]
    noise = np.random.default_rng(0).standard_normal((config.seeds, len(ranks), len(config.alphas)))
    by_alpha = (np.log(config.alphas) - np.log(C * ranks**slope)[:, None]) ** 2 / 10 + 0.003 * noise
    multipliers = np.stack([config.multipliers(x) for x in config.starts])
    by_rate = (np.log(multipliers) - np.log(2.0)) ** 2 / 10 + 1 + 0.003 * noise[:, :, None]
    alphas, rates = np.log(config.grid_alphas), np.log(config.grid_rates)
    valley = np.log(10.0) + rate_slope * (alphas - np.log(start))
    by_both = 0.1 * (rates - valley[:, None]) ** 2 - 0.2 * alphas[:, None]
    full = np.log(config.fft_rates) - np.log(1e-3)
    dims = ("seed", "rank")
    shape = (config.seeds, len(ranks))
    return xr.Dataset(
        {
            "by_alpha": ((*dims, "alpha"), by_alpha),
            "by_rate": ((*dims, "start", "alpha"), by_rate),
            "by_both": ((*dims, "grid_alpha", "grid_rate"), np.broadcast_to(by_both, (*shape, *by_both.shape))),
            "purity_by_alpha": ((*dims, "alpha"), np.full(by_alpha.shape, 50.0)),
            "purity_by_rate": ((*dims, "start", "alpha"), np.broadcast_to(50.0 / multipliers, by_rate.shape)),
            "eta_fft": 1e-3,
            "fft": ((*dims, "fft_rate"), np.broadcast_to(full**2, (*shape, len(full)))),
        },
        coords={
            "seed": range(config.seeds),
            "rank": ranks,
            "alpha": list(config.alphas),
            "start": list(config.starts),
            "grid_alpha": list(config.grid_alphas),
            "grid_rate": list(config.grid_rates),
        },
    )


FULL = replace(EXPERIMENT.at(PROBLEMS["teacher64"]), grid_ranks=(64,))


def row(rows: list[Row], start: str) -> Row:
    (found,) = [r for r in rows if r.quantity.startswith(start)]
    return found


def bounds(found: Row) -> tuple[float, float]:
    low, high = found.interval.strip("[]").split(", ")
    return float(low), float(high)


def test_report_recovers_a_planted_law() -> None:
    rows = report(FULL, planted(FULL, 0.5, 16.0)).rows
    low, high = bounds(row(rows, "F1c  free exponent"))
    assert 0.45 < low < high < 0.55
    assert float(row(rows, "F1c  C of").measured) == pytest.approx(16.0, rel=0.03)
    assert float(row(rows, "F1c  the same over 1/σ_A").measured) == pytest.approx(2.0, rel=0.03)
    assert float(row(rows, "F1b  their ratio, from α₀ = 16 ").measured) == pytest.approx(4.0, rel=0.05)
    assert float(row(rows, "F1b  their ratio, from α₀ = 1.6 ").measured) == pytest.approx(40.0, rel=0.05)
    assert float(row(rows, "F1b  ln of the lowest loss along η over that along α, from α₀ = 16 ").measured) == (
        pytest.approx(1.0, abs=0.1)
    )
    assert float(row(rows, "F1a  exponent of η*").measured) == pytest.approx(-0.5, abs=1e-6)
    falls = [float(r.measured) for r in rows if r.quantity.startswith("F1a  change")]
    off_grid = 0.1 * (np.log(10.0) / 4) ** 2  # the lowest loss measured is half a step of √10 from the valley, at most
    np.testing.assert_allclose(falls, -0.2 * np.log(4.0), atol=off_grid)
    assert len(falls) == len(FULL.grid_alphas) - 1
    assert float(row(rows, "F1a  η*/η_FFT at α = 1.6 ").measured) == pytest.approx(10.0, rel=1e-3)
    pure = [float(r.measured) for r in rows if r.quantity.startswith("F2c") and "from α₀ = 16 " in r.quantity]
    np.testing.assert_allclose(pure, [4.0, 16.0], rtol=1e-3)


def test_coefficient_falls_with_the_rate_where_the_best_rate_falls_with_alpha() -> None:
    """η* ∝ α^(−½) is α* ∝ η^(−2): from one η of the grid to the next, √10 times it, C falls to a tenth."""
    found = coefficients_over_rate(FULL, planted(FULL, 0.5, 16.0))
    values = np.array([C.value for C in found.values()])
    assert len(values) > 1
    np.testing.assert_allclose(values[1:] / values[:-1], 0.1, rtol=0.3)


def test_report_refutes_other_laws() -> None:
    rows = report(FULL, planted(FULL, 1.0, 16.0, rate_slope=0.2)).rows
    assert bounds(row(rows, "F1c  free exponent"))[0] > 0.9
    assert bounds(row(rows, "F1a  exponent of η*"))[0] > 0.1


def test_best_points_on_the_edge_are_flagged() -> None:
    found = report(FULL, planted(FULL, 0.5, 2.0**10.5))
    assert "64: on the edge" in found.sentences[0]
    none = report(FULL, planted(FULL, 0.5, 2.0**14))
    assert row(none.rows, "F1c  free exponent")[2:] == ("on the edge", "–")
    assert row(none.rows, "F1b  their ratio, from α₀ = 16 ")[2:] == ("on the edge", "–")


def test_tiny_sweep_is_stored_and_reported(tmp_path: Path) -> None:
    data = results(EXPERIMENT, TINY, tmp_path)
    assert data.by_alpha.dims == ("rank", "seed", "alpha")
    assert np.all(np.isnan(data.by_both.sel(rank=1)))
    assert np.all(np.isnan(data.purity_by_alpha.sel(rank=1)))
    assert np.all(np.isfinite(data.by_alpha))
    for start in TINY.starts:  # where both paths start they are one run
        here = data.sel(rank=3, alpha=start)
        assert np.all(here.purity_by_alpha == here.purity_by_rate.sel(start=start))
        assert np.all(here.by_alpha == here.by_rate.sel(start=start))
    found = report(TINY, data)
    assert set(found.figures) == set(EXPERIMENT.captions)
    assert all(line.count("|") == 5 for line in table(found.rows).splitlines())
    assert data.attrs["training_dtype"] == "float64"


def test_one_rank_without_a_grid_says_what_was_not_asked(tmp_path: Path) -> None:
    """MiniLM's tuning has this form."""
    config = replace(TINY, ranks=(3,), grid_alphas=())
    found = report(config, results(EXPERIMENT, config, tmp_path))
    assert set(found.figures) == {"rank_law", "scaling_paths", "path_purity"}
    assert {row.quantity[:3] for row in found.rows} == {"F1b", "F2c"}
    assert any("one rank gives no exponent" in sentence for sentence in found.sentences)
    assert "the (α, η) grid was not run" in found.sentences[-1]
    for draw in found.figures.values():
        draw()


def test_more_seeds_are_more_points_and_the_rate_stays_that_of_the_first(tmp_path: Path) -> None:
    few = replace(TINY, ranks=(3,), grid_alphas=())
    more = EXPERIMENT.staged(few)[1]
    assert more.seeds == 2 * few.seeds
    first = results(EXPERIMENT, few, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("**/*.nc")}
    second = results(EXPERIMENT, more, tmp_path)
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert second.sizes["seed"] == more.seeds
    assert np.all(second.eta_fft == first.eta_fft.values.flat[0])


@pytest.mark.parametrize("change", [{"ranks": (0,)}, {"ranks": (4, 1)}, {"alphas": ()}, {"grid_alphas": (-1.0,)}])
def test_bad_options_are_named(change: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(change))):
        replace(TINY, **change)
