"""Sweep F1a, F1b, F1c: how the best α and η move together, the two paths of Eq. 2, and α*(r) ≈ C√r at η_FFT (Eq. 3).

The loss is the training loss after the last step ("fitting", Sec. 2); every optimum is that of one seed.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import xarray as xr

from experiments.analysis.intervals import Estimate, geometric_mean_of, mean_of
from experiments.lab.experiment import Experiment, Point, Report, Row, tuned_only
from experiments.tuning import rank_law_figures, rates
from experiments.tuning.rank_sweeps import (
    Config,
    at_the_cliff,
    best_alphas,
    changes,
    coefficient,
    coefficients_over_rate,
    configure,
    free_exponent,
    grid_losses,
    path_depth,
    path_ratio,
    purity_over_paths,
    rate_exponents,
    steps_of_path,
    wanted,
)
from experiments.tuning.runs import (
    HOMES,
    SMALL,
    STAGES,
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
        rows += [row for start in config.starts for row in _path_rows(config, here, start)]
        rows += _coupling_rows(config, here) if config.grid_alphas else []
    return Report(rows, _sentences(config, data), rank_law_figures.draw(config, data))


def _law_rows(config: Config, data: xr.Dataset) -> list[Row]:
    rows = [
        Row("F1c  free exponent of α* in r", "0.5", *free_exponent(config, data).cells(ON_EDGE)),
        Row("F1c  C of α* = C√r", STATED_C, *coefficient(config, data).cells(ON_EDGE)),
        Row("F1c  the same over 1/σ_A", "1 (V2)", *coefficient(config, data, unit=-1.0).cells(ON_EDGE)),
    ]
    return rows + [
        Row(f"F1c  C at {m:.3g} η_FFT, from the grid", "–", *C.cells(ON_EDGE))
        for m, C in coefficients_over_rate(config, data).items()
    ]


def _sentences(config: Config, data: xr.Dataset) -> list[str]:
    """The best α of every rank, where the sweep is in units that no problem sets, and what was not asked here."""
    on, sigma = f"on {config.problem.label}", config.problem.typical_sigma()
    eta = float(data.eta_fft.values.flat[0])
    best = best_alphas(config, data)
    found = ", ".join(f"{r}: {_shown(x)}" for r, x in zip(config.ranks, best.T, strict=True))
    horizon = f"η_FFT·T/σ_A = {eta * config.steps / sigma:.3g}, 1/σ_A = {1 / sigma:.3g}"
    sentences = [
        f"F1c {on}: best α at η_FFT = {eta:.3g} by rank, median over seeds: {found}. {horizon}.",
        *(f"F1 {on}: {reason}." for reason in [at_the_cliff(config, data)] if reason),
    ]
    if len(config.ranks) == 1:
        sentences.append(f"F1c {on}: one rank gives no exponent of r.")
    return sentences if config.grid_alphas else [*sentences, f"F1a {on}: the (α, η) grid was not run."]


def _shown(x: np.ndarray) -> str:
    """The median over seeds, and at how many of them the best is on the edge of the sweep."""
    edge = int(np.isnan(x).sum())
    if edge == len(x):
        return ON_EDGE
    return f"{np.nanmedian(x):.3g}" + (f" ({edge} of {len(x)} {ON_EDGE})" if edge else "")


def _path_rows(config: Config, data: xr.Dataset, start: float) -> list[Row]:
    where = f"from α₀ = {start:.3g} ({start * config.problem.typical_sigma():.2g}/σ_A), r = {int(data['rank'])}"
    alpha, rate, _ = steps_of_path(config, data, start)
    rows = [
        Row(f"F1b  best multiplier of α : of η {where}", "–", f"{_shown(alpha)} : {_shown(rate)}", "–"),
        Row(f"F1b  their ratio, {where}", "> 1", *path_ratio(config, data, start).cells(ON_EDGE)),
        Row(
            f"F1b  ln of the lowest loss along η over that along α, {where}",
            "> 0",
            *path_depth(config, data, start).cells(ON_EDGE),
        ),
    ]
    for m, ratio in purity_over_paths(config, data, start).items():
        name = f"F2c  signal to drift, {m:.3g}·α₀ over {m:.3g}·η_FFT, {where}"
        rows.append(Row(name, "> 1", *ratio.cells("diverged")))
    return rows


def _coupling_rows(config: Config, data: xr.Dataset) -> list[Row]:
    losses, where, sigma = grid_losses(data), f"r = {int(data['rank'])}", config.problem.typical_sigma()
    rows = [
        Row(
            f"F1a  exponent of η* in α, {where}",
            "< 0 (X15: −1 to −½)",
            *_cells(mean_of, rate_exponents(config, losses)),
        )
    ]
    pairs = zip(config.grid_alphas, config.grid_alphas[1:], strict=False)
    for (low, high), change in zip(pairs, changes(config, losses).T, strict=True):
        name = f"F1a  change of the best ln loss from α = {low:.3g} to {high:.3g}, {where}"
        rows.append(Row(name, "< 0", *_cells(mean_of, change)))
    for alpha in config.grid_alphas:
        name = f"F1a  η*/η_FFT at α = {alpha:.3g} ({alpha * sigma:.2g}/σ_A), {where}"
        rows.append(Row(name, "≈ 10 at small α", *_cells(geometric_mean_of, wanted(config, alpha, losses))))
    return rows


def _cells(estimate: Callable[[np.ndarray], Estimate], values: np.ndarray) -> tuple[str, str]:
    """The estimate from all seeds, none where one of them has its best on the edge."""
    return estimate(values).cells(ON_EDGE)


CAPTIONS = {
    "rank_law": "Best α at η_FFT over ranks, a small dot for each seed and a large one for their median. Dashed: the "
    "stated √r. Dotted: V2 = √r/σ_A.",
    "scaling_paths": "Final training loss (lower is better) along both paths of Eq. 2 from α₀ = 0.2/σ_A, the paper's "
    "place. The paper expects the solid path, of α, to reach farther and deeper than the dashed one, of η.",
    "path_purity": "Signal to drift along both paths (higher is purer). The paper expects the solid path, of α, above.",
    "best_rate": "Best learning rate over α; the paper says that it falls, and X15 how steeply: the grey wedge from "
    "the first point.",
    "best_loss": "Training loss at the best learning rate over α (lower is better); the paper says that it falls "
    "monotonically, more so at higher rank.",
}

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
    stages=STAGES,
    captions=CAPTIONS,
)
