"""Run the notebooks and store their outputs: every <name>.py (jupytext, py:percent) becomes <name>.ipynb.

What is stored depends on the code and the numbers alone: no times, no paths, no ids drawn at random. The digest of the
code that was run is kept with the outputs, so that outputs of other code are noticed.
"""

import hashlib
import sys
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
SOURCES = sorted(HERE.glob("[0-9]*.py"))
WIDGET = "application/vnd.jupyter.widget-view+json"
METADATA = {
    "jupytext": {"formats": "ipynb,py:percent"},
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def digest(notebook: nbformat.NotebookNode) -> str:
    """Identify the code of a notebook."""
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256("\0".join(code).encode()).hexdigest()[:16]


def execute(source: Path) -> nbformat.NotebookNode:
    """The notebook with its outputs; an error in a cell, and anything on stderr, is raised."""
    notebook = jupytext.read(source)
    for i, cell in enumerate(notebook.cells):
        cell.id = f"cell-{i:02}"
    NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": str(HERE)}}).execute()
    for cell in notebook.cells:
        cell.metadata = nbformat.NotebookNode()
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
            noise = [output.text for output in cell.outputs if output.get("name") == "stderr"]
            if noise:
                raise RuntimeError(f"{source.name}: {noise[0]}")
    notebook.metadata = nbformat.from_dict(METADATA | {"signal_drift": {"code": digest(notebook)}})
    return notebook


if __name__ == "__main__":
    for path in [HERE / name for name in sys.argv[1:]] or SOURCES:
        nbformat.write(execute(path), path.with_suffix(".ipynb"))
        print(path.with_suffix(".ipynb").name)
