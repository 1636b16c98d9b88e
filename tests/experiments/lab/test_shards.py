"""A sweep that is killed, split over machines and damaged ends with the same bytes."""

import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import xarray as xr
from sleepy_processes import begun, finish, start, stored

from experiments.lab import store
from experiments.lab.errors import OptionError
from experiments.lab.files import replacing
from experiments.lab.shards import WHOLE, Shard, shard_of


@dataclass(frozen=True)
class Empty:
    """A configuration without options."""


@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_shards_partition_the_points(count: int) -> None:
    points = list(range(7))
    parts = [shard_of(f"{i}/{count}", {}).of(points) for i in range(count)]
    assert sorted(p for part in parts for p in part) == points
    assert sorted(p for part in parts[1:] for p in part) != points  # a missing shard is missed


@pytest.mark.parametrize("text", ["2/2", "a/b", "0/0", "-1/3", "1", "", "1/2/3", "0.5/2"])
def test_bad_shard_is_named(text: str) -> None:
    with pytest.raises(OptionError, match=re.escape(repr(text))):
        shard_of(text, {})


def test_shard_comes_from_slurm_unless_given() -> None:
    array = {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "4"}
    assert shard_of(None, array | {"SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_STEP": "2"}) == Shard(3, 4)
    assert shard_of("0/2", array) == Shard(0, 2)
    assert shard_of(None, {}) == WHOLE
    with pytest.raises(OptionError, match="SLURM_ARRAY_TASK_ID"):
        shard_of(None, array)
    with pytest.raises(OptionError, match="'x'"):
        shard_of(None, array | {"SLURM_ARRAY_TASK_COUNT": "x"})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "results"
    finish(out)
    return out


def kill_during_a_point(out: Path, after: int, moment: float) -> None:
    """SIGKILL `moment` seconds after the log says that `after` points have been begun."""
    process, deadline = start(out), time.monotonic() + 60
    while not out.with_suffix(".log").exists() or begun(out) < after:
        assert process.poll() is None, "the sweep ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.001)
    time.sleep(moment)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def test_killed_sweep_resumes_to_the_same_bytes(whole: Path, tmp_path: Path) -> None:
    out, draw = tmp_path / "results", random.Random(0)
    kills = 2
    for k in range(kills):
        kill_during_a_point(out, after=3 + 4 * k, moment=draw.uniform(0, 0.08))
    finish(out)
    assert stored(out) == stored(whole)  # and nothing half-written is left
    assert begun(whole) == 12
    assert begun(out) <= 12 + kills


def test_shards_merge_to_the_same_bytes(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "results"
    first, _ = finish(out, "--shard", "0/2")
    assert first == "shard 0/2: 6 of 12 points are stored; the report is made once all are there\n"
    last, _ = finish(out, SLURM_ARRAY_TASK_ID="1", SLURM_ARRAY_TASK_COUNT="2")
    assert "| sum" in last
    assert stored(out) == stored(whole)
    assert begun(out) == 12


def test_comparison_of_bytes_sees_a_difference(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "results"
    finish(out, SLEEPY_NOISE="1")
    here, there = stored(out), stored(whole)
    assert here.keys() == there.keys()
    assert all(here[name] != there[name] for name in here)


def test_damaged_and_foreign_points_are_computed_again_and_said_so(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "results"
    folder = out / "sleepy"
    folder.mkdir(parents=True)
    for name, content in stored(whole).items():
        (folder / name).write_bytes(content)
    (folder / "index=3.nc").write_bytes(stored(whole)["index=3.nc"][:700])
    _, errors = finish(out)
    assert "index=3.nc: truncated or damaged, computed again" in errors
    assert begun(out) == 1
    assert stored(out) == stored(whole)
    _, errors = finish(out, "--seconds", "0.01")
    assert errors.count("from another configuration or an older schema, computed again") == 12


def test_leftovers_of_dead_processes_are_removed(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    host, path = socket.gethostname(), tmp_path / "point.nc"
    dead, alive, elsewhere = (
        tmp_path / f".{name}-point.nc" for name in (f"{host}-{gone.pid}", f"{host}-{os.getppid()}", f"not-{host}-1")
    )
    for left in (dead, alive, elsewhere):
        left.write_text("half")
    with replacing(path) as temporary:
        temporary.write_text("whole")
    assert sorted(tmp_path.iterdir()) == sorted([path, alive, elsewhere])


def test_processes_that_find_each_other_share_the_points(tmp_path: Path, whole: Path) -> None:
    """Started as SLURM does it; the first reports when all are done, and only the first."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    job = {"SLURM_JOB_ID": "1", "SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_NTASKS": "2"}
    out = tmp_path / "results"
    processes = [
        start(out, "--distributed", **job, JAX_COORDINATOR_ADDRESS=address, SLURM_PROCID=str(i), SLURM_LOCALID=str(i))
        for i in range(2)
    ]
    try:
        (first, errors), (second, more) = (process.communicate(timeout=120) for process in processes)
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], errors + more
    assert first.startswith("| quantity")
    assert second == ""
    assert stored(out) == stored(whole)
    assert begun(out) == 12


@pytest.mark.parametrize(("arguments", "named"), [((), "distributed"), (("--shard", "0/2"), "shard")])
def test_processes_that_cannot_share_end_in_one_line(tmp_path: Path, arguments: tuple[str, ...], named: str) -> None:
    process = start(tmp_path / "results", "--distributed", *arguments)
    _, errors = process.communicate(timeout=180)
    assert process.returncode == 2
    assert re.fullmatch(rf"error: {named}: [^\n]+\n", errors)


def test_timing_is_joined_to_its_own_point_only(tmp_path: Path) -> None:
    path, data = store.path_of(tmp_path, "trial", Empty(), {"seed": 1}), xr.Dataset({"x": 1.0})
    store.write(data, path, "trial", Empty(), {"seed": 1}, seconds=2.5)
    mark = store.digest("trial", Empty(), {"seed": 1})
    found, _ = store.read(path, mark)
    assert found is not None
    assert found.attrs["seconds"] == 2.5
    assert "seconds" not in xr.load_dataset(path, engine="h5netcdf").attrs
    timing = store.timing_of(path)
    timing.write_text(timing.read_text().replace(mark, "another"))
    found, _ = store.read(path, mark)
    assert found is not None
    assert "seconds" not in found.attrs


def test_bad_shard_ends_in_one_line(tmp_path: Path) -> None:
    process = start(tmp_path / "results", "--shard", "2/2")
    _, errors = process.communicate(timeout=180)
    assert process.returncode == 2
    assert errors == "error: shard: must be i/n with 0 ≤ i < n, got '2/2'\n"
