"""Best points, power laws and their intervals on planted sweeps."""

import numpy as np
import pytest

from experiments.analysis.intervals import bootstrap
from experiments.analysis.sweeps import best_point, best_points, free_fit, half_octaves, root_fit

ALPHAS = half_octaves(-2, 12)
RANKS = (1, 2, 4, 8, 16, 32, 64)


def planted(slope: float, C: float, seeds: int = 5, noise: float = 0.02) -> np.ndarray:
    """(seed, rank, α) log-losses, parabolas in ln α with their lowest point at C·r^slope."""
    centre = np.log(C) + slope * np.log(RANKS)
    losses = 0.1 * (np.log(ALPHAS) - centre[:, None]) ** 2
    return losses + noise * np.random.default_rng(1).standard_normal((seeds, *losses.shape))


def fitted_slope(losses: np.ndarray) -> float:
    return free_fit(RANKS, np.array([b.x for b in best_points(ALPHAS, losses)])).slope


def fitted_constant(losses: np.ndarray) -> float:
    return root_fit(RANKS, np.array([b.x for b in best_points(ALPHAS, losses)])).prefactor


def test_best_point_is_the_vertex_of_a_parabola_in_log_space() -> None:
    losses = 3 + 0.4 * (np.log(ALPHAS) - np.log(11.0)) ** 2
    best = best_point(ALPHAS, losses)
    assert best.flag == ""
    assert best.x == pytest.approx(11.0, rel=1e-9)
    assert best.log_loss == np.min(losses)
    assert abs(ALPHAS[int(np.argmin(losses))] / 11.0 - 1) > 0.02  # the grid alone does not know it


@pytest.mark.parametrize("centre", [2.0**-3, 2.0**13])
def test_lowest_point_on_the_edge_is_flagged(centre: float) -> None:
    best = best_point(ALPHAS, (np.log(ALPHAS) - np.log(centre)) ** 2)
    assert best.flag == "edge"
    assert np.isnan(best.x)


def test_cliff_beside_the_best_point_does_not_deepen_it() -> None:
    losses = (np.log(ALPHAS) - np.log(64.0)) ** 2 / 10
    losses[17:] += 30.0
    best = best_point(ALPHAS, losses)
    assert best.log_loss == 0.0
    assert ALPHAS[15] < best.x <= ALPHAS[16]


def test_diverged_runs_are_data() -> None:
    losses = (np.log(ALPHAS) - np.log(64.0)) ** 2
    losses[13:] = np.inf  # from 2^4.5 on: the best finite point stands beside a diverged one
    assert best_point(ALPHAS, losses) == (ALPHAS[12], losses[12], "")
    assert best_point(ALPHAS, np.full(len(ALPHAS), np.inf)).flag == "diverged"


def test_planted_square_root_law_is_recovered() -> None:
    losses = planted(0.5, 20.0)
    slope, C = bootstrap(fitted_slope, losses), bootstrap(fitted_constant, losses)
    assert slope.low - 0.02 < 0.5 < slope.high + 0.02
    assert C.low * 0.95 < 20.0 < C.high * 1.05
    assert slope.high - slope.low < 0.2


def test_planted_linear_law_is_refuted() -> None:
    slope = bootstrap(fitted_slope, planted(1.0, 20.0))
    assert slope.low > 0.6
    assert slope.mean == pytest.approx(1.0, abs=0.1)


def test_edge_points_do_not_enter_the_fit() -> None:
    losses = planted(0.5, 2.0**9.9, noise=0.0)  # from r = 16 on, the best lies at the largest α or beyond
    best = best_points(ALPHAS, losses)
    assert [b.flag for b in best] == [""] * 4 + ["edge"] * 3
    assert fitted_slope(losses) == pytest.approx(0.5, abs=1e-6)
    clipped = np.array([b.x if not b.flag else ALPHAS[-1] for b in best])
    assert abs(free_fit(RANKS, clipped).slope - 0.5) > 1e-3  # what fitting them would have done


def test_bootstrap_interval_comes_from_the_seeds() -> None:
    alike = np.repeat(planted(0.5, 20.0, seeds=1), 5, axis=0)
    same, spread = bootstrap(fitted_slope, alike), bootstrap(fitted_slope, planted(0.5, 20.0, noise=0.3))
    assert same.low == pytest.approx(same.high, abs=1e-9)
    assert spread.high - spread.low > 0.01
