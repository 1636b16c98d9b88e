"""F8a and F8b: at B = 0 the spectrum of H_Signal is a compressed H_ℓ, and its trace follows α²(σ_A²/r) Tr H_ℓ."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import jax
import numpy as np
import scipy.stats
import xarray as xr
from jax import Array

import signal_drift as sd
from experiments.analysis.intervals import mean_interval
from experiments.lab.errors import check_positive
from experiments.lab.experiment import Experiment, Report, Row, main
from experiments.problems.mlp import Setting, adapters, problem
from signal_drift import plotting
from signal_drift.propositions import closed_forms


@dataclass(frozen=True)
class Config(Setting):
    """The exact spectra at one α and rank, and the trace over ranks and draws of A."""

    alpha: float = 1.0
    """α; at fixed weights and B = 0 it only multiplies H_Signal by α²."""
    ranks: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    """Ranks of the trace law (F8b)."""
    draws: int = 200
    """Draws of A at every rank."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "ranks", "draws")


def points(config: Config) -> list[dict]:
    return [{"seed": seed} for seed in range(config.seeds)]


def measure(config: Config, seed: int) -> xr.Dataset:
    """All eigenvalues of H_ℓ and H_Signal, and Tr H_Signal for every rank and draw of A, on one H_ℓ."""
    loss, base = problem(config, seed)
    start, s = adapters(config, base, seed), config.scaling(config.alpha)
    parts = sd.decompose(loss, base, start, s)
    task = parts.task.dense()
    grams = closed_forms.task_grams(task, base)
    draws, deviations = [], []
    for r in config.ranks:
        key, s_r = jax.random.fold_in(jax.random.key(seed), 1000 + r), config.scaling(config.alpha, r)
        draws.append(trace_draws(key, base, grams, s_r, r, config.draws))
        deviations.append(closed_forms.signal_trace_deviation(grams, r, s_r, config.sigma_a))
    return xr.Dataset(
        {
            "task": ("task_index", sd.eigenvalues(task)),
            "signal": ("theta_index", sd.eigenvalues(parts.signal)),
            "closed_trace": float(closed_forms.signal_trace(grams, start, s)),
            "draws": (("rank", "draw"), np.array(draws)),
            "deviation": ("rank", deviations),
        },
        coords={"rank": list(config.ranks)},
    )


@partial(jax.jit, static_argnames=("rank", "draws"))
def trace_draws(key, base, grams, scaling, rank: int, draws: int) -> Array:
    """Tr H_Signal = s²Σ_l Tr(A_l M_l A_lᵀ), exactly, for independent draws of A."""

    def draw(key):
        return closed_forms.signal_trace(grams, sd.init_adapters(key, base, rank), scaling)

    return jax.vmap(draw)(jax.random.split(key, draws))


def factor(config: Config, rank: int) -> float:
    """α²σ_A²/r, by which the trace is predicted to shrink."""
    return closed_forms.suppression(rank, config.scaling(config.alpha, rank), config.sigma_a)


Law = Callable[[Config, int], float]
"""From a rank to the factor by which the trace is said to shrink."""


def predicted_traces(config: Config, data: xr.Dataset, law: Law = factor) -> np.ndarray:
    """α²(σ_A²/r) Tr H_ℓ, or another law, for every seed and rank."""
    return np.outer(data.task.values.sum(1), [law(config, r) for r in config.ranks])


def z_scores(config: Config, data: xr.Dataset, law: Law = factor) -> np.ndarray:
    """(mean over draws − prediction) / (X2's deviation / √draws), for every seed and rank."""
    return standard_scores(data.draws.values, predicted_traces(config, data, law), data.deviation.values)


def standard_scores(draws: np.ndarray, predicted: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """(mean over the last axis − prediction) / (deviation of one draw / √draws)."""
    return (draws.mean(-1) - predicted) / (deviation / np.sqrt(draws.shape[-1]))


def spectral_ratios(config: Config, data: xr.Dataset) -> dict[str, np.ndarray]:
    """Trace and extremes of H_Signal over α²σ_A²/r times those of H_ℓ, for every seed."""
    task, signal = factor(config, config.rank) * data.task.values, data.signal.values
    return {
        "Tr": signal.sum(1) / task.sum(1),
        "λmax": signal.max(1) / task.max(1),
        "λmin": signal.min(1) / task.min(1),
    }


def largest_normal(n: int) -> float:
    """The value that the largest of n independent absolute z exceeds with probability 5%."""
    return float(scipy.stats.norm.isf((1 - 0.95 ** (1 / n)) / 2))


def report(config: Config, data: xr.Dataset) -> Report:
    ratios = {name: mean_interval(ratio) for name, ratio in spectral_ratios(config, data).items()}
    by_rank = data.draws.values.mean(2) / predicted_traces(config, data)
    z = z_scores(config, data)
    identity = np.max(np.abs(data.signal.values.sum(1) / data.closed_trace.values - 1))
    rows = [
        Row(
            f"F8a  {name} H_Signal / (α²σ_A²/r · {name} H_ℓ), r = {config.rank}",
            "1" if name == "Tr" else "order of 1",
            str(ratio),
            ratio.interval(),
        )
        for name, ratio in ratios.items()
    ]
    for r, ratio in zip(config.ranks, map(mean_interval, by_rank.T), strict=True):
        rows.append(Row(f"F8b  Tr H_Signal / prediction, r = {r}", "1", str(ratio), ratio.interval()))
    limit = f"< {largest_normal(z.size):.2f} at 95%"
    rows += [
        Row(f"F8b  largest abs z of {z.size} (seed, rank) means", limit, f"{np.max(np.abs(z)):.2f}", "–"),
        Row("X2   Σλ(H_Signal) against the closed form, relative error", "rounding", f"{identity:.1e}", "–"),
    ]
    sentence = (
        f"Over {config.seeds} seeds, measured over predicted: trace {ratios['Tr']} {ratios['Tr'].interval()}, "
        f"λmax {ratios['λmax']} {ratios['λmax'].interval()}."
    )
    drawn = {"spectral_suppression": partial(_spectra, config, data), "trace_by_rank": partial(_traces, config, data)}
    return Report(rows, [sentence], drawn)


def _spectra(config: Config, data: xr.Dataset) -> plotting.Figure:
    sizes = f"d = {config.width}, r = {config.rank}, α = {config.alpha:g}, {config.seeds} seeds"
    figure, (left, middle, right) = plotting.panels(3, f"F8a  Spectral suppression: {sizes}")
    threshold = plotting.zero_threshold(data.task.values[0])
    for name, label in (("task", r"$H_\ell$"), ("signal", r"$H_{Signal}$")):
        color = plotting.COLOR[name]
        for spectrum in data[name].values[1:]:
            plotting.draw_sorted(left, spectrum, color=color, alpha=0.25)
        plotting.draw_sorted(left, data[name].values[0], color=color, label=label)
        plotting.draw_density(middle, data[name].values[0], threshold, color=color, lw=1.6, label=label)
    compressed = factor(config, config.rank) * data.task.values[0]
    label = r"$(\alpha^2\sigma_A^2/r)\;H_\ell$"
    plotting.draw_sorted(left, compressed, color=plotting.COLOR["prediction"], ls="--", label=label)
    plotting.symlog(left, "y", threshold)
    left.set(xlabel="position, share of all eigenvalues", ylabel="eigenvalue λ", title="(a) sorted, each seed")
    plotting.symlog(middle, "x", threshold, 4)
    middle.set(yscale="log", xlabel="eigenvalue λ", ylabel="share per unit of λ", title="(b) density, seed 0")
    for position, (name, ratio) in enumerate(spectral_ratios(config, data).items()):
        right.plot([position] * config.seeds, ratio, "o", color=plotting.COLOR["signal"], alpha=0.7)
        right.text(position + 0.12, ratio.mean(), f"mean\n{ratio.mean():.3g}", va="center")
        right.text(position, 0.05, name, ha="center")
    right.axhline(1, color=plotting.COLOR["prediction"], ls="--", label="prediction for the trace")
    right.set(
        xlim=(-0.5, 2.8),
        ylim=(0, 1.25 * max(map(np.max, spectral_ratios(config, data).values()))),
        xticks=[],
        ylabel=r"$H_{Signal}\,/\,(\alpha^2\sigma_A^2/r)\,H_\ell$",
    )
    right.set_title("(c) measured / predicted, each seed")
    left.legend()
    middle.legend(loc="upper right")
    right.legend(loc="upper left")
    return figure


def _traces(config: Config, data: xr.Dataset) -> plotting.Figure:
    sizes = f"{config.draws} draws of A per rank, {config.seeds} seeds, α = {config.alpha:g}"
    figure, (left, right) = plotting.panels(2, f"F8b  Tr H_Signal over ranks: {sizes}")
    ranks, blue = np.array(config.ranks), plotting.COLOR["signal"]
    predicted, deviation = predicted_traces(config, data)[0], data.deviation.values[0]
    band = {"color": plotting.COLOR["band"], "alpha": 0.25}
    left.fill_between(
        ranks, predicted - 2 * deviation, predicted + 2 * deviation, **band, label="± 2σ of one draw (X2)"
    )
    spread = np.exp(np.linspace(-0.15, 0.15, config.draws))
    for r, draws in zip(ranks, data.draws.values[0], strict=True):
        left.plot(r * spread, draws, ".", ms=2, color=blue, alpha=0.4, label="one draw" if r == ranks[0] else None)
    label = r"$\alpha^2(\sigma_A^2/r)\,\mathrm{Tr}\,H_\ell$"
    left.plot(ranks, predicted, "--", color=plotting.COLOR["prediction"], label=label)
    left.plot(ranks, data.draws.values[0].mean(1), "o", mfc="white", color=blue, label="mean of draws")
    plotting.log_axis(left, "rank r", r"$\mathrm{Tr}\,H_{Signal}$")
    left.set_title("(a) seed 0")
    z = z_scores(config, data)
    limit = largest_normal(z.size)
    right.axhspan(-limit, limit, **band, label=f"95% of the largest of {z.size}")
    right.axhline(0, color=plotting.COLOR["prediction"], ls="--", label="prediction")
    for seed, scores in enumerate(z):
        right.plot(ranks * 1.05 ** (seed - config.seeds / 2), scores, "o", color=blue, alpha=0.7)
    right.set_xscale("log", base=2)
    right.set(xlabel="rank r", ylabel="(mean − prediction) / standard error", ylim=(-5, 5))
    right.set_title("(b) every seed, in standard errors of X2")
    left.legend()
    right.legend(loc="upper right")
    return figure


EXPERIMENT = Experiment(
    name="spectral_suppression",
    title="F8a and F8b: the spectrum of H_Signal against H_ℓ, and its trace over ranks.",
    paper=Config(),
    quick=replace(Config(), width=6, depth=3, samples=20, rank=3, seeds=2, ranks=(1, 2, 8), draws=50),
    points=points,
    measure=measure,
    report=report,
)

if __name__ == "__main__":
    main(EXPERIMENT)
