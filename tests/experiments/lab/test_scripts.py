"""Every script at its tiny size: results, figures and table; a second run computes nothing; bad input is one line."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from experiments import reproduce
from experiments import reproduce_minilm as minilm
from experiments.benchmark import experiment as benchmark
from experiments.claims import ORDER
from experiments.curvature import asymmetric_scaling, purification, transformer_curvature
from experiments.curvature import suppression as spectral_suppression
from experiments.lab import figure_files, store
from experiments.lab.experiment import Experiment, main, results
from experiments.ledger import ledger
from experiments.tuning import magnitudes
from signal_drift.propositions import PROPOSITIONS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("experiment", reproduce.EXPERIMENTS, ids=lambda e: e.name)
def test_experiment_is_reported_from_the_store_alone(
    experiment: Experiment, out: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("computed or drawn again")

    monkeypatch.setattr(store, "write", forbidden)
    monkeypatch.setattr("experiments.lab.experiment.save_figure", forbidden)
    main(experiment, ["--quick", "--out", str(out)])
    printed = capsys.readouterr().out
    assert printed.startswith("| quantity")
    assert "nan" not in printed


@pytest.mark.parametrize("experiment", reproduce.EXPERIMENTS, ids=lambda e: e.name)
def test_figures_say_which_configuration_they_show(experiment: Experiment, out: Path) -> None:
    wanted = store.digest(experiment.name, experiment.quick, {})
    data = [store.read(p, "")[1] for p in (out / experiment.name).glob("*.nc")]
    assert len(data) == len(experiment.points(experiment.quick))
    shown = [p for p in (out / "figures").glob("*.png") if getattr(Image.open(p), "text", {}).get("Config") == wanted]
    assert shown
    for png in shown:
        assert png.with_suffix(".svg").stat().st_size > 1000
        assert png.with_suffix(".pdf").stat().st_size > 1000


def test_figure_of_other_numbers_or_of_a_broken_file_is_drawn_again(out: Path, tmp_path: Path) -> None:
    data = results(magnitudes.EXPERIMENT, magnitudes.EXPERIMENT.quick, out)
    assert figure_files.fingerprint(data) == figure_files.fingerprint(data.copy(deep=True))
    assert figure_files.fingerprint(data) != figure_files.fingerprint(data.assign(V1=data.V1 * (1 + 1e-15)))
    stem, mark = tmp_path / "magnitudes", {"Drawn": figure_files.fingerprint(data)}
    figure_files.save_figure(magnitudes.report(magnitudes.EXPERIMENT.quick, data).figures["magnitudes"](), stem, mark)
    assert figure_files.is_drawn(stem, mark)
    assert not figure_files.is_drawn(stem, {"Drawn": "other"})
    stem.with_suffix(".png").write_bytes(b"not a picture")
    assert not figure_files.is_drawn(stem, mark)


def test_summary_shows_every_figure_and_every_row_as_one_table_line(out: Path) -> None:
    text = (out / "summary.md").read_text(encoding="utf-8")
    for png in (out / "figures").glob("*.png"):
        assert f"(figures/{png.name})" in text
    for line in text.splitlines():
        assert line.count("|") in {0, 5}


def test_suppression_supports_the_paper_and_refutes_a_missing_rank(out: Path) -> None:
    """The z-scores of the trace law, and the control: without 1/r every mean is tens of standard errors off."""
    config = spectral_suppression.EXPERIMENT.quick
    data = results(spectral_suppression.EXPERIMENT, config, out)
    z = spectral_suppression.z_scores(config, data)
    assert abs(z).max() < 4
    wrong = spectral_suppression.z_scores(config, data, lambda config, r: r * spectral_suppression.factor(config, r))
    assert abs(wrong[:, 1:]).min() > 4  # at r = 1 the two agree


def test_script_runs_from_the_command_line(tmp_path: Path) -> None:
    command = [sys.executable, "experiments/magnitudes.py", "--d-in", "768", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "1/σ_A = 48.0 in V2" in done.stdout
    assert (tmp_path / "figures" / "magnitudes.svg").exists()


@pytest.mark.parametrize(
    "module", [spectral_suppression, purification, asymmetric_scaling, magnitudes, transformer_curvature]
)
def test_help_explains_every_option(module, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        main(module.EXPERIMENT, ["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for name in (*module.Config.__dataclass_fields__, "quick", "out", "device"):
        assert f"--{name.replace('_', '-')}" in text


@pytest.mark.parametrize(
    ("experiment", "arguments", "line"),
    [
        (purification, ["--rank", "0"], "error: rank: must be at least 1, got 0"),
        (purification, ["--width", "-3"], "error: width: must be at least 1, got -3"),
        (transformer_curvature, ["--heads", "3"], "error: heads: must divide the width 4, got 3"),
        (magnitudes, ["--d-in", "0"], "error: d_in: must be at least 1, got 0"),
        (magnitudes, ["--ranks", "4", "0"], "error: ranks: must be at least 1, got 0"),
        (magnitudes, ["--device", "cuda"], "error: device: JAX finds no 'cuda' on this machine"),
        (magnitudes, ["--device", "tpu"], "error: device: JAX finds no 'tpu' on this machine"),
    ],
)
def test_bad_option_ends_in_one_line(experiment, arguments: list[str], line: str, tmp_path: Path) -> None:
    command = [sys.executable, experiment.__file__, "--quick", "--out", str(tmp_path), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.strip() == line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("obstacle", ["file as folder", "foreign result"])
def test_file_in_the_way_ends_in_one_line_and_is_kept(
    obstacle: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    notes = tmp_path / ("magnitudes" if obstacle == "file as folder" else "magnitudes/all.nc")
    notes.parent.mkdir(exist_ok=True)
    notes.write_text("my own notes")
    with pytest.raises(SystemExit) as stop:
        main(magnitudes.EXPERIMENT, ["--quick", "--out", str(tmp_path)])
    assert stop.value.code == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert str(tmp_path / "magnitudes" / "all.nc") in errors[0]
    assert notes.read_text() == "my own notes"


def test_pictures_of_the_readme_show_the_paper_configuration() -> None:
    """Each carries the digest of the configuration it was drawn from; `make reference` renews them."""
    shown = [*reproduce.EXPERIMENTS, *minilm.EXPERIMENTS, benchmark.EXPERIMENT]
    current = {store.digest(e.name, e.paper, {}) for e in shown}
    for name in re.findall(r"docs/figures/\w+\.png", README):
        with Image.open(ROOT / name) as picture:
            assert picture.info["Config"] in current, name


def test_findings_quoted_in_the_readme_are_those_of_the_reference_run() -> None:
    quoted = re.findall(r"^> (.+)$", README, re.MULTILINE)
    reference = "".join((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("summary.md", "minilm.md"))
    assert quoted
    for sentence in quoted:
        assert sentence in reference


def test_verdicts_of_the_readme_are_those_of_the_reference_run() -> None:
    """The whole table, of a ledger in which every claim was run and every control refuted."""
    entries = json.loads((ROOT / "docs" / "ledger.json").read_text(encoding="utf-8"))
    assert [e["id"] for e in entries] == list(ORDER)
    assert all(e["verdict"] != "not run" and e["control"]["verdict"] == "refuted" for e in entries)
    assert ledger.by_verdict(entries) in README


def test_commands_of_the_readme_name_scripts_that_exist() -> None:
    for script in re.findall(r"(?:tests/)?experiments/\w+\.py", README):
        assert (ROOT / script).exists(), script


def test_examples_of_the_readme_run() -> None:
    examples = [part.split("```")[0] for part in README.split("```python\n")[1:4]]
    command = [sys.executable, "-c", "\n".join(examples)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "ExtremeEigenvalues" in done.stdout
    *checks, counterexample = [line for line in done.stdout.splitlines() if re.match(r"[PLKX]\d", line)]
    assert len(checks) == len(PROPOSITIONS)
    assert counterexample.startswith("P1-update FAILS")
