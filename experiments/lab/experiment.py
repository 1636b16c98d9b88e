"""Define an experiment: a name, the question it asks of a problem, and three functions: points, measure, report."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, NamedTuple, TypeVar

import xarray as xr

from experiments.lab.figure_files import Drawing
from experiments.lab.problem import Problem
from experiments.lab.side_by_side import SideBySide
from signal_drift.errors.words import printable

C = TypeVar("C")
"""A frozen dataclass: everything that decides what an experiment measures."""

Point = dict[str, Any]
"""The labels of one independent piece of an experiment."""


class Row(NamedTuple):
    """Hold one line of a summary: a quantity, what the paper predicts, what was measured, and its 95% interval."""

    quantity: str
    predicted: str
    measured: str
    interval: str


class Report(NamedTuple):
    """Holds what an experiment says of its stored results."""

    rows: list[Row]
    sentences: list[str]
    figures: dict[str, Drawing]
    tables: Sequence[SideBySide] = ()


def anything(problem: Problem) -> str:
    """Refuse no problem."""
    return ""


@dataclass(frozen=True)
class Experiment(Generic[C]):
    """Describe how to ask one question of any problem that can answer it.

    `configure(problem)` gives the configuration at the paper's size, and `tiny` the fields in which the size used in
    tests differs from it. `points(config)` labels the independent pieces; `measure(config, **point)` computes one as a
    dataset; `report(config, dataset)` sees only what was stored. `refuses(problem)` says in a few words why the problem
    cannot answer, or nothing. `first(config)` names another experiment and its configuration that this one builds on:
    it is measured and stored before, and its results are `measure`'s argument `first`. `homes` are the problems on
    which the statements of the paper are decided, the first of them the default. `stages` multiply the seeds: more
    are added, stage by stage, until every claim that rests on the experiment is decided; their number is fixed before
    anything is measured, as the levels of all intervals are shared over them. `captions` say of every figure what to
    see in it.
    """

    name: str
    title: str
    configure: Callable[[Problem], C]
    points: Callable[[C], list[Point]]
    measure: Callable[..., xr.Dataset]
    report: Callable[[C, xr.Dataset], Report]
    tiny: Mapping[str, Any] = field(default_factory=dict, hash=False)
    homes: tuple[str, ...] = ("mlp",)
    refuses: Callable[[Problem], str] = anything
    first: Callable[[C], tuple["Experiment[Any]", Any]] | None = None
    stages: tuple[int, ...] = (1,)
    captions: Mapping[str, str] = field(default_factory=dict, hash=False)

    def staged(self, config: C) -> list[C]:
        """Return the configuration at every stage, fewest seeds first."""
        first: Any = config
        return [replace(first, seeds=first.seeds * m) if m > 1 else first for m in self.stages]

    def at(self, problem: Problem, quick: bool = False) -> C:
        """Return the configuration on a problem, at the paper's size or at the one used in tests."""
        config: Any = self.configure(problem)
        if not quick:
            return config
        smaller = {"problem": config.problem.tiny()} if hasattr(config, "problem") else {}
        return replace(config, **smaller, **self.tiny)


def dense_only(problem: Problem) -> str:
    """Refuse problems whose full spectra are not affordable."""
    return "" if problem.dense else "its full spectrum is not affordable"


def tuned_only(problem: Problem) -> str:
    """Refuse problems on which no training run can be judged."""
    return "" if problem.tuning else "it has no sweep to tune it by"


HEADINGS = Row("quantity", "predicted", "measured", "95% interval")


def table(rows: Iterable[Row], headings: Row = HEADINGS) -> str:
    """Lay the rows out as an aligned Markdown table."""
    lines = [headings, *(Row(*map(printable, row)) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(4)]
    text = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |" for line in lines]
    return "\n".join([text[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *text[1:]])
