"""The example of docs/adapters.md prints what stands there."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from pages_of_docs import ROOT, blocks

from signal_drift.__main__ import main

PAGE = ROOT / "docs" / "adapters.md"


def test_example_of_the_page_prints_what_stands_there(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Both commands, with another folder in the place of theirs."""
    texts = [block.text for block in blocks(PAGE)]
    at = next(i for i, text in enumerate(texts) if text.startswith("python docs/examples/"))
    made, asked = (shlex.split(line.replace("results/advise", str(tmp_path))) for line in texts[at].splitlines())
    assert made[0] == "python"
    assert asked[:3] == ["python", "-m", "signal_drift"]
    subprocess.run([sys.executable, *made[1:]], cwd=ROOT, check=True)
    main(asked[3:])
    assert capsys.readouterr().out == texts[at + 1]
