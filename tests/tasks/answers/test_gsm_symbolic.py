"""The templates of GSM-symbolic: read from a wheel of the same layout, and from the real one where it is there."""

import hashlib
import sys
import zipfile
from pathlib import Path
from random import Random

import pytest
from problems import rejects

from experiments.problems.fetch import PACKAGES, cache, missing
from signal_drift.tasks.answers import gsm_symbolic
from signal_drift.tasks.answers.gsm_symbolic import read_templates
from signal_drift.tasks.answers.worked_answers import WorkedAnswer, answer_of, draw_answers, is_right, split_templates

FOLDER = "reasoning_gym/arithmetic/gsm_symbolic/"
GENERATOR = """
from math import prod
from reasoning_gym.utils import spelled


def generate_{0}(draws, difficulty=1.0):
    a = prod((draws.randint(1, 9), 10))
    text = dict(answer_cot=f"{{a}} is {{spelled(a)}}.\\n#### {{spelled(a)}}")
    return {{"question": f"{{a}}, {{difficulty}}?", "answer": spelled(a), "metadata": text}}
"""


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Templates 3, 32 and 51, of which 32 is not sound; a package that cannot be imported as a whole."""
    path = tmp_path / "a.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("reasoning_gym/__init__.py", "raise ImportError('needs more than there is')")
        archive.writestr("reasoning_gym/utils.py", "def spelled(x):\n    return f'{x:d}'")
        archive.writestr(FOLDER + "generators_00_49.py", GENERATOR.format(3) + GENERATOR.format(32))
        archive.writestr(FOLDER + "generators_50_99.py", GENERATOR.format(51))
    monkeypatch.setattr(gsm_symbolic, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    return path


def test_sound_templates_are_read_by_their_numbers(wheel: Path) -> None:
    found = read_templates(wheel)
    assert list(found) == [3, 51]
    a = 10 * Random(4).randint(1, 9)
    assert found[51](Random(4)) == WorkedAnswer(f"{a}, 1.0?", f"{a} is {a}.\n#### {a}", str(a), 51)


def test_nothing_of_the_wheel_can_be_imported_afterwards(wheel: Path) -> None:
    paths = list(sys.path)
    read_templates(wheel)
    assert not [name for name in sys.modules if name.startswith("reasoning_gym")]
    assert sys.path == paths


def test_no_code_of_another_file_is_run(wheel: Path) -> None:
    """One byte more, behind the archive, does not keep it from being a zip file."""
    wheel.write_bytes(wheel.read_bytes() + b"\n")
    assert zipfile.is_zipfile(wheel)
    with rejects("wheel: ", "is not that of reasoning-gym 0.1.25"):
        read_templates(wheel)


def test_a_wheel_that_is_not_there_is_named(tmp_path: Path) -> None:
    with rejects("wheel: cannot read ", "none.whl"):
        read_templates(tmp_path / "none.whl")


def test_answers_of_the_wheel_itself_are_right() -> None:
    """Where `make smollm` has fetched it: 85 templates, 18 of them never trained on, and every answer as it says."""
    if missing(PACKAGES["smollm"][1:], cache()):
        pytest.skip("needs make smollm")
    templates = read_templates(cache() / "reasoning_gym-0.1.25-py3-none-any.whl")
    assert [len(side) for side in split_templates(templates)] == [67, 18]
    drawn = draw_answers(templates, 850, seed=0)
    assert {x.template for x in drawn} == set(templates)
    for x in drawn:
        assert is_right(x.answer, x.number), x
        assert x.answer.count("####") == 1
        assert x.answer.split("\n")[-1] == f"#### {answer_of(x.answer)}"
    text = "\n".join(f"{x.question}\n{x.answer}" for x in drawn)
    assert hashlib.sha256(text.encode()).hexdigest().startswith("27c106d20a89f79a")  # the same on every machine
