"""Nothing is lost: not by kills at any moment of a sweep, not by a full disk."""

import json
import re
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from kills import PAGE, content, kill_sweep
from sleepy_sweep import EXPERIMENT

from experiments.lab.command_line import exit_on_bad_input, main
from experiments.problems import PROBLEMS


@pytest.mark.slow
def test_a_hundred_kills_leave_the_records_of_an_undisturbed_sweep(tmp_path: Path) -> None:
    outcome = kill_sweep(tmp_path, kills=100, points=400, seed=1)
    assert outcome.identical
    assert outcome.mid_write > 0


def test_the_last_hundred_kills_lost_nothing() -> None:
    found = json.loads(PAGE.read_text(encoding="utf-8"))
    assert found["kills"] >= 100
    assert found["mid_write"] > 0
    assert found["killed"] == found["undisturbed"]


def test_the_digest_of_a_sweep_sees_what_was_lost_and_what_was_left_behind(tmp_path: Path) -> None:
    for name, text in {"a.nc": "1", "b.nc": "2", "a.timing/a.json": "3"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    whole = content(tmp_path)
    (tmp_path / "a.timing" / "a.json").write_text("another time")
    assert content(tmp_path) == whole
    (tmp_path / "b.nc").write_text("other")
    assert content(tmp_path) != whole
    (tmp_path / "b.nc").write_text("2")
    (tmp_path / ".host-1-b.nc").write_text("half")
    assert content(tmp_path) != whole


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of a few KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if mount("-t", "tmpfs", "-o", "size=16k", "none", str(folder)):
        pytest.skip("a disk of our own cannot be mounted here: that takes Linux and root")
    yield folder
    subprocess.run(["umount", folder], check=True)


def mount(*arguments: str) -> bool:
    """Mount a disk, and tell whether that failed."""
    program = shutil.which("mount")
    return program is None or subprocess.run([program, *arguments], capture_output=True, check=False).returncode != 0


@pytest.fixture
def whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SLEEPY_LOG", str(tmp_path / "log"))
    sweep(tmp_path / "whole")
    return tmp_path / "whole"


def sweep(out: Path) -> None:
    exit_on_bad_input(lambda: main(EXPERIMENT, PROBLEMS, ["--seconds", "0", "--out", str(out)]))


def stops_in_one_line(out: Path, reason: str, capsys: pytest.CaptureFixture) -> None:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        sweep(out)
    assert stop.value.code == 2
    progress, line, after = capsys.readouterr().err.rpartition("error: ")
    assert re.fullmatch(rf"out: cannot write '{re.escape(str(out))}/sleepy\S+' \({reason}\)\n", after)
    assert "rror" not in progress + line.removeprefix("error")
    assert not [path for path in out.rglob(".*") if path.is_file()]


def test_a_full_disk_ends_in_one_line_and_the_sweep_goes_on_after_it(
    disk: Path, whole: Path, capsys: pytest.CaptureFixture
) -> None:
    """It is full now with a timing, now with a record, whose first blocks had room."""
    for size in (4, 8, 16, 32, 64, 72, 76, 80):
        assert not mount("-o", f"remount,size={size}k", str(disk))
        stops_in_one_line(disk / "results", "No space left on device", capsys)
    assert not mount("-o", "remount,size=4m", str(disk))
    sweep(disk / "results")
    assert content(disk / "results") == content(whole)


@pytest.mark.parametrize("size", [50, 200, 8192])
def test_a_file_that_may_not_grow_ends_in_one_line_and_the_sweep_goes_on_after_it(
    size: int, tmp_path: Path, whole: Path, capsys: pytest.CaptureFixture
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        stops_in_one_line(tmp_path / "results", "File too large", capsys)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    sweep(tmp_path / "results")
    assert content(tmp_path / "results") == content(whole)
