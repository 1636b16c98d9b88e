"""Every experiment of tuning at its tiny size on several problems: it is measured, reported without nan, and drawn."""

from pathlib import Path

import pytest

from experiments.lab.experiment import Experiment, table
from experiments.lab.runner import results
from experiments.problems import PROBLEMS
from experiments.tuning import magnitudes, protocol_comparison, rank_law, rates

CASES = [
    (module.EXPERIMENT, name)
    for name in ("digits", "minilm")
    for module in (rates, rank_law, protocol_comparison)
    if not module.EXPERIMENT.refuses(PROBLEMS[name])
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one experiment builds on is measured once."""
    return tmp_path_factory.mktemp("tuning")


@pytest.mark.parametrize(("experiment", "name"), [*CASES, (magnitudes.EXPERIMENT, "mlp")])
def test_experiment_on_a_problem(experiment: Experiment, name: str, folder: Path) -> None:
    config = experiment.at(PROBLEMS[name], quick=True)
    found = experiment.report(config, results(experiment, config, folder))
    text = table(found.rows) + " ".join(found.sentences)
    assert found.rows
    assert found.figures
    assert "nan" not in text
    assert all(line.count("|") == 5 for line in table(found.rows).splitlines())
    for draw in found.figures.values():
        assert draw().axes


def test_what_cannot_be_asked_is_refused_with_a_reason() -> None:
    assert magnitudes.EXPERIMENT.refuses(PROBLEMS["digits"]) == "is arithmetic, asks no model"
    for module in (rates, rank_law, protocol_comparison):
        answering = {name for name, problem in PROBLEMS.items() if not module.EXPERIMENT.refuses(problem)}
        assert answering == {"digits", "minilm", "teacher64", "teacher256"}
        assert set(module.EXPERIMENT.homes) < answering
