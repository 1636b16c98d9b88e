"""Find the best points of swept losses by interpolation in log space, and fit power laws to them."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float


class Best(NamedTuple):
    """Hold x* by interpolation and the lowest measured ln ℓ of a sweep.

    x* is NaN and flagged "edge" if the lowest point is an end of the grid, "diverged" if no run was finite.
    """

    x: float
    log_loss: float
    flag: Literal["", "edge", "diverged"] = ""


def half_octaves(low: float, high: float) -> tuple[float, ...]:
    """Return 2^low, 2^(low+½), …, 2^high."""
    return tuple(2.0 ** (k / 2) for k in range(round(2 * low), round(2 * high) + 1))


def best_point(x: Sequence[float] | np.ndarray, log_loss: Float[np.ndarray, "k"]) -> Best:
    """Return the vertex of the parabola in (ln x, ln ℓ) through the lowest point and its two neighbours.

    A lowest point at either end of the grid says only that the best lies there or beyond: it is flagged and has
    no x. If a neighbour diverged the lowest point itself is returned: the best lies within one step of the grid.
    The loss is the lowest one measured: beside the cliff of divergence a parabola's vertex lies far below any run.
    """
    losses = np.where(np.isnan(log_loss), np.inf, log_loss)
    i = int(np.argmin(losses))
    if not np.isfinite(losses[i]):
        return Best(np.nan, np.inf, "diverged")
    if i in (0, len(losses) - 1):
        return Best(np.nan, float(losses[i]), "edge")
    if not np.all(np.isfinite(losses[i - 1 : i + 2])):
        return Best(float(x[i]), float(losses[i]))
    u, (a, b, c) = np.log(np.asarray(x[i - 1 : i + 2], float)), losses[i - 1 : i + 2]
    left, right = (b - a) / (u[1] - u[0]), (c - b) / (u[2] - u[1])
    curvature = (right - left) / (u[2] - u[0])
    if curvature <= 0:  # three equal losses
        return Best(float(x[i]), float(b))
    vertex = (u[0] + u[1]) / 2 - left / (2 * curvature)
    return Best(float(np.exp(vertex)), float(b))


def best_points(x: Sequence[float] | np.ndarray, losses: Float[np.ndarray, "n k"]) -> list[Best]:
    """Return the best point of each of n sweeps of one seed.

    Optima are found seed by seed: that of the mean loss may lie below those of all seeds, where one seed's cliff
    decides it.
    """
    return [best_point(x, row) for row in losses]


def best_of_others(losses: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n"]:
    """Return what each of n sweeps has where the mean of all others is lowest: no sweep is judged by its own choice.

    A sweep without others chooses for itself. A loss that is not finite is the worst.

    >>> best_of_others(np.array([[1.0, 2.0], [3.0, 1.0], [0.0, 2.0]]))
    array([2., 3., 2.])
    """
    worst = np.where(np.isnan(losses), np.inf, losses)
    others = [np.delete(worst, i, axis=0) if len(worst) > 1 else worst for i in range(len(worst))]
    return np.array([losses[i, np.argmin(rest.mean(axis=0))] for i, rest in enumerate(others)])


def valley(x: Sequence[float] | np.ndarray, losses: Float[np.ndarray, "n k"]) -> tuple[np.ndarray, np.ndarray]:
    """Return x* and the lowest ln ℓ of each of n sweeps over x; NaN where the best x is on the edge."""
    best = best_points(x, losses)
    return np.array([b.x for b in best]), np.array([np.nan if b.flag else b.log_loss for b in best])


def loss_at(x: Sequence[float] | np.ndarray, log_loss: Float[np.ndarray, "k"], at: float) -> float:
    """Interpolate ln ℓ of a sweep in ln x: infinite beside a run that diverged, NaN outside of the sweep.

    >>> loss_at((1.0, 4.0), np.array([2.0, 1.0]), 2.0)
    1.5
    """
    if not x[0] <= at <= x[-1]:
        return np.nan
    losses = np.where(np.isnan(log_loss), np.inf, log_loss)
    u, here = np.log(x), np.log(at)
    k = min(int(np.searchsorted(u, here, "right")), len(u) - 1)
    weight = (here - u[k - 1]) / (u[k] - u[k - 1])
    low, high = losses[k - 1], losses[k]
    if weight in {0.0, 1.0}:
        return float(high if weight else low)
    return float(low + weight * (high - low)) if np.isfinite([low, high]).all() else np.inf


def is_cliff(rates: Float[np.ndarray, "k"], log_loss: Float[np.ndarray, "k"], rate: float) -> bool:
    """Tell whether doubling a learning rate undoes more than half of what training at that rate gained in ln ℓ.

    What it gained is counted from the loss at the smallest rate of the sweep, at which hardly anything is learned.
    Between the rates of the sweep ln ℓ is interpolated in ln η; beyond them, or where a run diverged, it is a cliff.
    """
    start = float(log_loss[0])
    finite = np.where(np.isfinite(log_loss), log_loss, 1e30)
    here, twice = np.interp(np.log([rate, 2 * rate]), np.log(rates), finite, right=1e30)
    return bool(start - twice < (start - here) / 2)


class PowerLaw(NamedTuple):
    """Hold the law x = prefactor · r^slope."""

    slope: float
    prefactor: float


def free_fit(ranks: Sequence[float] | np.ndarray, x: Float[np.ndarray, "n"]) -> PowerLaw:
    """Fit by least squares ln x = slope · ln r + ln C, over the ranks whose best point was found."""
    found = np.isfinite(x)
    if np.sum(found) < 2:
        return PowerLaw(np.nan, np.nan)
    u, v = np.log(np.asarray(ranks, float)[found]), np.log(x[found])
    slope = float((u - u.mean()) @ v / np.sum((u - u.mean()) ** 2))
    return PowerLaw(slope, float(np.exp(np.mean(v) - slope * np.mean(u))))


def root_fit(ranks: Sequence[float] | np.ndarray, x: Float[np.ndarray, "n"]) -> PowerLaw:
    """Fit by least squares ln x = ½ ln r + ln C (Eq. 3 and its footnote: the slope is fixed)."""
    found = np.isfinite(x)
    C = np.exp(np.mean(np.log(x[found]) - np.log(np.asarray(ranks, float)[found]) / 2)) if np.any(found) else np.nan
    return PowerLaw(0.5, float(C))
