"""P4-update, X3 and A1-sgd on a transformer: the exponents of signal and drift of one update (Eq. 48–50)."""

from dataclasses import dataclass, replace

import xarray as xr

from experiments.analysis.intervals import Interval
from experiments.dynamics.update_scaling import FAMILIES, FORGETFUL, Grid, fitted, step_norms
from experiments.dynamics.update_scaling import report as report_steps
from experiments.lab.experiment import Experiment, Report, main
from experiments.problems.transformer import TINY, Setting, adapters, problem


@dataclass(frozen=True)
class Config(Grid, Setting):
    """The first two steps of every optimizer over α and over η."""


def points(config: Config) -> list[dict]:
    return [{"seed": seed} for seed in range(config.seeds)]


def measure(config: Config, seed: int) -> xr.Dataset:
    loss, base = problem(config, seed)
    return step_norms(config, loss, base, adapters(config, base, seed), config.scaling, seed)


def estimates(data: xr.Dataset, optimizer: str = "Adam", state: str = "generic") -> dict[tuple[str, str], Interval]:
    """The measured exponent of η and of α in signal, drift and ratio; P4-update states `FORGETFUL`."""
    return {(part, family): fitted(data, optimizer, state, part, family) for part in FORGETFUL for family in FAMILIES}


def report(config: Config, data: xr.Dataset) -> Report:
    return report_steps(config, data, "transformer_updates")


EXPERIMENT = Experiment(
    name="transformer_updates",
    title="P4-update, X3, A1-sgd on a transformer: how signal and drift of one update scale with η and α.",
    paper=Config(),
    quick=replace(Config(), **TINY, multipliers=(1.0, 16.0, 256.0)),
    points=points,
    measure=measure,
    report=report,
)

if __name__ == "__main__":
    main(EXPERIMENT)
