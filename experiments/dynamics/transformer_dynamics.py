"""F2c on a transformer: ‖Δw_Signal‖/‖Δw_Drift‖ along training with Adam, α-scaling against η-scaling."""

from dataclasses import dataclass, replace
from functools import partial

import xarray as xr

from experiments.analysis.divergence import behaviour, final, per_run, words
from experiments.analysis.intervals import Interval, mean_interval
from experiments.dynamics.eta_against_alpha import (
    FAMILIES,
    Families,
    deepest_ratio,
    draw_families,
    pairs,
    purity,
    purity_rows,
    slope,
    trajectories,
)
from experiments.lab.experiment import Experiment, Report, Row, main
from experiments.problems.transformer import TINY, Setting, adapters, problem


@dataclass(frozen=True)
class Config(Families, Setting):
    """Ten trajectories on the transformer, with the multipliers of Fig. 2."""


def points(config: Config) -> list[dict]:
    return [{"seed": seed} for seed in range(config.seeds)]


def measure(config: Config, seed: int) -> xr.Dataset:
    loss, base = problem(config, seed)
    return trajectories(config, loss, base, adapters(config, base, seed), config.scaling(config.alpha))


def estimates(config: Config, data: xr.Dataset) -> dict[str, Interval]:
    """F2c: the exponents of η and α in the ratio, and the ratio of α-scaling over that of η-scaling in each pair."""
    ratio = purity(data.drop_sel(run="FFT"))
    slopes = {f"exponent of {family}": slope(config, ratio, family) for family in FAMILIES}
    quotients = {
        f"{alpha} over {eta}": mean_interval((ratio.sel(run=alpha) / ratio.sel(run=eta)).values)
        for alpha, eta in pairs(config, data)
    }
    return slopes | quotients


def report(config: Config, data: xr.Dataset) -> Report:
    names, level, lora = per_run(behaviour, data.loss), final(data.loss), data.drop_sel(run="FFT")
    rows = purity_rows(config, lora)
    for run in data.run.values:
        ratio = mean_interval(level.sel(run=run).values)
        measured = f"{words(names.sel(run=run))}; {ratio}"
        rows.append(Row(f"     {run}: behaviour; final / initial loss", "–", measured, ratio.interval()))
    deeper = deepest_ratio(config, data)
    rows.append(Row("     deepest final loss, α-scaling over η-scaling", "< 1", str(deeper), deeper.interval()))
    sentence = (
        f"On the transformer the pairs' signal-to-drift ratio of α-scaling over η-scaling is "
        f"{', '.join(f'{e} ({k})' for k, e in estimates(config, data).items() if ' over ' in k)}."
    )
    ratio = (lora.signal / lora.drift).isel(step=slice(1, None))
    name = r"$\|\Delta w_{Signal}\|\,/\,\|\Delta w_{Drift}\|$"
    drawing = partial(draw_families, config, "F2c  Signal to drift, transformer", ratio, name, purity(lora))
    return Report(rows, [sentence], {"transformer_purity": drawing})


EXPERIMENT = Experiment(
    name="transformer_dynamics",
    title="F2c on a transformer: the signal-to-drift ratio along training, learning rate against scaling factor.",
    paper=Config(),
    quick=replace(Config(), **TINY, steps=30),
    points=points,
    measure=measure,
    report=report,
)

if __name__ == "__main__":
    main(EXPERIMENT)
