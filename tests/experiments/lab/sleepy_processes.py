"""Start the sleepy sweep as a process of its own, wait for it, and look at what it stored."""

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).with_name("sleepy_sweep.py")
ROOT = Path(__file__).parents[3]


def start(out: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    variables = {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]), "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), "--out", str(out), *arguments],
        env={**os.environ, **variables, "SLEEPY_LOG": str(out.with_suffix(".log")), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(out: Path, *arguments: str, **environment: str) -> tuple[str, str]:
    process = start(out, *arguments, **environment)
    output, errors = process.communicate(timeout=180)
    assert process.returncode == 0, errors
    return output, errors


def stored(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "sleepy").iterdir()}


def begun(out: Path) -> int:
    return len(out.with_suffix(".log").read_text().splitlines())
