"""Measure F8a and F8b: at B = 0 the spectrum of H_Signal is a compressed H_ℓ, and its trace follows α²(σ_A²/r) Tr H_ℓ.

Where layers differ in σ_A, α²σ_A²/r is that of each: the weights of layer l count √(r s²σ_l²) times in H_ℓ.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import signal_drift as sd
from experiments.analysis.ends import SYMBOL
from experiments.analysis.intervals import mean_of
from experiments.curvature.trace_law import Traces, largest_normal, stands_out, trace_draws
from experiments.lab.errors import check_positive
from experiments.lab.experiment import Experiment, Point, Report, Row, dense_only
from experiments.lab.problem import Setting
from signal_drift import plotting
from signal_drift.lora.adapters import Weights
from signal_drift.propositions import closed_forms

SHARP = 0.05
"""A ratio of traces is reported where it can be told from 1 to this."""
COARSE = 1 - 10**-0.5
"""What an order of magnitude leaves below: the trace of one draw of A is compared where it can be held to this."""


@dataclass(frozen=True)
class Config(Setting):
    """Measure the exact spectra at one α and rank, and the trace over ranks and draws of A."""

    alpha: float = 1.0
    """α; at fixed weights and B = 0 it only multiplies H_Signal by α²."""
    ranks: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    """Ranks of the trace law (F8b)."""
    draws: int = 200
    """Draws of A at every rank."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "ranks", "draws")


def points(config: Config) -> list[Point]:
    return [{"seed": seed} for seed in range(config.seeds)]


def measure(config: Config, seed: int) -> xr.Dataset:
    """Measure the spectra of H_ℓ, compressed and not, and of H_Signal, and Tr H_Signal over ranks and draws of A."""
    problem, s = config.problem, config.problem.scaling(config.alpha)
    drawn, start, sigma = problem.draw(seed), problem.adapters(seed), problem.sigma_a()
    parts = sd.decompose(drawn.loss, drawn.base, start, s)
    task = np.asarray(parts.task.dense())
    grams = closed_forms.task_grams(jnp.asarray(task), drawn.base)
    shrinks = {k: closed_forms.suppression(problem.rank, s, sigma[k]) for k in drawn.base}
    spectrum = sd.eigenvalues(task)
    own = {
        "task": ("task_index", spectrum),
        "compressed": ("task_index", _compressed(task, spectrum, drawn.base, shrinks)),
        "signal": ("theta_index", sd.eigenvalues(parts.signal)),
        "closed_trace": float(closed_forms.signal_trace(grams, start, s)),
        "own_deviation": closed_forms.signal_trace_deviation(grams, problem.rank, s, sigma),
    }
    return xr.Dataset(own).merge(_over_ranks(config, drawn.base, grams, seed))


def _compressed(task: np.ndarray, spectrum: np.ndarray, base: Weights, shrinks: dict[str, float]) -> np.ndarray:
    """Return the spectrum of H_ℓ with the weights of layer l counted √(r s²σ_l²) times; of one σ_A, a multiple."""
    if len(set(shrinks.values())) == 1:
        return next(iter(shrinks.values())) * spectrum
    root = np.sqrt(np.concatenate([np.full(W.size, shrinks[k]) for k, W in sorted(base.items())]))
    return sd.eigenvalues(root[:, None] * task * root)


def _over_ranks(config: Config, base: Weights, grams: closed_forms.Grams, seed: int) -> xr.Dataset:
    """Draws of Tr H_Signal at α and at V2's α = √r/σ_l of every layer, their deviation (X2), and P3's mean at α."""
    problem, sigma = config.problem, config.problem.sigma_a()
    found: dict[str, list] = {name: [] for name in ("draws", "aligned", "deviation", "aligned_deviation", "predicted")}
    for r in config.ranks:
        key, s = jax.random.fold_in(jax.random.key(seed), 1000 + r), problem.scaling(config.alpha, r)
        aligned = {k: problem.scaling(sd.alpha_base(r, sigma[k]), r) for k in base}
        found["draws"].append(trace_draws(key, base, grams, s, r, config.draws))
        found["aligned"].append(trace_draws(key, base, grams, aligned, r, config.draws))
        found["deviation"].append(closed_forms.signal_trace_deviation(grams, r, s, sigma))
        found["aligned_deviation"].append(closed_forms.signal_trace_deviation(grams, r, aligned, sigma))
        found["predicted"].append(closed_forms.expected_signal_trace(grams, r, s, sigma))
    dims = {name: ("rank", "draw") if name in ("draws", "aligned") else ("rank",) for name in found}
    return xr.Dataset({k: (dims[k], np.array(v)) for k, v in found.items()}, {"rank": list(config.ranks)})


def traces(data: xr.Dataset) -> Traces:
    """Compare Tr H_Signal with Σ_l r s²σ_l² Tr H_ℓ,ll, which is α²(σ_A²/r) Tr H_ℓ for one σ_A (P3-trace)."""
    return Traces(data.draws.values, data.predicted.values, data.deviation.values)


def aligned_traces(data: xr.Dataset) -> Traces:
    """Compare Tr H_Signal at α = √r/σ_A with Tr H_ℓ (K1-alignment)."""
    return Traces(data.aligned.values, _task_traces(data), data.aligned_deviation.values)


def _task_traces(data: xr.Dataset) -> np.ndarray:
    return np.repeat(data.task.values.sum(1)[:, None], data.sizes["rank"], axis=1)


def spectral_ratios(data: xr.Dataset) -> dict[str, np.ndarray]:
    """Divide trace and extremes of H_Signal by those of the compressed H_ℓ, for every seed.

    The trace only where it is known to lie away from 0: the deviation of one draw of A (X2) may not take a ratio of 1
    to another order of magnitude, at any seed.
    """
    task, signal = data.compressed.values, data.signal.values
    ratios = {"λmax": signal.max(1) / task.max(1), "λmin": signal.min(1) / task.min(1)}
    if np.all(stands_out(task.sum(1)[None], data.own_deviation.values[None], COARSE)):
        return {"Tr": signal.sum(1) / task.sum(1), **ratios}
    return ratios


def report(config: Config, data: xr.Dataset) -> Report:
    rank, here = config.problem.rank, traces(data)
    ratios = {name: mean_of(ratio) for name, ratio in spectral_ratios(data).items()}
    identity = np.max(np.abs(data.signal.values.sum(1) / data.closed_trace.values - 1))
    rows = [
        Row(
            f"F8a  {name} H_Signal / (α²σ_A²/r · {name} H_ℓ), r = {rank}",
            "1" if name == "Tr" else "order of 1",
            str(ratio),
            ratio.interval(),
        )
        for name, ratio in ratios.items()
    ]
    columns = zip(config.ranks, here.ratios.T, here.scores.T, here.usable(SHARP), strict=True)
    for r, ratio, z, usable in columns:
        found = mean_of(ratio if usable else z)
        name, stated = ("Tr H_Signal / prediction", "1") if usable else ("(Tr H_Signal − prediction)/error by X2", "0")
        rows.append(Row(f"F8b  {name}, r = {r}", stated, str(found), found.interval()))
    limit, worst = f"< {largest_normal(here.scores.size):.2f} at 95%", f"{np.max(np.abs(here.scores)):.2f}"
    rows += [
        Row(f"F8b  largest abs z of {here.scores.size} (seed, rank) means", limit, worst, "–"),
        Row("X2   Σλ(H_Signal) against the closed form, relative error", "rounding", f"{identity:.1e}", "–"),
    ]
    found = ", ".join(f"{'trace' if k == 'Tr' else k} {v} {v.interval()}" for k, v in ratios.items() if k != "λmin")
    negative = int((data.task.sum("task_index") < 0).sum())
    sentences = [f"Over {config.over_seeds}, measured over predicted: {found}."]
    if not all(here.usable(SHARP)) or "Tr" not in ratios:
        sentences.append(
            f"Tr H_ℓ is too near 0 for a ratio at some ranks, and negative at {negative} of {config.seeds} seeds: "
            "there the law is judged in standard errors (X2)."
        )
    drawn = {"spectral_suppression": partial(_spectra, config, data), "trace_by_rank": partial(_traces, config, data)}
    return Report(rows, sentences, drawn)


def _spectra(config: Config, data: xr.Dataset) -> plotting.Figure:
    sizes = f"{config.problem.label}, r = {config.problem.rank}, α = {config.alpha:g}, {config.over_seeds}"
    figure, (left, middle, right) = plotting.panels(3, f"F8a  Spectral suppression: {sizes}", height=4.6)
    threshold = plotting.zero_threshold(data.task.values[0])
    for name, mark in (("task", "^"), ("signal", "o")):
        color, label = plotting.COLOR[name], SYMBOL[name]
        for spectrum in data[name].values[1:]:
            plotting.draw_sorted(left, spectrum, color=color, alpha=0.25)
        style = {"color": color, "label": label}
        plotting.draw_sorted(left, data[name].values[0], marker=mark, ms=5, markevery=0.1, **style)
        plotting.draw_density(middle, data[name].values[0], threshold, lw=1.6, ls="--" if mark == "o" else "-", **style)
    label = r"paper: $(\alpha^2\sigma_A^2/r)\;H_\ell$"
    plotting.draw_sorted(left, data.compressed.values[0], color=plotting.COLOR["prediction"], ls="--", label=label)
    plotting.symlog(left, "y", threshold)
    left.set(xlabel="position, share of all eigenvalues", ylabel="eigenvalue λ", title="(a) sorted, each seed")
    plotting.symlog(middle, "x", threshold, 4)
    middle.set(yscale="log", xlabel="eigenvalue λ", ylabel="share per unit of λ", title="(b) density, seed 0")
    for position, ratio in enumerate(spectral_ratios(data).values()):
        right.plot([position] * config.seeds, ratio, "o", color=plotting.COLOR["signal"], alpha=0.7)
        right.text(position + 0.12, ratio.mean(), f"mean\n{ratio.mean():.3g}", va="center")
    right.axhline(1, color=plotting.COLOR["prediction"], ls="--", label="paper: 1 for the trace, order of 1 for λmax")
    right.set(
        xlim=(-0.5, len(spectral_ratios(data)) - 0.2),
        ylim=(0, 1.25 * max(map(np.max, spectral_ratios(data).values()))),
        xticks=range(len(spectral_ratios(data))),
        xticklabels=list(spectral_ratios(data)),
        ylabel=r"$H_{Signal}\,/\,(\alpha^2\sigma_A^2/r)\,H_\ell$",
    )
    right.set_title("(c) measured / predicted, each seed")
    for panel in (left, middle, right):
        panel.legend(fontsize=9.5, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3)
    return figure


def _traces(config: Config, data: xr.Dataset) -> plotting.Figure:
    sizes = f"{config.problem.label}, {config.draws} draws of A per rank, {config.over_seeds}, α = {config.alpha:g}"
    figure, (left, right) = plotting.panels(2, f"F8b  Tr H_Signal over ranks: {sizes}", 4.8, 6.4)
    ranks, blue = np.array(config.ranks), plotting.COLOR["signal"]
    predicted, deviation = data.predicted.values[0], data.deviation.values[0]
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
    left.set_xscale("log", base=2)
    left.set_yscale("log" if np.min(data.draws.values[0]) > 0 else "linear")
    left.set(xlabel="rank r", ylabel=r"$\mathrm{Tr}\,H_{Signal}$", title="(a) seed 0")
    z = traces(data).scores
    limit = largest_normal(z.size)
    right.axhspan(-limit, limit, **band, label=f"95% of the largest of {z.size}")
    right.axhline(0, color=plotting.COLOR["prediction"], ls="--", label="prediction")
    for seed, scores in enumerate(z):
        right.plot(ranks * 1.05 ** (seed - config.seeds / 2), scores, "o", color=blue, alpha=0.7)
    right.set_xscale("log", base=2)
    right.set(xlabel="rank r", ylabel="(mean − prediction) / standard error", ylim=(-5, 5))
    right.set_title("(b) every seed, in standard errors of X2")
    for panel in (left, right):
        panel.legend(fontsize=9.5, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
    return figure


CAPTIONS = {
    "spectral_suppression": (
        "The spectra of H_ℓ and of H_Signal, half of which is 0 at B = 0, the A-block (a, b), and the trace and "
        "the largest eigenvalue over the paper's factor α²σ_A²/r (c; nearer to 1 is nearer to the paper's "
        "factor)."
    ),
    "trace_by_rank": (
        "The mean of Tr H_Signal over draws of A beside α²(σ_A²/r) Tr H_ℓ at every rank (a), and its distance in "
        "standard errors by X2 (b; inside the band is as stated)."
    ),
}


EXPERIMENT = Experiment(
    name="spectral_suppression",
    title="F8a and F8b: the spectrum of H_Signal against H_ℓ, and its trace over ranks.",
    configure=Config,
    points=points,
    measure=measure,
    report=report,
    tiny={"seeds": 2, "ranks": (1, 2, 8), "draws": 50},
    refuses=dense_only,
    captions=CAPTIONS,
)
