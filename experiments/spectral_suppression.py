"""F8a and F8b: at B = 0 the spectrum of H_Signal is a compressed H_ℓ, and its trace follows α²(σ_A²/r) Tr H_ℓ."""

from dataclasses import dataclass, replace
from functools import partial

import jax
import numpy as np
import xarray as xr
from jax import Array

import signal_drift as sd
from experiments import figures
from experiments.experiment import Experiment, Report, Row, main
from experiments.setting import Setting, adapters, problem
from experiments.statistics import mean_interval
from signal_drift import closed_forms


@dataclass(frozen=True)
class Config(Setting):
    """The exact spectra at one α and rank, and the trace over ranks and draws of A."""

    alpha: float = 1.0
    """α; at fixed weights and B = 0 it only multiplies H_Signal by α²."""
    ranks: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    """Ranks of the trace law (F8b)."""
    draws: int = 200
    """Draws of A at every rank."""


def points(config: Config) -> list[dict]:
    return [{"seed": seed} for seed in range(config.seeds)]


def measure(config: Config, seed: int) -> xr.Dataset:
    """All eigenvalues of H_ℓ and H_Signal, and Tr H_Signal for every rank and draw of A, on one H_ℓ."""
    loss, base = problem(config, seed)
    s = config.scaling(config.alpha)
    start = adapters(config, base, seed)
    parts = sd.decompose(loss, base, start, s)
    task = parts.task.dense()
    grams = closed_forms.task_grams(task, base)
    deviation = [
        closed_forms.signal_trace_deviation(grams, r, config.scaling(config.alpha, r), config.sigma_a)
        for r in config.ranks
    ]
    draws = [
        _trace_draws(
            jax.random.fold_in(jax.random.key(seed), 1000 + r),
            base,
            grams,
            config.scaling(config.alpha, r),
            r,
            config.draws,
        )
        for r in config.ranks
    ]
    return xr.Dataset(
        {
            "task": ("task_index", sd.eigenvalues(task)),
            "signal": ("theta_index", sd.eigenvalues(parts.signal)),
            "closed_trace": float(closed_forms.signal_trace(grams, start, s)),
            "draws": (("rank", "draw"), np.array(draws)),
            "deviation": ("rank", deviation),
        },
        coords={"rank": list(config.ranks)},
    )


@partial(jax.jit, static_argnames=("rank", "draws"))
def _trace_draws(key, base, grams, scaling, rank: int, draws: int) -> Array:
    """Tr H_Signal = s²Σ_l Tr(A_l M_l A_lᵀ), exactly, for independent draws of A."""

    def draw(key):
        return closed_forms.signal_trace(grams, sd.init_adapters(key, base, rank), scaling)

    return jax.vmap(draw)(jax.random.split(key, draws))


def suppression(config: Config) -> np.ndarray:
    """α²σ_A²/r, for every rank of the trace law."""
    return np.array(
        [closed_forms.suppression(r, config.scaling(config.alpha, r), config.sigma_a) for r in config.ranks]
    )


def report(config: Config, data: xr.Dataset) -> Report:
    factor = closed_forms.suppression(config.rank, config.scaling(config.alpha), config.sigma_a)
    task, signal = data.task.values, data.signal.values
    trace = mean_interval(signal.sum(1) / (factor * task.sum(1)))
    top = mean_interval(signal.max(1) / (factor * task.max(1)))
    z = z_scores(config, data)
    identity = np.max(np.abs(signal.sum(1) / data.closed_trace.values - 1))
    rows = [
        Row(f"F8a  Tr H_Signal / (α²σ_A²/r · Tr H_ℓ), r = {config.rank}", "1", str(trace), trace.interval()),
        Row(
            f"F8a  λmax H_Signal / (α²σ_A²/r · λmax H_ℓ), r = {config.rank}",
            "order of 1",
            str(top),
            top.interval(),
        ),
        *(_rank_row(config, data, i) for i in range(len(config.ranks))),
        Row(
            f"F8b  largest abs z of {z.size} (seed, rank) means",
            f"< {_largest_normal(z.size):.2f} at 95%",
            f"{np.max(np.abs(z)):.2f}",
            "–",
        ),
        Row(
            "X2   Σλ(H_Signal) against the closed form, largest relative error",
            "0 to rounding",
            f"{identity:.1e}",
            "–",
        ),
    ]
    sentence = (
        f"Over {config.seeds} seeds the trace of H_Signal is {trace} times its predicted expectation, its largest "
        f"eigenvalue {top} times the same factor applied to λmax[H_ℓ]."
    )
    return Report(
        rows,
        [sentence],
        {"spectral_suppression": _spectra(config, data), "trace_by_rank": _traces(config, data)},
    )


def z_scores(config: Config, data: xr.Dataset) -> np.ndarray:
    """(mean over draws − prediction) / (X2's deviation / √draws), for every seed and rank."""
    predicted = data.task.values.sum(1)[:, None] * suppression(config)
    return (data.draws.values.mean(2) - predicted) / (data.deviation.values / np.sqrt(config.draws))


def _largest_normal(n: int) -> float:
    """The value that the largest of n independent |z| exceeds with probability 5%."""
    import scipy.stats

    return float(scipy.stats.norm.isf((1 - 0.95 ** (1 / n)) / 2))


def _rank_row(config: Config, data: xr.Dataset, i: int) -> Row:
    predicted = data.task.values.sum(1) * suppression(config)[i]
    ratio = mean_interval(data.draws.values[:, i].mean(1) / predicted)
    return Row(f"F8b  Tr H_Signal / prediction, r = {config.ranks[i]}", "1", str(ratio), ratio.interval())


def _spectra(config: Config, data: xr.Dataset) -> figures.Figure:
    figure, (left, middle, right) = figures.panels(
        3,
        f"F8a  Spectral suppression: d = {config.width}, r = {config.rank}, α = {config.alpha:g}, {config.seeds} seeds",
    )
    factor = closed_forms.suppression(config.rank, config.scaling(config.alpha), config.sigma_a)
    threshold = figures.zero_threshold(data.task.values[0])
    for seed in range(config.seeds):
        first = seed == 0
        alpha = 1.0 if first else 0.25
        figures.draw_sorted(left, data.task.values[seed], color=figures.COLOR["task"], alpha=alpha, label="H_ℓ" * first)
        figures.draw_sorted(
            left,
            data.signal.values[seed],
            color=figures.COLOR["signal"],
            alpha=alpha,
            label="H_Signal" * first,
        )
    figures.draw_sorted(
        left,
        factor * data.task.values[0],
        color=figures.COLOR["prediction"],
        ls="--",
        label="(α²σ_A²/r) · H_ℓ",
    )
    figures.symlog(left, "y", threshold)
    left.set(xlabel="position, share of all eigenvalues", ylabel="eigenvalue λ", title="(a) sorted")
    left.legend()
    figures.draw_density(middle, data.task.values[0], threshold, color=figures.COLOR["task"], label="H_ℓ")
    figures.draw_density(
        middle, data.signal.values[0], threshold, color=figures.COLOR["signal"], lw=1.8, label="H_Signal"
    )
    middle.set(
        yscale="log",
        xlabel="eigenvalue λ",
        ylabel="density, share per unit of λ",
        title="(b) densities, seed 0",
    )
    figures.symlog(middle, "x", threshold, 3)
    middle.legend()
    for position, (name, ratio) in enumerate(
        {
            "trace": data.signal.sum("theta_index") / (factor * data.task.sum("task_index")),
            "λmax": data.signal.max("theta_index") / (factor * data.task.max("task_index")),
            "λmin": data.signal.min("theta_index") / (factor * data.task.min("task_index")),
        }.items()
    ):
        right.plot([position] * config.seeds, ratio.values, "o", color=figures.COLOR["signal"], alpha=0.7)
        right.text(position + 0.1, float(ratio.mean()), f"{name}\n{float(ratio.mean()):.3g}", va="center")
    right.axhline(1, color=figures.COLOR["prediction"], ls="--", label="prediction")
    right.set(
        xlim=(-0.4, 2.8),
        ylim=(0, None),
        xticks=[],
        ylabel="measured / predicted",
        title="(c) against α²σ_A²/r, each seed",
    )
    right.legend(loc="lower left")
    return figure


def _traces(config: Config, data: xr.Dataset) -> figures.Figure:
    figure, (left, right) = figures.panels(
        2,
        f"F8b  Tr H_Signal over ranks: {config.draws} draws of A per rank, {config.seeds} seeds, α = {config.alpha:g}",
    )
    ranks = np.array(config.ranks)
    predicted = float(data.task.values[0].sum()) * suppression(config)
    deviation = data.deviation.values[0]
    left.fill_between(
        ranks,
        predicted - 2 * deviation,
        predicted + 2 * deviation,
        color=figures.COLOR["band"],
        alpha=0.3,
        label="± 2σ of one draw (X2)",
    )
    left.plot(ranks, predicted, "--", color=figures.COLOR["prediction"], label="α²(σ_A²/r) Tr H_ℓ")
    jitter = np.exp(np.random.default_rng(0).uniform(-0.12, 0.12, config.draws))
    for r, draws in zip(ranks, data.draws.values[0], strict=True):
        left.plot(
            r * jitter,
            draws,
            ".",
            ms=2,
            color=figures.COLOR["signal"],
            alpha=0.35,
            label="one draw" if r == ranks[0] else None,
        )
    left.plot(
        ranks,
        data.draws.values[0].mean(1),
        "o",
        mfc="white",
        color=figures.COLOR["signal"],
        label="mean of draws",
    )
    figures.log_axis(left, "rank r", "Tr H_Signal")
    left.set_title("(a) seed 0")
    left.legend()
    z = z_scores(config, data)
    limit = _largest_normal(z.size)
    right.axhspan(-limit, limit, color=figures.COLOR["band"], alpha=0.2, label=f"95% of the largest of {z.size} abs z")
    right.axhline(0, color=figures.COLOR["prediction"], ls="--", label="prediction")
    for seed in range(config.seeds):
        right.plot(
            ranks * (1 + 0.04 * (seed - config.seeds / 2)),
            z[seed],
            "o",
            color=figures.COLOR["signal"],
            alpha=0.7,
        )
    right.set_xscale("log", base=2)
    right.set(
        xlabel="rank r",
        ylabel="z = (mean − prediction) / standard error",
        title="(b) every seed, in standard errors of X2",
        ylim=(-5, 5),
    )
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
