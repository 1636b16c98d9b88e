"""Growth with width and depth: exponents that are planted, and how far a way is said to get."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from experiments.benchmark import growth
from experiments.benchmark import process as processes
from experiments.benchmark.config import ANSWERS
from experiments.benchmark.report import KERNEL, LABEL
from experiments.lab.errors import OptionError
from experiments.lab.side_by_side import as_markdown
from experiments.problems import PROBLEMS

PAPER, QUICK = (growth.EXPERIMENT.at(PROBLEMS["mlp"], quick) for quick in (False, True))
TIME, MEMORY, FAR = {"width": 3.0, "depth": 2.0}, {"width": 2.0, "depth": 1.0}, {"width": 512, "depth": 64}
BEYOND = "would be over 60 s"
RATES = {"float64": 1e11, "float32": 2e11, "bytes": 1e10}


def planted() -> xr.Dataset:
    """Every way takes n^TIME seconds and returns n^MEMORY megabytes; ours gets to FAR, the others half as far."""
    sizes = sorted({*PAPER.widths, *PAPER.depths})
    rows = []
    for point in growth.points(PAPER):
        axis = point["axis"]
        asked, far = PAPER.along(axis), FAR[axis] // (1 if point["way"] == "ours" else 2)
        known = {
            n: {"first": 2.0, "seconds": 1e-6 * n ** TIME[axis], "memory": 1.0, "result": 1e6 * n ** MEMORY[axis]}
            | {"answer": [1.0] * ANSWERS, "reason": "", **RATES}
            for n in asked
            if n <= far
        }
        known[2 * far] = {"reason": "over 60 s if the time grows by the same factor again"}
        columns = {x: [known.get(n, {}).get(x, processes.EMPTY[x]) for n in sizes] for x in processes.EMPTY}
        laid = {x: (("size", "entry") if x == "answer" else "size", column) for x, column in columns.items()}
        rows.append(xr.Dataset(laid, {"size": sizes}).expand_dims({name: [value] for name, value in point.items()}))
    combined = xr.combine_by_coords(rows, join="outer")
    assert isinstance(combined, xr.Dataset)
    return combined


def test_planted_exponents_and_ends_stand_in_the_table() -> None:
    shown = growth.table(PAPER, planted())
    assert list(shown.groups) == list(KERNEL.values())[:-1]  # the pipeline is asked for at one width
    for rows in shown.groups.values():
        for name, cells in rows.items():
            texts = [cell.text for cell in cells]
            if name == LABEL["ours"]:
                assert texts == ["3.00", "2.00", "512", BEYOND, "2.00", "1.00", "64", BEYOND]
                assert [cell.place for cell in cells].count("best") == 2
            elif name != "floor":
                assert texts == ["3.00", "2.00", "256", BEYOND, "2.00", "1.00", "32", BEYOND]
                assert not any(cell.place for cell in cells)
    assert len(as_markdown(shown).splitlines()) > len(shown.groups)


def test_the_floor_grows_as_the_operations_that_are_counted() -> None:
    """Dense H_ℓ is n·L·d²·Ld² operations, with its spectrum (L·d²)³; F2 at large d that of the gradient, n·L·d²."""
    data = planted()
    assert growth.least(PAPER, data, "width", "dense") == pytest.approx(4.0, abs=1e-9)
    assert growth.least(PAPER, data, "depth", "dense") == pytest.approx(2.0, abs=1e-9)
    assert growth.least(PAPER, data, "width", "spectrum") == pytest.approx(6.0, abs=0.01)
    assert growth.least(PAPER, data, "depth", "spectrum") == pytest.approx(3.0, abs=0.1)
    assert 1.5 < growth.least(PAPER, data, "width", "gradient") < 2.1


def test_a_way_of_which_nothing_ended_is_none_with_the_reason() -> None:
    data = planted()
    at = {"axis": "depth", "kernel": "dense", "way": "torch"}
    for name in ("first", "seconds"):
        data[name].loc[at] = np.nan
    data.reason.loc[at] = "torch is not installed (pip install -e '.[peers]')"
    cells = growth.table(PAPER, data).groups[KERNEL["dense"]][LABEL["torch"]]
    assert [cell.text for cell in cells[4:]] == ["–", "1.00", "none", "torch is not installed"]


def test_answers_that_are_apart_are_named_with_where() -> None:
    """One way is off by twice the tolerance at one size, another by half of it; an estimate may be anywhere."""
    data = planted()
    assert growth.table(PAPER, data).notes[-1].endswith("their answers agree to six digits.")
    data.answer.loc[{"axis": "depth", "kernel": "extremes", "way": "eigenthings", "size": 16, "entry": 0}] += 2e-6
    data.answer.loc[{"axis": "depth", "kernel": "extremes", "way": "curvlinops", "size": 16, "entry": 0}] += 5e-7
    data.answer.loc[{"kernel": "trace", "way": "curvlinops"}] += 1.0
    shown = growth.table(PAPER, data)
    ways = shown.groups[KERNEL["extremes"]]
    assert [cell.text for cell in ways[LABEL["eigenthings"]][6:]] == ["8", "another answer"]
    assert [cell.text for cell in ways[LABEL["curvlinops"]][6:]] == ["32", BEYOND]
    estimated = shown.groups[KERNEL["trace"]][LABEL["curvlinops"]]
    assert [cell.text for cell in estimated[6:]] == ["32", BEYOND]
    assert shown.notes[-1] == (
        "extremes of H_LoRA by hessian-eigenthings is not ours to six digits at L = 16: "
        "apart by up to 2e-06 of the largest entry."
    )


def test_sizes_are_those_of_the_problem_along_one_axis() -> None:
    wide, deep = (PAPER.along(axis) for axis in growth.AXES)
    assert {(n, x.problem.width, x.problem.depth, x.problem.rank) for n, x in wide.items()} >= {
        *{(8, 8, 5, 4), (4096, 4096, 5, 16)}
    }
    assert {(n, x.problem.width, x.problem.depth) for n, x in deep.items()} == {(n, 32, n) for n in PAPER.depths}
    assert {x.seconds for x in wide.values()} == {60.0}


def test_what_is_measured_gets_as_far_as_it_is_asked() -> None:
    data = growth.measure(QUICK, "depth", "gradient", "ours")
    known = data.seconds.dropna("size")["size"].values.tolist()
    assert known == list(QUICK.depths)
    assert growth.largest(data) == max(QUICK.depths)


@pytest.mark.parametrize(("pause", "limit", "reason"), [(0.0, 5.0, ""), (30.0, 1.0, "over 1 s"), (0.6, 1.0, "")])
def test_the_limit_is_for_a_call_and_what_was_known_stays(pause: float, limit: float, reason: str) -> None:
    """A line, then three after pauses: what is shorter than the limit ends nothing, though together they are longer."""
    line = json.dumps({"size": 8, "first": 1.0})
    pauses = f"for _ in range(3):\n time.sleep({pause})\n print('{{}}', flush=True)"
    code = f"import time\nprint({line!r}, flush=True)\n{pauses}"
    output, why = processes._watched([sys.executable, "-c", code], {}, replace(PAPER.along("width")[8], seconds=limit))
    assert output.splitlines()[0] == line
    assert (len(output.splitlines()), why) == ((4, "") if not reason else (1, reason))


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("widths", (8, 4), "widths: must ascend, got (8, 4)"),
        ("depths", (2, 2), "depths: must ascend, got (2, 2)"),
        ("repeats", 0, "repeats: must be at least 1, got 0"),
    ],
)
def test_sizes_that_make_no_ladder(field: str, value: object, words: str) -> None:
    with pytest.raises(OptionError) as told:
        replace(PAPER, **{field: value})
    assert str(told.value) == words
