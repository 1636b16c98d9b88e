"""V-protocol on the pretrained encoder: LoRA's variants at η_FFT, by training loss, held-out and other texts.

The loss is the error, after the last step, on texts of the run itself. What counts as a gap and as closing it was fixed
in `protocol_comparison`, before MiniLM was run.
"""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import xarray as xr

from experiments.analysis.intervals import Interval, mean_interval
from experiments.lab.errors import check_positive
from experiments.lab.experiment import Experiment, Report, Row, main
from experiments.problems.minilm import SETS
from experiments.tuning import rates as minilm_rates
from experiments.tuning.methods import FULL, PLAIN, TENFOLD, V1, V2, recipes
from experiments.tuning.protocol_comparison import fraction, gap, outcome_rows, reductions
from experiments.tuning.protocol_figures import draw_estimates
from experiments.tuning.rates import SMALL, fft_rate, log_losses
from experiments.tuning.runs import Training, outcome
from signal_drift import plotting


@dataclass(frozen=True)
class Config(Training):
    """Every recipe at every rank and seed; full fine-tuning is that of the sweep at η_FFT."""

    ranks: tuple[int, ...] = (8, 64)
    """Ranks r."""
    coefficient: float = 256.0
    """C of V1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "ranks")

    @property
    def tasks(self) -> tuple[str, ...]:
        """As `protocol_comparison` has several."""
        return (self.name,)


def points(config: Config) -> list[dict]:
    names = [*recipes(1, {}), FULL]
    return [
        {"seed": seed, "rank": rank, "recipe": name}
        for seed in range(config.seeds)
        for rank in config.ranks
        for name in names
    ]


def measure(config: Config, first: xr.Dataset, seed: int, rank: int, recipe: str) -> xr.Dataset:
    eta = fft_rate(first)
    if recipe == FULL:
        return first.sel(seed=seed, rate=eta, drop=True).assign(learning_rate=eta)
    methods = recipes(rank, config.encoder("float32").fan_in(), config.coefficient)
    return outcome(config, seed, eta, methods[recipe], rank).assign(learning_rate=eta)


def as_comparison(config: Config, data: xr.Dataset) -> xr.Dataset:
    """The log-losses as `protocol_comparison` stores them: of one task, at one share of η_FFT."""
    losses = log_losses(data).drop_vars("set").to_dataset(name="log_loss")
    return losses.expand_dims(task=[config.name], share=[1.0])


def purity(data: xr.Dataset) -> xr.DataArray:
    """The geometric mean of ‖ΔW_Signal‖/‖ΔW_Drift‖ over the steps after the first, whose drift is zero (X3)."""
    ratio = (data.signal / data.drift).drop_sel(recipe=FULL).isel(step=slice(1, None))
    return np.exp(np.log(ratio).mean("step"))


def gains(data: xr.Dataset, recipe: str, rank: int) -> dict[str, Interval]:
    """Correlation with people's ratings on each set of texts, less that of LoRA with α = r at the same seed."""
    here = data.correlation.sel(rank=rank)
    above = (here.sel(recipe=recipe) - here.sel(recipe=PLAIN)).transpose("set", "seed")
    return {name: mean_interval(above.sel(set=name).values) for name in SETS}


def report(config: Config, data: xr.Dataset) -> Report:
    data = data.sel(recipe=[*recipes(1, {}), FULL])
    compared = as_comparison(config, data).isel(task=0, share=0)
    rows = [row for rank in config.ranks for row in outcome_rows(compared.sel(rank=rank))]
    for rank in config.ranks:
        for recipe in data.recipe.values:
            rows += _scores(config, data, str(recipe), rank)
    for rank in config.ranks:
        for recipe in recipes(1, {}):
            ratio = mean_interval(purity(data).sel(rank=rank, recipe=recipe).values)
            rows.append(
                Row(f"F2c  signal to drift, {recipe}, {config.name}, r = {rank}", "–", str(ratio), ratio.interval())
            )
    drawing = partial(_figure, config, data, reductions(as_comparison(config, data)))
    return Report(rows, [*_closed(config, compared), _best(config, data)], {"minilm_protocol": drawing})


def _scores(config: Config, data: xr.Dataset, recipe: str, rank: int) -> list[Row]:
    rows, where = [], f"{recipe}, {config.name}, r = {rank}"
    gain = gains(data, recipe, rank)
    for name in SETS[1:]:
        score = mean_interval(data.correlation.sel(set=name, recipe=recipe, rank=rank).values)
        measured = f"{score} ({gain[name].mean:+.3f} on LoRA, α = r)"
        rows.append(Row(f"V    correlation, {name}, {where}", "–", measured, score.interval()))
    return rows


def _closed(config: Config, compared: xr.Dataset) -> list[str]:
    """What three methods close of the gap, where there is one."""
    sentences = []
    for rank in config.ranks:
        here, where = compared.sel(rank=rank), f"On {config.name} at η_FFT, r = {rank}"
        if not gap(here).low > 0:
            sentences.append(
                f"{where}: no gap between LoRA (α = r) and FFT, {gap(here)} {gap(here).interval()} in ln loss."
            )
            continue
        shares = ", ".join(f"{method} closes {_share(here, method)}" for method in (V1, V2, TENFOLD))
        sentences.append(f"{where}: of the gap between LoRA (α = r) and FFT {shares}.")
    return sentences


def _share(here: xr.Dataset, method: str) -> str:
    if np.any(np.isinf(here.log_loss.sel(recipe=method))):
        return "nothing that could be measured (diverged)"
    found = fraction(here, method)
    return f"{found} {found.interval()}"


def _best(config: Config, data: xr.Dataset) -> str:
    """Which recipe fits best and which rates held-out texts best, means over seeds."""
    loss, held = log_losses(data).mean("seed"), data.correlation.sel(set=SETS[1]).mean("seed")
    parts = [
        f"r = {rank}: {loss.sel(rank=rank).idxmin('recipe').item()} and {held.sel(rank=rank).idxmax('recipe').item()}"
        for rank in data["rank"].values
    ]
    return f"On {config.name} at η_FFT the lowest training loss and the best held-out correlation: {'; '.join(parts)}."


def _figure(config: Config, data: xr.Dataset, lower: xr.DataArray) -> plotting.Figure:
    title = f"V  {config.name} at η_FFT: {config.steps} steps of Adam, {config.seeds} seeds, mean and 95% interval"
    figure, axes = plotting.panels(2 + len(config.ranks), title, height=4.8)
    draw_estimates(axes[0], config.ranks, lower.isel(task=0, share=0))
    axes[0].set(xlabel="ln (loss of LoRA, α = r) − ln loss", title="(a) texts of the run")
    draw_estimates(axes[1], config.ranks, data.correlation.sel(set=SETS[1]))
    axes[1].set(xlabel="correlation with people's ratings", title="(b) held-out texts")
    axes[1].set_yticklabels([])
    axes[0].legend(loc="lower left")
    ratio = (data.signal / data.drift).drop_sel(recipe=FULL).isel(step=slice(1, None))
    for letter, panel, rank in zip("cdefgh", axes[2:], config.ranks, strict=False):
        names = list(ratio.recipe.values)
        for name, color in zip(names, plotting.shades(len(names)), strict=True):
            line = np.exp(np.log(ratio.sel(rank=rank, recipe=name)).mean("seed"))
            panel.plot(ratio.step, line, color=color, label=name)
        panel.set(yscale="log", xlabel="step", title=f"({letter}) r = {rank}")
    axes[2].set_ylabel(r"$\|\Delta w_{Signal}\|\,/\,\|\Delta w_{Drift}\|$")
    axes[2].legend(fontsize=9)
    return figure


EXPERIMENT = Experiment(
    name="minilm_protocol",
    title="V-protocol on a pretrained encoder: every method at η_FFT, by loss, held-out and other texts.",
    paper=Config(),
    quick=replace(Config(), **SMALL, ranks=(1, 4)),
    points=points,
    measure=measure,
    report=report,
    extra=True,
    first=minilm_rates.of,
)

if __name__ == "__main__":
    main(EXPERIMENT)
