"""Many experiments as one Markdown page: each one's table, words and figures, and where its numbers were computed."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from experiments.lab.experiment import Experiment, Report, run, table
from experiments.ledger.ledger import HIDDEN

QUICK = "**Tiny size (`--quick`): shows that everything runs, and is evidence of nothing.**\n\n"


def run_all(experiments: Sequence[Experiment], out: Path, quick: bool) -> dict[str, Report]:
    """The reports by their titles; what is already stored is not computed again."""
    with tqdm(experiments, desc="experiments", unit="experiment", dynamic_ncols=True) as progress:
        return {experiment.title: run(experiment, experiment.at(quick), out) for experiment in progress}


def summary(title: str, reports: Mapping[str, Report]) -> str:
    """The page."""
    parts = [f"# {title}"]
    for name, report in reports.items():
        where = ", ".join(f"{key} {value}" for key, value in report.provenance.items() if key not in HIDDEN)
        parts += [f"## {name}", table(report.rows), *report.sentences]
        parts += [f"![{figure}](figures/{figure}.png)" for figure in report.figures]
        parts += [f"*{where}*"]
    return "\n\n".join(parts) + "\n"
