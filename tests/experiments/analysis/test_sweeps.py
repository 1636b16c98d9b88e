"""Best points, power laws and their intervals on planted sweeps."""

import math

import numpy as np
import pytest

from experiments.analysis.intervals import geometric_mean_of, mean_of
from experiments.analysis.sweeps import (
    best_of_others,
    best_point,
    best_points,
    free_fit,
    half_octaves,
    is_cliff,
    loss_at,
    root_fit,
)

ALPHAS = half_octaves(-2, 12)
RANKS = (1, 2, 4, 8, 16, 32, 64)


def planted(slope: float, C: float, seeds: int = 5, noise: float = 0.02) -> np.ndarray:
    """(seed, rank, α) log-losses, parabolas in ln α with their lowest point at C·r^slope."""
    centre = np.log(C) + slope * np.log(RANKS)
    losses = 0.1 * (np.log(ALPHAS) - centre[:, None]) ** 2
    return losses + noise * np.random.default_rng(1).standard_normal((seeds, *losses.shape))


def fitted_slopes(losses: np.ndarray) -> np.ndarray:
    """One slope for each seed."""
    return np.array([free_fit(RANKS, np.array([b.x for b in best_points(ALPHAS, x)])).slope for x in losses])


def fitted_constants(losses: np.ndarray) -> np.ndarray:
    return np.array([root_fit(RANKS, np.array([b.x for b in best_points(ALPHAS, x)])).prefactor for x in losses])


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
    slope, C = mean_of(fitted_slopes(losses)).at(), geometric_mean_of(fitted_constants(losses)).at()
    assert slope.low < 0.5 < slope.high
    assert C.low * 0.95 < 20.0 < C.high * 1.05
    assert slope.high - slope.low < 0.2


def test_planted_linear_law_is_refuted() -> None:
    slope = mean_of(fitted_slopes(planted(1.0, 20.0))).at()
    assert slope.low > 0.6
    assert slope.mean == pytest.approx(1.0, abs=0.1)


def test_edge_points_do_not_enter_the_fit() -> None:
    (losses,) = planted(0.5, 2.0**9.9, seeds=1, noise=0.0)  # from r = 16 on, the best lies at the largest α or beyond
    best = best_points(ALPHAS, losses)
    assert [b.flag for b in best] == [""] * 4 + ["edge"] * 3
    assert fitted_slopes(losses[None]) == pytest.approx(0.5, abs=1e-6)
    clipped = np.array([b.x if not b.flag else ALPHAS[-1] for b in best])
    assert abs(free_fit(RANKS, clipped).slope - 0.5) > 1e-3  # what fitting them would have done


def test_one_seeds_cliff_does_not_move_the_optima_of_the_others() -> None:
    """The optimum of the mean loss lies below those of all seeds: a cliff of one of them decides it."""
    losses = 0.1 * (np.log(ALPHAS) - np.log([[16.0], [32.0], [64.0]])) ** 2
    losses[0, np.array(ALPHAS) > 20] += 30.0
    assert best_point(ALPHAS, losses.mean(0)).x < 20.1
    assert np.median([b.x for b in best_points(ALPHAS, losses)]) == pytest.approx(32.0)


RATES = np.array(half_octaves(-10, 0))


@pytest.mark.parametrize(("kept", "cliff"), [(0.45, True), (0.55, False)])
def test_a_cliff_is_where_doubling_the_rate_undoes_half(kept: float, cliff: bool) -> None:
    """ℓ = e⁻⁴ at 2⁻⁵, from e⁰ at the smallest rate; at twice that rate so much of the gain is kept."""
    log_loss = np.interp(np.log2(RATES), [-10, -5, -4, 0], [0.0, -4.0, -4.0 * kept, 9.0])
    assert is_cliff(RATES, log_loss, 2.0**-5) == cliff


def test_a_rate_beyond_which_nothing_ran_or_all_diverged_is_a_cliff() -> None:
    falling = -np.log(RATES / RATES[0])
    assert is_cliff(RATES, falling, RATES[-1])
    assert is_cliff(RATES, np.where(RATES > 2.0**-5, np.inf, falling), 2.0**-5)
    assert not is_cliff(RATES, falling, 2.0**-5)


def test_loss_is_interpolated_within_the_sweep_alone():
    x, losses = (1.0, 4.0, 16.0), np.array([2.0, 1.0, np.inf])
    assert loss_at(x, losses, 2.0) == pytest.approx(1.5)
    assert loss_at(x, losses, 4.0) == pytest.approx(1.0)
    assert loss_at(x, losses, 8.0) == math.inf
    assert math.isnan(loss_at(x, losses, 0.9))
    assert math.isnan(loss_at(x, losses, 17.0))


def test_what_the_others_choose_is_not_flattered_by_noise() -> None:
    """Among 20 points that are all equally good, the best by one's own choice seems 1.87 σ better; by the others' none.

    1.87 is the mean of the largest of 20 normal numbers; 2000 sweeps tell the mean to 1/√2000 of their spread, and six
    times that is missed once in 10⁸.
    """
    losses = np.random.default_rng(0).standard_normal((400, 5, 20))
    others = np.array([best_of_others(sweeps) for sweeps in losses])
    assert abs(others.mean()) < 6 / 2000**0.5
    own = losses.min(axis=2)
    assert abs(own.mean() + 1.867) < 6 / 2000**0.5


def test_what_the_others_choose_where_runs_diverge_or_there_are_none() -> None:
    assert best_of_others(np.array([[3.0, 1.0, np.inf]])).tolist() == [1.0]
    lost = np.array([[np.inf, 2.0], [0.0, 3.0], [0.0, 4.0]])
    assert best_of_others(lost).tolist() == [np.inf, 3.0, 4.0]
