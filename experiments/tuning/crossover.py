"""Ask whether the best α follows the crossover α_c of X16, or V1, V2, the first step (X8) or α = r.

The best α is that of the sweeps of `rank_law` at η_FFT, seed by seed. Every rule is judged by how the two move together
over ranks, and by the loss that is lost where its α is used. What would kill it is in `claims.own.crossover`.
"""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import scipy.stats
import xarray as xr

import signal_drift as sd
from experiments.analysis.ends import sides
from experiments.analysis.intervals import Estimate, geometric_mean_of, mean_of
from experiments.analysis.sweeps import best_point, loss_at
from experiments.lab.experiment import Experiment, Point, Report, Row, tuned_only
from experiments.lab.problem import Problem
from experiments.tuning import rank_law
from experiments.tuning.beside_sweeps import Config, configure, sweeps_of
from experiments.tuning.runs import HOMES, STAGES
from signal_drift import plotting
from signal_drift.lora.scaling_rules import crossover_alpha

RULES = {
    "α_c": ("o", "lora"),
    "V1": ("v", "band"),
    "V2": ("s", "signal"),
    "first step": ("^", "drift"),
    "α = r": ("x", "task"),
}
"""The rules for α, with their mark and colour: X16, Eq. 3, Eq. 5, the size of the first step (X8), the usual one."""


def points(config: Config) -> list[Point]:
    return [{"rank": rank, "seed": seed} for seed in range(config.seeds) for rank in config.ranks]


def measure(config: Config, first: xr.Dataset, rank: int, seed: int) -> xr.Dataset:
    """Measure α_c, and read the α of every rule, the loss there and the best one out of the sweep over α."""
    drift, signal = sides(config.problem, seed, rank, config.tolerance)
    losses = first.by_alpha.sel(rank=rank, seed=seed).values
    best = best_point(config.alphas, losses)
    alphas = ruled(config.problem, rank) | {"α_c": crossover_alpha(float(rank), drift, signal)}
    return xr.Dataset(
        {
            "alpha": ("rule", [alphas[rule] for rule in RULES]),
            "lost": ("rule", [loss_at(config.alphas, losses, alphas[rule]) - best.log_loss for rule in RULES]),
            "best": best.x,
            "drift": drift,
            "signal": signal,
        },
        coords={"rule": list(RULES)},
    )


def ruled(problem: Problem, rank: int) -> dict[str, float]:
    """Return the α of the rules that need no measurement, the geometric mean over layers where they differ."""
    sigma, fan_in = problem.sigma_a(), problem.fan_in()
    return {
        "V1": sd.empirical_alpha_base(rank),
        "V2": _mean([sd.alpha_base(rank, x) for x in sigma.values()]),
        "first step": _mean([matching_alpha(rank, x, fan_in[layer]) for layer, x in sigma.items()]),
        "α = r": float(rank),
    }


def matching_alpha(rank: int, sigma_a: float, d_in: int) -> float:
    """Return the α at which the first step is as long as full fine-tuning's: α²(σ_A²/r)[1 + 2(r − 1)/(πd_in)] = 1 (X8).

    >>> matching_alpha(1, 0.5, 4)  # V2
    2.0
    """
    return math.sqrt(rank / (1 + 2 * (rank - 1) / (math.pi * d_in))) / sigma_a


def _mean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def correlation(data: xr.Dataset, rule: str) -> np.ndarray:
    """Return Spearman's rank correlation of a rule's α with the best one over ranks, seed by seed.

    NaN where fewer than three ranks have a best α inside the sweep.
    """
    both = [x.transpose("seed", "rank").values for x in (data.alpha.sel(rule=rule), data.best)]
    found = []
    for predicted, best in zip(*both, strict=True):
        known = np.isfinite(best) & np.isfinite(predicted)
        rank_correlation: Any = scipy.stats.spearmanr(predicted[known], best[known])
        found.append(float(rank_correlation.statistic) if known.sum() > 2 else math.nan)
    return np.array(found)


def exponent(data: xr.Dataset, rule: str) -> np.ndarray:
    """Fit the exponent of r in α*/α_rule, seed by seed: 0 where the best α follows the rule over ranks."""
    distance = np.log(data.best / data.alpha.sel(rule=rule)).transpose("seed", "rank").values
    return np.array([_slope(np.log(data["rank"].values), row) for row in distance])


def _slope(u: np.ndarray, v: np.ndarray) -> float:
    known = np.isfinite(v)
    return float(np.polyfit(u[known], v[known], 1)[0]) if known.sum() > 2 else math.nan


def lost(data: xr.Dataset, rule: str) -> np.ndarray:
    """Return the loss that a rule loses, ln ℓ(rule) − ln ℓ(best), the mean over ranks, seed by seed."""
    return data.lost.sel(rule=rule).transpose("seed", "rank").values.mean(axis=1)


def distance(data: xr.Dataset, rule: str) -> Estimate:
    """Return α*/α_rule, the geometric mean over ranks and seeds, with the interval over seeds."""
    ratio = np.log(data.best / data.alpha.sel(rule=rule)).transpose("seed", "rank").values
    return geometric_mean_of(
        np.exp([np.mean(row[np.isfinite(row)]) if np.isfinite(row).any() else np.nan for row in ratio])
    )


def report(config: Config, data: xr.Dataset) -> Report:
    data = data.sel(rank=list(config.ranks))
    rows = []
    for rule in RULES:
        rows.append(
            Row(f"X16  α*/α, {rule}, geometric mean over ranks", "1", *distance(data, rule).cells("on the edge"))
        )
        rows.append(Row(f"     exponent of r in it, {rule}", "0", *mean_of(exponent(data, rule)).cells("on the edge")))
        rows.append(
            Row(f"     rank correlation with α* over ranks, {rule}", "1", *mean_of(correlation(data, rule)).cells("–"))
        )
        rows.append(
            Row(f"     ln loss lost by it, {rule}", "0", *mean_of(lost(data, rule)).cells("diverged or beyond"))
        )
    return Report(rows, [_sentence(config, data)], {"crossover": partial(_figure, config, data)})


def _sentence(config: Config, data: xr.Dataset) -> str:
    found = {rule: (distance(data, rule), mean_of(lost(data, rule))) for rule in RULES}
    told = "; ".join(f"{rule}: α*/α = {x}, ln loss lost {y}" for rule, (x, y) in found.items())
    return f"Rules for α on {config.problem.label}, r from {config.ranks[0]} to {config.ranks[-1]}: {told}."


def _figure(config: Config, data: xr.Dataset) -> plotting.Figure:
    """The best α over ranks beside every rule's, and the loss that each loses."""
    figure, axes = plotting.panels(2, f"Which α? {config.problem.label}, η_FFT", 4.4, 5.4)
    best = data.best.transpose("rank", "seed")
    axes[0].plot(config.ranks, best, ".", color=plotting.COLOR["prediction"], alpha=0.6)
    axes[0].plot(config.ranks, best.median("seed"), "-", lw=3, color=plotting.COLOR["prediction"], label="best α")
    for rule, (mark, color) in RULES.items():
        style: Mapping[str, Any] = {"color": plotting.COLOR[color], "marker": mark, "ls": ":", "label": rule}
        axes[0].plot(config.ranks, np.exp(np.log(data.alpha.sel(rule=rule)).mean("seed")), **style)
        axes[1].plot(config.ranks, data.lost.sel(rule=rule).mean("seed"), **style)
    plotting.log_axis(axes[0], "rank r", "α")
    axes[0].set_title("(a) the best α, and each rule's")
    axes[1].set(xlabel="rank r", ylabel="ln loss − ln loss at the best α", title="(b) what the rule loses")
    axes[1].set_xscale("log", base=2)
    axes[0].legend(fontsize=9, ncols=2)
    return figure


EXPERIMENT = Experiment(
    name="crossover",
    title="X16: whether the best α follows the α at which curvature overtakes the gradient, over ranks.",
    configure=configure,
    points=points,
    measure=measure,
    report=report,
    tiny=rank_law.EXPERIMENT.tiny,
    homes=HOMES,
    refuses=tuned_only,
    first=sweeps_of,
    stages=STAGES,
    captions={
        "crossover": (
            "The best α of every seed (small dots, line at the median) and the α of each rule over ranks (a), and the "
            "loss that is lost where the rule is used (b; 0 is the best of the sweep; a gap is beyond the sweep)."
        )
    },
)
