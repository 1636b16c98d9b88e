"""Every experiment at its tiny size: results, figures, table; a second run computes nothing; bad input is one line."""

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from experiments import catalogue
from experiments.__main__ import door, listing
from experiments.catalogue import EXPERIMENTS, is_reproduced
from experiments.curvature import suppression
from experiments.lab import figure_files, store
from experiments.lab.command_line import exit_on_bad_input
from experiments.lab.experiment import Experiment
from experiments.lab.problem import Problem
from experiments.lab.runner import results
from experiments.ledger.table import read
from experiments.problems import PROBLEMS
from experiments.tuning import magnitudes

ROOT = Path(__file__).parents[3]
QUESTIONS = [(e, p) for e in EXPERIMENTS for p in PROBLEMS.values() if is_reproduced(e, p) and not p.costly]
each_question = pytest.mark.parametrize(
    ("experiment", "problem"), QUESTIONS, ids=[f"{e.name}-{p.name}" for e, p in QUESTIONS]
)


def run(*arguments: str) -> None:
    exit_on_bad_input(lambda: door(arguments))


@each_question
def test_experiment_is_reported_from_the_store_alone(
    experiment: Experiment, problem: Problem, out: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("computed or drawn again")

    monkeypatch.setattr(store, "write", forbidden)
    monkeypatch.setattr("experiments.lab.runner.save_figure", forbidden)
    run(experiment.name, "--problem", problem.name, "--quick", "--out", str(out))
    printed = capsys.readouterr().out
    assert printed.startswith("| quantity")
    assert not re.search(r"\bnan\b", printed)


WITHOUT_FIGURE = {"rates", "where_alpha_pays"}
"""The first is drawn by what builds on it, at its own configuration; the second is a table."""


@each_question
def test_figures_say_which_configuration_they_show(experiment: Experiment, problem: Problem, out: Path) -> None:
    config = experiment.at(problem, quick=True)
    wanted = store.digest(experiment.name, config, {})
    paths = [store.path_of(out, experiment.name, config, point) for point in experiment.points(config)]
    assert all(path.exists() for path in paths)
    shown = [p for p in (out / "figures").glob("*.png") if getattr(Image.open(p), "text", {}).get("Config") == wanted]
    assert shown or experiment.name in WITHOUT_FIGURE
    for png in shown:
        assert png.with_suffix(".svg").stat().st_size > 1000
        assert png.with_suffix(".pdf").stat().st_size > 1000


def drawn_here() -> Figure:
    return Figure()


def test_figure_of_other_numbers_or_of_a_broken_file_is_drawn_again(out: Path, tmp_path: Path) -> None:
    experiment = magnitudes.EXPERIMENT
    config = experiment.at(PROBLEMS["mlp"], quick=True)
    data = results(experiment, config, out)
    draw = experiment.report(config, data).figures["magnitudes"]
    drawn = figure_files.fingerprint(data, draw)
    assert drawn == figure_files.fingerprint(data.copy(deep=True), draw)
    assert drawn != figure_files.fingerprint(data.assign(V1=data.V1 * (1 + 1e-15)), draw)
    assert drawn != figure_files.fingerprint(data, drawn_here)
    stem, mark = tmp_path / "magnitudes", {"Drawn": drawn}
    figure_files.save_figure(draw(), stem, mark)
    assert figure_files.is_drawn(stem, mark)
    assert not figure_files.is_drawn(stem, {"Drawn": "other"})
    stem.with_suffix(".png").write_bytes(b"not a picture")
    assert not figure_files.is_drawn(stem, mark)


def test_report_shows_every_figure_that_a_claim_names(out: Path) -> None:
    text = (out / "report.md").read_text(encoding="utf-8")
    for name in {entry["figure"]["name"] for entry in read(out / "ledger.json") if entry["figure"]}:
        assert f"(figures/{name}.png)" in text
        assert (out / "figures" / f"{name}.png").exists()


def test_suppression_supports_the_paper_and_refutes_a_missing_rank(out: Path) -> None:
    """The z-scores of the trace law, and the control: without 1/r every mean is tens of standard errors off."""
    config = suppression.EXPERIMENT.at(PROBLEMS["mlp"], quick=True)
    data = results(suppression.EXPERIMENT, config, out)
    traces = suppression.traces(data)
    assert abs(traces.scores).max() < 4
    wrong = traces._replace(stated=traces.stated * np.array(config.ranks))
    assert abs(wrong.scores[:, 1:]).min() > 4  # at r = 1 the two agree


def test_door_runs_from_the_command_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "experiments", "magnitudes", "--d-in", "768", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "1/σ_A = 48.0 in V2" in done.stdout
    assert (tmp_path / "figures" / "magnitudes.svg").exists()


def test_door_lists_every_experiment_and_problem() -> None:
    text = listing()
    for experiment in (*EXPERIMENTS, catalogue.BENCHMARK):
        assert f"  {experiment.name}" in text
        assert experiment.title in text
    for name, problem in PROBLEMS.items():
        assert f"  {name}" in text
        assert problem.label in text
    for name in ("reproduce", "verify", "fetch"):
        assert f"  {name}" in text


@pytest.mark.parametrize(
    ("name", "problem"),
    [("spectral_suppression", "mlp"), ("purification", "transformer"), ("rank_law", "digits"), ("magnitudes", "mlp")],
)
def test_help_explains_every_option(name: str, problem: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        run(name, "--problem", problem, "--help")
    assert stop.value.code == 0
    text = capsys.readouterr().out
    config = catalogue.find(name).at(PROBLEMS[problem])
    asked = (config, PROBLEMS[problem]) if hasattr(config, "problem") else (config,)
    options = {field.name for of in asked for field in fields(of)}
    for field in (*options - {"problem"}, "quick", "out", "device", "problem"):
        assert f"--{field.replace('_', '-')}" in text


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["purification", "--rank", "0"], "error: rank: must be at least 1, got 0"),
        (["purification", "--width", "-3"], "error: width: must be at least 1, got -3"),
        (
            ["purification", "--problem", "transformer", "--heads", "3"],
            "error: heads: must divide the width 4, got 3",
        ),
        (["magnitudes", "--d-in", "0"], "error: d_in: must be at least 1, got 0"),
        (["magnitudes", "--ranks", "4", "0"], "error: ranks: must be at least 1, got 0"),
        (["magnitudes", "--device", "cuda"], "error: device: JAX finds no 'cuda' on this machine"),
        (["magnitudes", "--device", "tpu"], "error: device: JAX finds no 'tpu' on this machine"),
    ],
)
def test_bad_option_ends_in_one_line(arguments: list[str], line: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "experiments", *arguments, "--quick", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.strip() == line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["purify"], "error: experiment: unknown 'purify'; there are algebra, "),
        (["purification", "--problem", "llama"], "error: problem: unknown 'llama'; there are mlp, "),
        (["readings", "--problem", "digits"], "error: problem: readings cannot be asked of 'digits': "),
    ],
)
def test_unknown_name_lists_the_known_ones(arguments: list[str], line: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(line)
    assert error.count("\n") == 1


@pytest.mark.parametrize("obstacle", ["file as folder", "foreign result"])
def test_file_in_the_way_ends_in_one_line_and_is_kept(
    obstacle: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    notes = tmp_path / ("magnitudes" if obstacle == "file as folder" else "magnitudes/all.nc")
    notes.parent.mkdir(exist_ok=True)
    notes.write_text("my own notes")
    with pytest.raises(SystemExit) as stop:
        run("magnitudes", "--quick", "--out", str(tmp_path))
    assert stop.value.code == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert str(tmp_path / "magnitudes" / "all.nc") in errors[0]
    assert notes.read_text() == "my own notes"
