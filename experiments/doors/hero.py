"""Draw what was found in one figure: exact spectra over α, the trajectories of F2a, and every verdict."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import xarray as xr

from experiments.curvature import purification
from experiments.dynamics import trajectories
from experiments.dynamics.trajectory_figures import draw_trajectories
from experiments.lab.experiment import Experiment
from experiments.lab.figure_files import Drawing
from experiments.lab.problem import Problem
from experiments.lab.runner import Reader, draw_figures, last_stage
from experiments.ledger.claim import GROUPS
from experiments.ledger.first_screen import is_here
from experiments.ledger.pages import MARKS
from experiments.ledger.table import Entry
from signal_drift import plotting

COLORS = {
    "supported": "lora",
    "refuted": "drift",
    "inconclusive": "band",
    "not testable here": "task",
    "not run": "task",
}
"""The colour of a verdict, beside the mark that it has in the report."""
COLUMNS = 2


def draw_hero(entries: Sequence[Entry], problem: Problem, read: Reader, quick: bool) -> bool:
    """Draw the figure "hero" from what is stored on a problem, and tell whether all of it was there.

    Its verdicts are those on the paper that the report is about, and on our own statements.
    """
    spectra = _stored(purification.EXPERIMENT, problem, read, quick)
    runs = _stored(trajectories.EXPERIMENT, problem, read, quick)
    if spectra is None or runs is None:
        return False
    verdicts = [(e["group"], e["id"], e["verdict"]) for e in entries if is_here(e)]
    drawing: Drawing = partial(_figure, spectra, runs, verdicts)
    seen = xr.Dataset({"verdicts": ("claim", [" ".join(x) for x in verdicts])})
    draw_figures({"hero": drawing}, [spectra[1], runs[1], seen], read.out)
    return True


def _stored(experiment: Experiment[Any], problem: Problem, read: Reader, quick: bool) -> tuple[Any, xr.Dataset] | None:
    config = last_stage(experiment, experiment.at(problem, quick), read.out)
    data = read(experiment, config).data
    return None if data is None else (config, data)


def _figure(
    spectra: tuple[Any, xr.Dataset], runs: tuple[Any, xr.Dataset], verdicts: Sequence[tuple[str, str, str]]
) -> plotting.Figure:
    figure, (left, middle, right) = plotting.panels(3, "Does LoRA's α theory hold?", height=5.6, width=6.4)
    purification.draw_spectra(left, *spectra)
    left.set_title(r"(a) exact spectra of $H_{LoRA}$ over α, one seed")
    draw_trajectories(middle, *runs)
    middle.set_title("(b) loss of η-scaled and α-scaled runs, Fig. 2a")
    draw_verdicts(right, verdicts)
    return figure


def draw_verdicts(panel: plotting.Axes, verdicts: Sequence[tuple[str, str, str]]) -> None:
    """Write the id of every claim with the mark and the colour of its verdict, group by group."""
    panel.set_axis_off()
    panel.set_title("(c) every statement of the paper, and ours")
    rows = [row for group in GROUPS for row in _rows(group, [x for x in verdicts if x[0] == group])]
    key = [(f"{MARKS[verdict]} {verdict}", color, "normal") for verdict, color in COLORS.items() if MARKS[verdict]]
    rows += [[], *(key[i : i + COLUMNS] for i in range(0, len(key), COLUMNS))]
    for y, row in enumerate(rows):
        for x, (text, color, weight) in enumerate(row):
            place = (0.02 + x / COLUMNS, 1 - (y + 0.5) / len(rows))
            panel.text(*place, text, color=plotting.COLOR[color], weight=weight, fontsize=10, va="center")
    panel.set(xlim=(0, 1), ylim=(0, 1))


def _rows(group: str, verdicts: Sequence[tuple[str, str, str]]) -> list[list[tuple[str, str, str]]]:
    cells = [(f"{MARKS[verdict]} {claim}", COLORS[verdict], "normal") for _, claim, verdict in verdicts]
    lines = [cells[i : i + COLUMNS] for i in range(0, len(cells), COLUMNS)]
    return [[(group, "task", "bold")], *lines] if lines else []
