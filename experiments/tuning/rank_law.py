"""Sweep F1a, F1b, F1c: how the best α and η move together, the two paths of Eq. 2, and α*(r) ≈ C√r at η_FFT (Eq. 3).

The loss is the training loss after the last step ("fitting", Sec. 2), averaged over seeds as its logarithm.
"""

from functools import partial

import numpy as np
import xarray as xr

from experiments.analysis.intervals import bootstrap
from experiments.analysis.sweeps import Best, best_points, valley
from experiments.lab.experiment import Experiment, Point, Report, Row, tuned_only
from experiments.tuning import rank_law_figures, rates
from experiments.tuning.rank_sweeps import (
    Config,
    best_alphas,
    by_seed,
    coefficient,
    configure,
    free_exponent,
    gain,
    grid_losses,
    lowering,
    path_depth,
    path_ratio,
    paths,
    purity_over_paths,
    rate_exponent,
    wanted,
)
from experiments.tuning.runs import (
    HOMES,
    SMALL,
    fft_rate,
    sweep_of,
    swept_losses,
    swept_losses_and_purity,
    training_attributes,
)

STATED_C = "≫ 1 (256–1024 on Llama)"
ON_EDGE = "on the edge"
"""A best point on the edge of its grid gives neither a measured value nor an interval."""


def points(config: Config) -> list[Point]:
    return [{"rank": rank, "seed": seed} for seed in range(config.seeds) for rank in config.ranks]


def measure(config: Config, first: xr.Dataset, rank: int, seed: int) -> xr.Dataset:
    """Train over α at η_FFT and, for some ranks, over m·η_FFT from each α₀ and over the (α, η) grid: the log-losses.

    Signal to drift is stored for the paths. `fft` is the mean over seeds of full fine-tuning's at every rate.
    """
    eta, n = fft_rate(first.log_loss), len(config.alphas)
    along_alpha = [(alpha, eta) for alpha in config.alphas]
    along_rate = [(start, m * eta) for start in config.starts for m in config.multipliers(start)]
    both = [(alpha, m * eta) for alpha in config.grid_alphas for m in config.grid_rates]
    paths, capacity = len(along_alpha) + len(along_rate), max(n, len(both))
    prepare = partial(sweep_of, config, seed, rank, max(config.ranks))
    losses, pure, by_both = (np.full(size, np.nan) for size in (paths, paths, len(both)))
    if rank in config.path_ranks:
        losses, pure = swept_losses_and_purity(config, prepare(along_alpha + along_rate, paths))
        by_both = swept_losses(config, prepare(both, capacity)) if both else by_both
    else:
        losses[:n] = swept_losses(config, prepare(along_alpha, capacity))
    data = xr.Dataset(
        {
            "by_alpha": ("alpha", losses[:n]),
            "by_rate": (("start", "alpha"), losses[n:].reshape(-1, n)),
            "purity_by_alpha": ("alpha", pure[:n]),
            "purity_by_rate": (("start", "alpha"), pure[n:].reshape(-1, n)),
            "fft": ("fft_rate", first.log_loss.mean("seed").values),
            "eta_fft": eta,
        },
        coords={"alpha": list(config.alphas), "start": list(config.starts), "fft_rate": list(config.fft_rates)},
        attrs=training_attributes(config),
    )
    if not both:
        return data
    axes = {"grid_alpha": list(config.grid_alphas), "grid_rate": list(config.grid_rates)}
    return data.assign(by_both=xr.DataArray(by_both.reshape(len(config.grid_alphas), -1), axes))


def report(config: Config, data: xr.Dataset) -> Report:
    data = data.sel(rank=list(config.ranks))
    rows = _law_rows(config, data) if len(config.ranks) > 1 else []
    for rank in config.path_ranks:
        here = data.sel(rank=rank)
        rows += [*_path_rows(config, here), *(_coupling_rows(config, here) if config.grid_alphas else [])]
    return Report(rows, _sentences(config, data), rank_law_figures.draw(config, data))


def _law_rows(config: Config, data: xr.Dataset) -> list[Row]:
    used = int(np.isfinite(best_alphas(config, by_seed(data.by_alpha))).sum())
    count = f"{used} of {len(config.ranks)} ranks"
    return [
        Row(f"F1c  free exponent of α* in r, {count}", "0.5", *free_exponent(config, data).cells(ON_EDGE)),
        Row(f"F1c  C of α* = C√r, {count}", STATED_C, *coefficient(config, data).cells(ON_EDGE)),
        Row("F1c  the same over 1/σ_A", "1 (V2)", *coefficient(config, data, unit=-1.0).cells(ON_EDGE)),
    ]


def _sentences(config: Config, data: xr.Dataset) -> list[str]:
    """The best α of every rank, what the free exponent says of ½, and what was not asked here."""
    best, on = best_points(config.alphas, by_seed(data.by_alpha)), f"on {config.problem.label}"
    found = ", ".join(f"{r}: {_shown(b)}" for r, b in zip(config.ranks, best, strict=True))
    note = " (flagged ones are not fitted)" if any(b.flag for b in best) else ""
    sentences = [f"F1c {on}: best α at η_FFT = {float(data.eta_fft.values.flat[0]):.3g} by rank: {found}{note}."]
    if len(config.ranks) > 1:
        slope = free_exponent(config, data)
        contains = "contains" if slope.low <= 0.5 <= slope.high else "does not contain"
        law = f"the free exponent {slope} {slope.interval()} {contains} the stated ½"
        sentences.append(f"F1c {on}: {law}." if np.isfinite(slope.mean) else f"F1c {on}: no exponent can be fitted.")
    else:
        sentences.append(f"F1c {on}: one rank gives no exponent of r.")
    return sentences if config.grid_alphas else [*sentences, f"F1a {on}: the (α, η) grid was not run."]


def _path_rows(config: Config, data: xr.Dataset) -> list[Row]:
    where = f"r = {int(data['rank'])}"
    along_alpha, along_rate = best_points(config.multipliers, paths(data))
    shown = f"{_shown(along_alpha)} : {_shown(along_rate)}"
    lowest = f"{along_alpha.log_loss:.3f} : {along_rate.log_loss:.3f}"
    rows = [
        Row(f"F1b  best multiplier of α : of η from α₀ = {config.alpha_0:g}, {where}", "–", shown, "–"),
        Row(f"F1b  their ratio, {where}", "> 1", *path_ratio(config, data).cells(ON_EDGE)),
        Row(f"F1b  lowest ln loss along α : along η, {where}", "–", lowest, "–"),
        Row(
            f"F1b  ln of the lowest loss along η over that along α, {where}",
            "> 0",
            *path_depth(config, data).cells(ON_EDGE),
        ),
    ]
    for m, ratio in purity_over_paths(config, data).items():
        name = f"F2c  signal to drift, {m:g}·α₀ over {m:g}·η_FFT, {where}"
        rows.append(Row(name, "> 1", *ratio.cells("diverged")))
    return rows


def _coupling_rows(config: Config, data: xr.Dataset) -> list[Row]:
    losses, where = grid_losses(data), f"r = {int(data['rank'])}"
    lowered = lowering(config, losses.mean(0, keepdims=True))
    exponent = bootstrap(partial(rate_exponent, config), losses)
    found = np.array(config.grid_alphas)[np.isfinite(valley(config.grid_rates, losses)[1])]
    span = f"α = {found[0]:g} over α = {found[-1]:g}" if len(found) else "no α"
    rows = [
        Row(f"F1a  exponent of η* in α, {where}", "< 0", *exponent.cells(ON_EDGE)),
        Row(f"F1a  steps of α that lower the best loss, {where}", "all", f"{lowered.sum()} of {len(lowered)}", "–"),
        Row(f"F1a  ln best loss at {span}, {where}", "> 0", *bootstrap(partial(gain, config), losses).cells(ON_EDGE)),
    ]
    for alpha in sorted({config.grid_alphas[0], config.alpha_0} & set(config.grid_alphas)):
        ratio = bootstrap(partial(wanted, config, alpha), losses)
        rows.append(Row(f"F1a  η*/η_FFT at α = {alpha:g}, {where}", "≈ 10 at small α", *ratio.cells(ON_EDGE)))
    return rows


def _shown(best: Best) -> str:
    return best.flag or f"{best.x:.3g}"


EXPERIMENT = Experiment(
    name="rank_law",
    title="F1a, F1b, F1c: the best α and η together, along each path from (η_FFT, α₀), and over ranks.",
    configure=configure,
    points=points,
    measure=measure,
    report=report,
    tiny={
        **SMALL,
        "ranks": (1, 4, 8),
        "grid_ranks": (4,),
        "alphas": tuple(4.0**k for k in range(-1, 7)),
        "starts": (16.0, 1.0),
        "grid_alphas": (0.25, 16.0, 1024.0),
    },
    homes=HOMES,
    refuses=tuned_only,
    first=rates.of,
)
