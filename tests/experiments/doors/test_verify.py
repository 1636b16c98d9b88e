"""A problem of the reader's own: bad input ends in one line, and a good one in a report about that model."""

import re
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import pytest

from experiments.__main__ import door
from experiments.doors.verify import load
from experiments.lab.command_line import exit_on_bad_input
from experiments.ledger import table

ROOT = Path(__file__).parents[3]
EXAMPLE = "docs/examples/my_problem.py:problem"
HEAD = """
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import signal_drift as sd
from experiments.problems.own import own_problem

x, y = jnp.arange(24.0).reshape(6, 4) / 24, jnp.ones((6, 2))
model = sd.MLP([4, 2], rngs=nnx.Rngs(0))


def mse(outputs, targets):
    return jnp.mean((outputs - targets) ** 2)


"""
MADE = [
    ("'mine', model, mse, []", "batches: need at least one pair (inputs, targets), got []"),
    ("'mine', model, mse, iter([(x, y)])", "batches: need at least one pair (inputs, targets), got <"),
    ("'mine', model, mse, (x, y)", "batches[0]: must be a pair (inputs, targets), got ArrayImpl"),
    ("'mine', model, mse, [(x, y), (x,)]", "batches[1]: must be a pair (inputs, targets), got tuple"),
    ("'mine', model, mse, [(x, ['cat', 'dog'])]", "batches[0]: must be arrays of numbers ("),
    ("'mine', model, mse, [(x, y), (x[:3], y[:3])]", "batches[1]: must have the shapes of the first, "),
    ("'mine', model, mse, [(x, y), (x * jnp.nan, y)]", "batches[1]: must be finite, got NaN or infinity"),
    ("'mine', model, mse, [(x[:, :3], y)]", "batches: the model cannot take inputs of shape (6, 3) ("),
    ("'mine', model, mse, [((x, x), y)]", "batches: the model cannot take inputs of shape ((6, 4), (6, 4)) ("),
    (
        "'mine', model, mse, [(x, y[:5])]",
        "criterion: cannot compare outputs of shape (6, 2) with targets of shape (5, 2) (",
    ),
    (
        "'mine', model, lambda o, t: (o - t) ** 2, [(x, y)]",
        "criterion: must return a scalar, got the shape (6, 2); take the mean or the sum",
    ),
    ("'mine', model, lambda o, t: jnp.log(-jnp.mean(t)), [(x, y)]", "criterion: must be finite"),
    ("'mine', model, lambda o, t: np.mean(np.asarray(o)), [(x, y)]", "criterion: must be traceable"),
    ("'mine', model, mse, [(x, y)], rank=0", "rank: must be at least 1, got 0"),
    ("'mine', model, mse, [(x, y)], layers='attention'", "layers: "),
    ("'my model', model, mse, [(x, y)]", "name: must be of letters, digits, - and _, got 'my model'"),
    ("'mlp', model, mse, [(x, y)]", "name: 'mlp' is taken by a problem of this project, choose another"),
    ("'mine', model, mse, [(x, y)], score=mse", "score: goes with held_out"),
    ("'mine', model, mse, [(x, y)], held_out=(x, y)", "score: goes with held_out"),
    (
        "'mine', model, mse, [(x, y)], held_out=x, score=mse",
        "held_out: must be a pair (inputs, targets), got ArrayImpl",
    ),
    ("'mine', model, mse, [(x, y)], held_out=(x, y), score=lambda o, t: o", "score: must return a scalar"),
]
WRITTEN = [
    ("import no_such_module", "No module named 'no_such_module'"),
    ("problem = undefined", "NameError: name 'undefined' is not defined, line 1)"),
    ("problem = (", "SyntaxError: '(' was never closed"),
    ("", "has no 'problem'"),
    ("problem = 3", "must come from own_problem, got int"),
]


def refused(arguments: list[str], capsys: pytest.CaptureFixture) -> str:
    """The one line that a command ends in, with exit status 2."""
    with pytest.raises(SystemExit) as stop:
        exit_on_bad_input(lambda: door(["verify", *arguments]))
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


@pytest.fixture(autouse=True)
def _imports_of_one_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.mark.parametrize(("arguments", "line"), MADE)
def test_wrong_argument_of_own_problem_ends_in_one_line(
    arguments: str, line: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "mine.py").write_text(f"{HEAD}problem = own_problem({arguments})\n", encoding="utf-8")
    assert refused([f"{tmp_path}/mine.py:problem", "--out", str(tmp_path / "out")], capsys).startswith(line)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("text", "words"), WRITTEN)
def test_file_without_a_problem_ends_in_one_line(
    text: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "mine.py").write_text(f"{text}\n", encoding="utf-8")
    line = refused([f"{tmp_path}/mine.py:problem"], capsys)
    assert line.startswith("source: ")
    assert f"{tmp_path}/mine.py" in line
    assert words in line


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["nowhere.py:problem"], "source: there is no file 'nowhere.py'"),
        (["README.md:problem"], "source: 'README.md' is no Python file"),
        (["docs/examples/my_problem.py"], "source: must be path/to/file.py:name, got 'docs/examples/my_problem.py'"),
        ([EXAMPLE.replace(":problem", ":two words")], "source: must be path/to/file.py:name, got "),
        ([EXAMPLE, "--budget", "0"], "budget: must be a positive number of minutes, got 0"),
        ([EXAMPLE, "--budget", "nan"], "budget: must be a positive number of minutes, got nan"),
        ([EXAMPLE, "--claims", "P1-hessian", "P9"], "claims: unknown 'P9'; the claims are P1-update, "),
    ],
)
def test_wrong_option_of_verify_ends_in_one_line(
    arguments: list[str], line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(ROOT)
    assert refused(arguments, capsys).startswith(line)


def test_a_model_of_another_kind_ends_the_command_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(f"{HEAD}problem = own_problem('mine', 'a model', mse, [(x, y)])\n", "utf-8")
    command = [sys.executable, "-m", "experiments", "verify", f"{tmp_path}/mine.py:problem"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "error: model: must be a flax.nnx module, got str\n")


def test_what_lies_beside_the_file_can_be_imported(tmp_path: Path) -> None:
    (tmp_path / "data_of_mine.py").write_text("samples = 7\n", encoding="utf-8")
    text = (
        f"from data_of_mine import samples\n{HEAD}problem = own_problem('mine', model, mse, [(x, y)], rank=samples)\n"
    )
    (tmp_path / "mine.py").write_text(text, encoding="utf-8")
    assert load(f"{tmp_path}/mine.py:problem").rank == 7


def test_problems_that_compute_something_else_have_other_digests(tmp_path: Path) -> None:
    """A constant in a closure and an activation without weights leave source, weights and data as they are."""
    text = (
        f"{HEAD}def scaled(c):\n    return lambda o, t: c * jnp.mean((o - t) ** 2)\n\n\n"
        "def of(c, **changes):\n    deep = sd.MLP([4, 3, 2], rngs=nnx.Rngs(0), **changes)\n"
        "    return own_problem('mine', deep, scaled(c), [(x, y)], rank=1)\n\n\n"
        "one, again, other, active = of(1.0), of(1.0), of(2.0), of(1.0, activate_output=True)\n"
    )
    (tmp_path / "mine.py").write_text(text, encoding="utf-8")
    one, again, other, active = (load(f"{tmp_path}/mine.py:{name}") for name in ("one", "again", "other", "active"))
    assert one == again
    assert len({one, other, active}) == 3


def test_minibatches_come_in_another_order_for_every_seed_and_each_once_an_epoch(monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    problem = load(EXAMPLE)
    seen = [problem.training(seed, 6).batches[1] for seed in range(8)]
    assert len({labels.tobytes() for labels in map(jnp.asarray, seen)}) > 1
    for labels in seen:
        assert len(labels) == 6
        epochs = labels.reshape(3, 2, -1)
        assert all({row.tobytes() for row in epoch} == {row.tobytes() for row in epochs[0]} for epoch in epochs)


def test_verify_writes_a_report_about_the_readers_model(tmp_path: Path) -> None:
    """Within a budget, with what it would take said before, and the α of both rules for every layer."""
    options = ["--claims", "P1-hessian", "X1", "--budget", "2", "--out", str(tmp_path)]
    command = [sys.executable, "-m", "experiments", "verify", EXAMPLE, *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    entries = table.read(tmp_path / "ledger.json")
    assert [entry["id"] for entry in entries] == ["P1-hessian", "X1"]
    assert [list(entry["problems"]) for entry in entries] == [["my-classifier"]] * 2
    assert [entry["verdict"] for entry in entries] == ["supported"] * 2
    assert [entry["control"]["verdict"] for entry in entries] == ["refuted"] * 2
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "# LoRA’s theory on my-classifier" in report
    assert "my-classifier" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"\bnan\b", report)
    for line in ("| hidden | 4 | 362 |", "| out | 5.657 | 362 |"):  # √2/√(1/8), √2/√(1/16) and 256√2
        assert line in report
    assert "runs      algebra" in done.stdout
    assert done.stdout.index("runs      algebra") < done.stdout.index("P1-hessian")


def test_what_the_budget_leaves_out_is_said_with_its_reason_and_how_to_run_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(ROOT)
    door(["verify", EXAMPLE, "--claims", "P1-hessian", "T6-magnitudes", "--budget", "1e-9", "--out", str(tmp_path)])
    assert "left out  algebra: not tried, half of the budget went into first points\n" in capsys.readouterr().out
    hessian, magnitudes = table.read(tmp_path / "ledger.json")
    assert (hessian["verdict"], magnitudes["verdict"]) == ("not run", "not testable here")
    assert hessian["reason"] == "not tried, half of the budget went into first points"
    assert hessian["rerun"] == f"python -m experiments verify {EXAMPLE} --claims P1-hessian"
    assert hessian["problems"]["my-classifier"]["command"] == hessian["rerun"]
