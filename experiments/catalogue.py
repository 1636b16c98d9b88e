"""List every experiment in the order in which a report tells of them, and say on which problems each is reproduced."""

from collections.abc import Iterable
from typing import Any

from experiments.benchmark import every_matrix, growth, on_device
from experiments.benchmark import experiment as benchmark
from experiments.curvature import (
    adapter_atlas,
    algebra,
    asymmetric_scaling,
    at_scale,
    density_check,
    is_it_curvature,
    layers,
    purification,
    residual_curvature,
    suppression,
)
from experiments.curvature.checked import factorings
from experiments.dynamics import (
    drift_knockout,
    readings,
    signal_descent,
    spectra_along_training,
    stability,
    trajectories,
    update_scaling,
)
from experiments.gauge import gauge_breaking, optimizer_gauge, rank_stability
from experiments.lab.errors import OptionError
from experiments.lab.experiment import Experiment
from experiments.lab.problem import Problem
from experiments.tuning import (
    crossover,
    magnitudes,
    protocol_comparison,
    rank_law,
    rate_rules,
    rates,
    where_alpha_pays,
)
from experiments.tuning.methods import samples

BENCHMARK = benchmark.EXPERIMENT
"""Run by itself, on a machine that does nothing else."""
ALONE: tuple[Experiment[Any], ...] = (BENCHMARK, growth.EXPERIMENT, on_device.EXPERIMENT, every_matrix.EXPERIMENT)
"""What no reproduction runs, as its times depend on the machine."""

EXPERIMENTS: tuple[Experiment[Any], ...] = tuple(
    module.EXPERIMENT
    for module in (
        algebra,
        magnitudes,
        suppression,
        purification,
        residual_curvature,
        asymmetric_scaling,
        density_check,
        at_scale,
        is_it_curvature,
        layers,
        adapter_atlas,
        trajectories,
        readings,
        update_scaling,
        signal_descent,
        stability,
        drift_knockout,
        spectra_along_training,
        optimizer_gauge,
        gauge_breaking,
        factorings,
        rank_stability,
        rates,
        rank_law,
        crossover,
        rate_rules,
        protocol_comparison,
        where_alpha_pays,
        samples,
    )
)


def find(name: str) -> Experiment[Any]:
    """Return the experiment of that name. Raises `OptionError` for one that is unknown, with the names there are."""
    known = {experiment.name: experiment for experiment in (*EXPERIMENTS, *ALONE)}
    if name not in known:
        raise OptionError(f"experiment: unknown {name!r}; there are {', '.join(known)}")
    return known[name]


def is_reproduced(experiment: Experiment[Any], problem: Problem) -> bool:
    """Tell whether a reproduction asks this question of this problem: at home, or where the problem itself says so."""
    asked = problem.name in experiment.homes or experiment.name in problem.reproduced
    return asked and not experiment.refuses(problem)


def reproduced(problems: Iterable[Problem]) -> list[tuple[Experiment[Any], Problem]]:
    """List every experiment with every one of the problems on which it is reproduced."""
    chosen = list(problems)
    return [(e, p) for e in EXPERIMENTS for p in chosen if is_reproduced(e, p)]
