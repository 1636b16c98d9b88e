"""Hold statements against drawn problems and a problem itself: errors, tolerances and controls of every check.

What is stored is the error, the tolerance and the error of the control, which is wrong on purpose, of every check over
kinds of problems, seeds, α, and at B = 0 and away from it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import xarray as xr

from experiments.lab.errors import OptionError
from experiments.lab.experiment import Experiment, Point, Report, Row
from experiments.lab.problem import Problem, Setting
from signal_drift import plotting
from signal_drift.propositions.check import Check, over
from signal_drift.propositions.random_problems import KINDS, instance_of, random_instance
from signal_drift.propositions.subject import Instance

OWN = "the problem itself"
"""The kind that is not drawn at random."""
STARTS = {"B = 0": True, "B ≠ 0": False}
FLOOR, CEILING = 1e-8, 1e20
"""Where the figure puts a ratio of 0 and one without end."""


@dataclass(frozen=True)
class Checked(Setting, ABC):
    """Run every check of some statements over kinds of problems, seeds, α and B."""

    alphas: tuple[float, ...] = (1e-3, 1.0, 1e4)
    """Values of α."""
    kinds: tuple[str, ...] = (OWN,)
    """Problems: that of the configuration, and those drawn at random, by the names of `random_problems.KINDS`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for kind in self.kinds:
            if kind not in (OWN, *KINDS):
                raise OptionError(f"kinds: unknown {kind!r}; there are {', '.join((OWN, *KINDS))}")

    @property
    @abstractmethod
    def statements(self) -> Sequence[Callable[[Instance], Check]]:
        """Return the checks."""


def experiment_of(name: str, title: str, shape: type[Checked], what: str) -> Experiment[Checked]:
    """Make the experiment that runs the checks of a configuration; its figure says `what` they are."""
    return Experiment(
        name=name,
        title=title,
        configure=partial(configure, shape=shape),
        points=points,
        measure=measure,
        report=partial(report, figure=name, what=what),
        tiny={"seeds": 1, "alphas": (1.0,), "kinds": ("quadratic", OWN)},
        captions={name: CAPTION},
    )


def configure(problem: Problem, shape: type[Checked]) -> Checked:
    """Take the paper's model at a width where matrices cost nothing, beside all drawn problems; any other alone."""
    if problem.paper:
        return shape(replace(problem.resized(6), samples=20), kinds=(*KINDS, OWN))
    return shape(problem, seeds=1, alphas=(1.0,))


def points(config: Checked) -> list[Point]:
    return [{"kind": kind} for kind in config.kinds]


def measure(config: Checked, kind: str) -> xr.Dataset:
    """Measure error, tolerance and control of every check on every instance of one kind."""
    checks = [
        [[_checks(config, kind, seed, alpha, begins) for begins in STARTS.values()] for alpha in config.alphas]
        for seed in range(config.seeds)
    ]
    dims = ("seed", "alpha", "start", "check")

    def every(value: Callable[[Check], float]) -> tuple[tuple[str, ...], np.ndarray]:
        return dims, np.array([[[[value(c) for c in here] for here in row] for row in table] for table in checks])

    words = checks[0][0][0]
    return xr.Dataset(
        {
            "error": every(lambda c: c.error),
            "tolerance": every(lambda c: c.tolerance.value),
            "control_error": every(lambda c: c.control_error),
            "applicable": every(lambda c: c.applicable),
        },
        coords={
            "seed": np.arange(config.seeds),
            "alpha": list(config.alphas),
            "start": list(STARTS),
            "check": [_name(p) for p in config.statements],
            "claim": ("check", [c.claim for c in words]),
            "statement": ("check", [c.statement for c in words]),
            "control": ("check", [c.control for c in words]),
            "rule": ("check", [c.tolerance.rule for c in words]),
        },
    )


def _checks(config: Checked, kind: str, seed: int, alpha: float, begins: bool) -> list[Check]:
    here = _instance(config, kind, seed, alpha, begins)
    return [statement(here) for statement in config.statements]


def _instance(config: Checked, kind: str, seed: int, alpha: float, begins: bool) -> Instance:
    if kind != OWN:
        return random_instance(kind, seed, alpha, begins)
    problem, drawn = config.problem, config.problem.draw(seed)
    scaling = dict.fromkeys(drawn.base, problem.scaling(alpha))
    return instance_of(drawn.loss, drawn.base, problem.adapters(seed), scaling, np.random.default_rng(seed), begins)


def _name(proposition: Callable[[Instance], Check]) -> str:
    """The words of its name, and what it is about if one function makes several checks."""
    function = getattr(proposition, "func", proposition)
    return ", ".join([function.__name__.replace("_", " "), *getattr(proposition, "keywords", {}).values()])


class Margin(NamedTuple):
    """Hold the largest error over tolerance of a statement, the smallest of its control, and how many instances."""

    statement: float
    control: float
    instances: int

    @property
    def supported(self) -> bool:
        """Tell whether it was tried, holds wherever it applies, and its control nowhere there."""
        return self.instances > 0 and self.statement <= 1 < self.control


def margin(data: xr.Dataset) -> Margin:
    """Return the margin of all checks in the data, over the instances that meet their assumptions."""
    met = data.applicable.values.astype(bool)
    if not met.any():
        return Margin(np.nan, np.nan, 0)
    statement, control = (part.values[met] for part in ratios(data))
    return Margin(float(np.max(statement)), float(np.min(control)), int(met.sum()))


def margins(data: xr.Dataset) -> dict[str, Margin]:
    """Return the margin of every claim, of all checks that carry its name together."""
    return {claim: margin(data.isel(check=data.claim.values == claim)) for claim in dict.fromkeys(data.claim.values)}


def ratios(data: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    """Return error/tolerance of the statements and of their controls."""
    statement, control = (
        xr.apply_ufunc(over, data[name], data.tolerance, vectorize=True) for name in ("error", "control_error")
    )
    return statement, control


def report(config: Checked, data: xr.Dataset, figure: str, what: str) -> Report:
    """Report every check, and draw them under the name of the figure and what they are."""
    rows = [_row(data.isel(check=i)) for i in range(data.sizes["check"])]
    return Report(rows, _sentences(data), {figure: partial(_figure, config, data, what)})


def _row(check: xr.Dataset) -> Row:
    """One check: by how much it holds, and by how much its control does not."""
    here, of = margin(check), check.applicable.size
    quantity = f"{check.claim.item():<4} {check.statement.item()} [control: {check.control.item()}], error / tolerance"
    if not here.instances:
        return Row(quantity, "≤ 1 [> 1]", f"applies to none of {of}", "–")
    return Row(quantity, "≤ 1 [> 1]", f"{here.statement:.2g} [{here.control:.2g}] on {here.instances} of {of}", "–")


def _sentences(data: xr.Dataset) -> list[str]:
    found = margins(data)
    tried = {claim: here for claim, here in found.items() if here.instances}
    failed = [f"{claim} ({here.statement:.2g})" for claim, here in tried.items() if not here.statement <= 1]
    passed = [f"{claim} ({here.control:.2g})" for claim, here in tried.items() if not here.control > 1]
    untried = [claim for claim in found if claim not in tried]
    return [
        f"{len(tried) - len(failed)} of {len(tried)} claims hold on each of {data.applicable.isel(check=0).size} "
        f"instances that meets their assumptions; they fail for: {', '.join(failed) or 'none'}.",
        f"Every control is refuted wherever its statement applies, except for: {', '.join(passed) or 'none'}.",
        f"Without an instance that meets their assumptions: {', '.join(untried) or 'none'}.",
    ]


def _figure(config: Checked, data: xr.Dataset, what: str) -> plotting.Figure:
    """One line a check: every instance, the statement below its tolerance and the control above."""
    count, on = data.sizes["check"], "" if config.kinds != (OWN,) else f": {config.problem.label}"
    figure, (panel,) = plotting.panels(
        1,
        f"{what} on {data.applicable.isel(check=0).size} instances, and its control{on}",
        height=1.8 + 0.33 * count,
        width=11.0,
    )
    panel.axvspan(FLOOR / 30, 1, color=plotting.COLOR["other"], alpha=0.18, lw=0, label="holds")
    panel.axvline(1, ls="--", color=plotting.COLOR["prediction"], label="tolerance")
    for y in range(count):
        check = data.isel(check=y)
        met = check.applicable.values.astype(bool)
        marks = (("o", "signal", "statement", np.max), ("D", "drift", "control", np.min))
        for values, (mark, color, label, end) in zip(ratios(check), marks, strict=True):
            x = np.clip(values.values[met], FLOOR, CEILING)
            panel.plot(x, np.full(len(x), y), "|", ms=7, color=plotting.COLOR[color], alpha=0.35)
            if len(x):
                panel.plot(end(x), y, mark, ms=8, color=plotting.COLOR[color], label=None if y else label)
    ticks = [FLOOR, 1e-4, 1, 1e4, 1e8, 1e12, 1e16, CEILING]
    names = ["≤ $10^{-8}$", "$10^{-4}$", "1", "$10^4$", "$10^8$", "$10^{12}$", "$10^{16}$", "∞"]
    panel.set(xscale="log", xlim=(FLOOR / 30, 30 * CEILING), xlabel="error / tolerance; the mark is the worst instance")
    panel.set_xticks(ticks, names)
    panel.minorticks_off()
    labels = [f"{claim}  {name}" for claim, name in zip(data.claim.values, data.check.values, strict=True)]
    panel.set(yticks=range(count), ylim=(count - 0.5, -0.5))
    panel.set_yticklabels(labels)
    figure.legend(*panel.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


CAPTION = (
    "The largest error of every statement and the smallest of every control, a statement two tolerances off, "
    "in units of the tolerance: what is exact lies left of the line, and a control has to lie right of it."
)
"""What to see in the figure."""
