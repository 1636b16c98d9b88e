"""The notebooks as they are committed: text and outputs belong together, and nothing of one machine is in them.

That they run is tested by nbmake, which executes `notebooks/*.ipynb` at a tiny size.
"""

import json
import re
from pathlib import Path

import jupytext
import nbformat
import pytest
from execute import SOURCES, digest

LARGEST = 600_000
"""Bytes of a notebook with its outputs."""


@pytest.fixture(params=SOURCES, ids=lambda path: path.stem)
def source(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture
def stored(source: Path) -> nbformat.NotebookNode:
    return nbformat.read(source.with_suffix(".ipynb"), as_version=4)


def outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def test_script_and_notebook_hold_the_same_cells(source: Path, stored: nbformat.NotebookNode) -> None:
    cells = [(cell.cell_type, cell.source) for cell in jupytext.read(source).cells]
    assert [(cell.cell_type, cell.source) for cell in stored.cells] == cells


def test_outputs_are_those_of_the_code_beside_them(stored: nbformat.NotebookNode) -> None:
    """`make notebooks-run` stores them anew. A change of the code alone is noticed."""
    assert stored.metadata.signal_drift.code == digest(stored)
    counts = [cell.execution_count for cell in stored.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    stored.cells[-2 if stored.cells[-1].cell_type == "markdown" else -1].source += "\n1"
    changed = next(cell for cell in stored.cells if cell.cell_type == "code")
    changed.source += "\n1"
    assert stored.metadata.signal_drift.code != digest(stored)


def test_outputs_name_no_machine_no_time_and_no_error(source: Path, stored: nbformat.NotebookNode) -> None:
    assert not any(output.output_type == "error" or output.get("name") == "stderr" for output in outputs(stored))
    text = json.dumps(
        [{k: v for k, v in o.get("data", {}).items() if "image" not in k} or o.get("text") for o in outputs(stored)]
    )
    assert not re.search(r"/(home|root|tmp|work|usr|Users)/|\d{4}-\d\d-\d\dT\d\d:|0x[0-9a-f]{8}", text)
    assert source.with_suffix(".ipynb").stat().st_size < LARGEST


def test_notebook_shows_figures_without_a_kernel(stored: nbformat.NotebookNode) -> None:
    assert sum("image/png" in output.get("data", {}) for output in outputs(stored)) >= 2
