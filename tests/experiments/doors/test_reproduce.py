"""What does not fit into memory ends no reproduction: the rest is reported, and it is named at the end."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import xarray as xr

from experiments.doors import reproduce
from experiments.lab.errors import UnfitError
from experiments.lab.experiment import Experiment, Report, Row
from experiments.ledger.stages import Answer, Question
from experiments.problems import PROBLEMS


@dataclass(frozen=True)
class Config:
    seeds: int = 2


def measure(config: Config, seed: int) -> xr.Dataset:
    if seed == 1:
        raise MemoryError("Unable to allocate 8 GiB")
    return xr.Dataset({"x": 1.0})


def toy(name: str, seeds: int) -> Experiment[Config]:
    return Experiment(
        name=name,
        title="A toy.",
        configure=lambda problem: Config(seeds),
        points=lambda config: [{"seed": seed} for seed in range(config.seeds)],
        measure=measure,
        report=lambda config, data: Report(
            [Row(f"x of {name}", "1", f"{float(data.x.mean()):g}", "–")], [f"What is said of {name}."], {}
        ),
    )


def test_all_but_what_does_not_fit_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    asked = [Question(toy(name, seeds), PROBLEMS["mlp"]) for name, seeds in (("large", 2), ("small", 1))]
    monkeypatch.setattr(reproduce, "questions", lambda options, read: asked)
    with pytest.raises(
        UnfitError, match=r"^large: 1 of 2 points do not fit: seed=1 \(no room: Unable to allocate 8 GiB\)$"
    ):
        reproduce.reproduce(reproduce.Options(quick=True, out=tmp_path))
    assert "large: 1 of 2 points do not fit" in (tmp_path / "report.md").read_text(encoding="utf-8")
    said = capsys.readouterr().out
    assert "x of small" in said
    assert "x of large" not in said
    assert (tmp_path / "report.html").exists()
    assert sorted(path.name for path in tmp_path.glob("large/*.nc")) == ["seed=0.nc"]


def test_a_stage_of_seeds_that_does_not_fit_leaves_what_was_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sentence of the first stage stays, and what lacked room stands beside it."""
    question = Question(toy("grown", 1), PROBLEMS["mlp"])
    answers: list[object] = []

    def add_seeds(claims: object, entries: object, asked: object, out: Path, seconds: float, answer: Answer) -> object:
        answers.append(answer(question, Config(2)))
        return entries

    monkeypatch.setattr(reproduce, "questions", lambda options, read: [question])
    monkeypatch.setattr(reproduce, "add_seeds", add_seeds)
    with pytest.raises(UnfitError, match=r"^grown: 1 of 2 points do not fit"):
        reproduce.reproduce(reproduce.Options(out=tmp_path))
    assert answers == [None]
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "What is said of grown." in page
    assert "grown: 1 of 2 points do not fit" in page
