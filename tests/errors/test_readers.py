"""A reader of the output that leaves ends a command, at both doors, and nothing is written about that."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from stored import adapter

from experiments.lab.command_line import exit_on_bad_input
from signal_drift.__main__ import main


def audited(folder: Path) -> None:
    main(["audit", str(adapter(folder / "a"))])


def helped(folder: Path) -> None:
    main(["audit", "--help"])


def listed(folder: Path) -> None:
    exit_on_bad_input(lambda: print("a table"))


@pytest.mark.parametrize("door", [audited, helped, listed])
def test_a_reader_that_leaves_ends_the_command(
    door: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pipe is closed before everything is written, as `head` does."""
    read, write = os.pipe()
    os.close(read)
    errors = tmp_path / "errors"
    with open(write, "w", encoding="utf-8") as stdout, errors.open("w", encoding="utf-8") as stderr:
        monkeypatch.setattr(sys, "stdout", stdout)
        monkeypatch.setattr(sys, "stderr", stderr)
        with pytest.raises(SystemExit) as stop:
            door(tmp_path)
    assert stop.value.code == 1
    assert errors.read_text(encoding="utf-8") == ""
