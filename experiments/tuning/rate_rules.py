"""Ask which sharpness at the start predicts the best η over α: λmax[H_LoRA], λmax[H_Signal], or λ_c along the update.

The best η is that of the (α, η) grids of `rank_law`, seed by seed. A rule says η* = c/sharpness with one c for all α
and all ranks of a seed, so that judged is how η* moves. Two things are read: the exponent of α in η*·sharpness, for
which c does not matter, and the loss that is lost at the c that loses least, which flatters every rule alike.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
import xarray as xr
from jax import Array
from jax.tree_util import Partial

import signal_drift as sd
from experiments.analysis.ends import certified
from experiments.analysis.intervals import mean_of
from experiments.analysis.sweeps import free_fit, valley
from experiments.lab.experiment import Experiment, Point, Report, Row, tuned_only
from experiments.lab.problem import Dtype, Problem
from experiments.tuning import rank_law, rank_sweeps
from experiments.tuning.beside_sweeps import Config, configure, sweeps_of
from experiments.tuning.runs import HOMES, STAGES
from signal_drift import plotting
from signal_drift.lora.adapters import Adapter, Adapters, Weights

RULES = {
    "1/λmax[H_LoRA]": ("o", "lora"),
    "1/λmax[H_Signal]": ("s", "signal"),
    "1/λ_c, Adam's first step": ("^", "drift"),
    "1/λ_c, −∇ℓ": ("v", "band"),
    "constant": ("x", "task"),
}
"""The rules for η, with their mark and colour."""


def refuses(problem: Problem) -> str:
    """Refuse problems whose sweeps have no (α, η) grid."""
    return tuned_only(problem) or ("" if rank_sweeps.configure(problem).grid_alphas else "its (α, η) grid is not run")


def points(config: Config) -> list[Point]:
    return [{"rank": rank, "seed": seed} for seed in range(config.seeds) for rank in config.path_ranks]


def measure(config: Config, first: xr.Dataset, rank: int, seed: int) -> xr.Dataset:
    """Measure the sharpness of every rule at every α, and read the losses over η and the best one out of the grid."""
    here = first.sel(rank=rank, seed=seed)
    losses = here.by_both.transpose("grid_alpha", "grid_rate").values
    rates = float(here.eta_fft) * np.array(config.grid_rates)
    scalings = [config.problem.scaling(alpha, rank) for alpha in config.grid_alphas]
    found = sharpness(config.problem, seed, rank, scalings, config.tolerance)
    return xr.Dataset(
        {
            "sharpness": (("rule", "alpha"), np.array([found[rule] for rule in RULES])),
            "log_loss": (("alpha", "multiple"), losses),
            "eta_fft": float(here.eta_fft),
            "best": ("alpha", valley(rates, losses)[0]),
        },
        coords={"rule": list(RULES), "alpha": list(config.grid_alphas), "multiple": list(config.grid_rates)},
    )


def sharpness(
    problem: Problem, seed: int, rank: int, scalings: list[float], tolerance: float
) -> dict[str, list[float] | np.ndarray]:
    """Return what each rule divides by, at B = 0 and every s: λmax[H_Signal] is one search, times s² (Eq. 43–47)."""
    dtype: Dtype = "float64" if problem.dense else "float32"
    drawn, theta = problem.draw(seed, dtype), problem.adapters(seed, rank, dtype)

    def largest(s: float, part: str) -> float:
        parts = sd.decompose(drawn.loss, drawn.base, theta, s)
        return float(certified(getattr(parts, part), tolerance=tolerance).values[0])

    along = critical(drawn.loss, drawn.base, theta, jnp.asarray(scalings, dtype))
    adam, descent = (np.where(x.bracketed, np.asarray(x.sharpness, float), np.nan) for x in along)
    return {
        "1/λmax[H_LoRA]": [largest(s, "lora") for s in scalings],
        "1/λmax[H_Signal]": largest(1.0, "signal") * np.square(scalings),
        "1/λ_c, Adam's first step": adam,
        "1/λ_c, −∇ℓ": descent,
        "constant": np.ones(len(scalings)),
    }


@jax.jit
def critical(
    loss: Partial, base: Weights, theta: Adapters, scalings: Array
) -> tuple[sd.CriticalSharpness, sd.CriticalSharpness]:
    """Return λ_c along −sign ∇_θ ℓ, Adam's first step, and along −∇_θ ℓ, at every s.

    The step of A is zero at B = 0, that of B the same signs for every s: along the first, λ_c is proportional to s.
    """

    def at(s: Array) -> tuple[sd.CriticalSharpness, sd.CriticalSharpness]:
        def of(theta: dict[str, Adapter]) -> Array:
            return loss(sd.effective_weights(base, theta, s))

        gradient = jax.grad(of)(dict(theta))
        steps = (jax.tree.map(f, gradient) for f in (lambda g: -jnp.sign(g), jnp.negative))
        adam, descent = (sd.critical_sharpness(of, dict(theta), step) for step in steps)
        return adam, descent

    return jax.lax.map(at, scalings)


def exponent(data: xr.Dataset, rule: str) -> np.ndarray:
    """Fit the exponent of α in η*·sharpness, the mean over ranks, seed by seed: 0 where η* follows the rule over α.

    NaN where a sharpness is not known at some α.
    """
    sharpness = data.sharpness.sel(rule=rule)
    both = (data.best * sharpness).transpose("seed", "rank", "alpha").values
    known = np.isfinite(sharpness).all(["rank", "alpha"]).values
    slopes = np.array([np.mean([free_fit(data.alpha.values, x).slope for x in seed]) for seed in both])
    return np.where(known, slopes, np.nan)


def correlation(data: xr.Dataset, rule: str) -> np.ndarray:
    """Return Spearman's rank correlation of 1/sharpness with η* over all α and ranks, seed by seed.

    NaN where fewer than three pairs (α, r) have a best η inside the grid, or where one of the two is a constant.
    """
    predicted, best = _pairs(1 / data.sharpness.sel(rule=rule)), _pairs(data.best)
    found = []
    for x, y in zip(predicted, best, strict=True):
        known = np.isfinite(y)
        told = known.sum() > 2 and np.ptp(x[known]) > 0 and np.ptp(y[known]) > 0
        rank_correlation: Any = scipy.stats.spearmanr(x[known], y[known]) if told else None
        found.append(float(rank_correlation.statistic) if told else np.nan)
    return np.array(found)


SCAN = 200
"""Values of c, evenly in ln c, among which the one that loses least is taken."""


def lost(data: xr.Dataset, rule: str) -> np.ndarray:
    """Return ln ℓ where the rule puts η, less that at the best η, the mean over all α and ranks, seed by seed.

    At the c that loses least. Beyond the grid the loss is that of its nearest end, and nowhere is it more than at the
    smallest α and η of the grid, where hardly anything is learned: a run that diverged learned nothing.
    """
    return np.array([_least(*seed) for seed in _by_seed(data, rule)])


def beyond(data: xr.Dataset, rule: str) -> np.ndarray:
    """Return the share of all α and ranks at which the rule, at that c, puts η beyond the grid, seed by seed."""
    return np.array([_outside(*seed) for seed in _by_seed(data, rule)])


def _by_seed(data: xr.Dataset, rule: str) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """−ln sharpness of every pair of rank and α, ln η of the grid, and ln ℓ (pair, η), of every seed."""
    losses = data.log_loss.transpose("seed", "rank", "alpha", "multiple").values
    found = []
    for seed, sharpness in enumerate(_pairs(data.sharpness.sel(rule=rule))):
        nothing = np.max(losses[seed, :, 0, 0])
        rows = np.fmin(losses[seed].reshape(len(sharpness), -1), nothing)
        eta = float(data.eta_fft.isel(seed=seed).values.flat[0]) * data.multiple.values
        found.append((-np.log(sharpness), np.log(eta), rows))
    return found


def _constants(rule: np.ndarray, eta: np.ndarray) -> np.ndarray:
    """The ln c from where every η lies below the grid to where every one lies above."""
    return np.linspace(eta[0] - np.max(rule), eta[-1] - np.min(rule), SCAN)


def _losses(rule: np.ndarray, eta: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Average over pairs what is lost at every c."""
    constants = _constants(rule, eta)
    at = [np.interp(u + constants, eta, row) - np.min(row) for u, row in zip(rule, rows, strict=True)]
    return np.mean(at, axis=0)


def _least(rule: np.ndarray, eta: np.ndarray, rows: np.ndarray) -> float:
    return float(np.min(_losses(rule, eta, rows)))


def _outside(rule: np.ndarray, eta: np.ndarray, rows: np.ndarray) -> float:
    at = rule + _constants(rule, eta)[np.argmin(_losses(rule, eta, rows))]
    return float(np.mean((at < eta[0]) | (at > eta[-1])))


def _pairs(values: xr.DataArray) -> np.ndarray:
    """Lay values out as (seed, pair of rank and α)."""
    return values.transpose("seed", "rank", "alpha").values.reshape(values.sizes["seed"], -1)


def report(config: Config, data: xr.Dataset) -> Report:
    data = data.sel(rank=list(config.path_ranks))
    rows = []
    for rule in RULES:
        for what, stated, values in (
            ("X20  exponent of α in η*/η, η by", "0", exponent(data, rule)),
            ("     rank correlation with η* over α and r, η by", "1", correlation(data, rule)),
            ("     ln loss lost with η by", "0", lost(data, rule)),
            ("     share of α and r at which η is beyond the grid, η by", "–", beyond(data, rule)),
        ):
            rows.append(Row(f"{what} {rule}", stated, *mean_of(values).cells("–")))
    return Report(rows, [_sentence(config, data)], {"rate_rules": partial(_figure, config, data)})


def _sentence(config: Config, data: xr.Dataset) -> str:
    told = "; ".join(
        f"{rule}: α to the {mean_of(exponent(data, rule)).cells('–')[0]} in η*/η, "
        f"ln loss lost {mean_of(lost(data, rule)).cells('–')[0]}"
        for rule in RULES
    )
    ranks = ", ".join(map(str, config.path_ranks))
    return f"Rules for η over α on {config.problem.label}, r = {ranks}, one constant each: {told}."


def _figure(config: Config, data: xr.Dataset) -> plotting.Figure:
    """The best η over α beside every rule's at one rank, and the loss that each loses."""
    figure, axes = plotting.panels(2, f"Which sharpness predicts the best η? {config.problem.label}", 4.4, 5.6)
    rank = config.path_ranks[len(config.path_ranks) // 2]
    here = data.sel(rank=rank)
    best = here.best.transpose("alpha", "seed")
    axes[0].plot(data.alpha, best, ".", color=plotting.COLOR["prediction"], alpha=0.6)
    axes[0].plot(data.alpha, best.median("seed"), "-", lw=3, color=plotting.COLOR["prediction"], label="best η")
    losses = [mean_of(lost(data, rule)) for rule in RULES]
    for k, (rule, (mark, color)) in enumerate(RULES.items()):
        style: Mapping[str, Any] = {"color": plotting.COLOR[color], "marker": mark}
        predicted = 1 / here.sharpness.sel(rule=rule)
        c = np.exp(np.log(here.best / predicted).mean())
        axes[0].plot(data.alpha, np.exp(np.log(c * predicted).mean("seed")), ls=":", label=rule, **style)
        low, high = losses[k].at()[1:]
        axes[1].errorbar(
            losses[k].value, -k, xerr=[[losses[k].value - low], [high - losses[k].value]], capsize=3, **style
        )
    plotting.log_axis(axes[0], "α", "η")
    axes[0].set_title(f"(a) the best η over α, and each rule's, r = {rank}")
    axes[0].legend(fontsize=9)
    axes[1].set_yticks([-k for k in range(len(RULES))], list(RULES))
    axes[1].set(xlabel="ln loss − ln loss at the best η", title="(b) what the rule loses")
    axes[1].axvline(0, color="0.6", lw=1)
    return figure


EXPERIMENT = Experiment(
    name="rate_rules",
    title="X20: which sharpness at the start predicts the best η over α.",
    configure=configure,
    points=points,
    measure=measure,
    report=report,
    tiny=rank_law.EXPERIMENT.tiny,
    homes=HOMES,
    refuses=refuses,
    first=sweeps_of,
    stages=STAGES,
    captions={
        "rate_rules": (
            "The best η of every seed over α at one rank (small dots, line at the median) and the η of each rule, "
            "moved to the same mean (a); the loss lost over all ranks and α by each rule (b; 0 is the best η)."
        )
    },
)
