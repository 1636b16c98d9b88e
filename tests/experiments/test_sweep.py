"""Best points, power laws and their intervals on planted sweeps; a sweep that is killed, split and damaged."""

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

import numpy as np
import pytest
import xarray as xr

from experiments import record
from experiments.record import replacing
from experiments.shard import WHOLE, Shard, shard_of
from experiments.sweep import best_point, best_points, bootstrap, free_fit, half_octaves, root_fit
from signal_drift import InputError

ALPHAS = half_octaves(-2, 12)
RANKS = (1, 2, 4, 8, 16, 32, 64)
PROGRAM = Path(__file__).with_name("sleepy_sweep.py")
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Empty:
    """A configuration without options."""


def planted(slope: float, C: float, seeds: int = 5, noise: float = 0.02) -> np.ndarray:
    """(seed, rank, α) log-losses, parabolas in ln α with their lowest point at C·r^slope."""
    centre = np.log(C) + slope * np.log(RANKS)
    losses = 0.1 * (np.log(ALPHAS) - centre[:, None]) ** 2
    return losses + noise * np.random.default_rng(1).standard_normal((seeds, *losses.shape))


def fitted_slope(losses: np.ndarray) -> float:
    return free_fit(RANKS, np.array([b.x for b in best_points(ALPHAS, losses)])).slope


def fitted_constant(losses: np.ndarray) -> float:
    return root_fit(RANKS, np.array([b.x for b in best_points(ALPHAS, losses)])).prefactor


def test_best_point_is_the_vertex_of_a_parabola_in_log_space() -> None:
    losses = 3 + 0.4 * (np.log(ALPHAS) - np.log(11.0)) ** 2
    best = best_point(ALPHAS, losses)
    assert best.flag == ""
    assert best.x == pytest.approx(11.0, rel=1e-9)
    assert best.log_loss == np.min(losses)
    assert abs(ALPHAS[int(np.argmin(losses))] / 11.0 - 1) > 0.02  # the grid alone does not know it


@pytest.mark.parametrize("centre", [2.0**-3, 2.0**13])
def test_lowest_point_on_the_edge_is_flagged(centre: float) -> None:
    best = best_point(ALPHAS, (np.log(ALPHAS) - np.log(centre)) ** 2)
    assert best.flag == "edge"
    assert np.isnan(best.x)


def test_cliff_beside_the_best_point_does_not_deepen_it() -> None:
    losses = (np.log(ALPHAS) - np.log(64.0)) ** 2 / 10
    losses[17:] += 30.0
    best = best_point(ALPHAS, losses)
    assert best.log_loss == 0.0
    assert ALPHAS[15] < best.x <= ALPHAS[16]


def test_diverged_runs_are_data() -> None:
    losses = (np.log(ALPHAS) - np.log(64.0)) ** 2
    losses[13:] = np.inf  # from 2^4.5 on: the best finite point stands beside a diverged one
    assert best_point(ALPHAS, losses) == (ALPHAS[12], losses[12], "")
    assert best_point(ALPHAS, np.full(len(ALPHAS), np.inf)).flag == "diverged"


def test_planted_square_root_law_is_recovered() -> None:
    losses = planted(0.5, 20.0)
    slope, C = bootstrap(fitted_slope, losses), bootstrap(fitted_constant, losses)
    assert slope.low - 0.02 < 0.5 < slope.high + 0.02
    assert C.low * 0.95 < 20.0 < C.high * 1.05
    assert slope.high - slope.low < 0.2


def test_planted_linear_law_is_refuted() -> None:
    slope = bootstrap(fitted_slope, planted(1.0, 20.0))
    assert slope.low > 0.6
    assert slope.mean == pytest.approx(1.0, abs=0.1)


def test_edge_points_do_not_enter_the_fit() -> None:
    losses = planted(0.5, 2.0**9.9, noise=0.0)  # from r = 16 on, the best lies at the largest α or beyond
    best = best_points(ALPHAS, losses)
    assert [b.flag for b in best] == [""] * 4 + ["edge"] * 3
    assert fitted_slope(losses) == pytest.approx(0.5, abs=1e-6)
    clipped = np.array([b.x if not b.flag else ALPHAS[-1] for b in best])
    assert abs(free_fit(RANKS, clipped).slope - 0.5) > 1e-3  # what fitting them would have done


def test_bootstrap_interval_comes_from_the_seeds() -> None:
    alike = np.repeat(planted(0.5, 20.0, seeds=1), 5, axis=0)
    same, spread = bootstrap(fitted_slope, alike), bootstrap(fitted_slope, planted(0.5, 20.0, noise=0.3))
    assert same.low == pytest.approx(same.high, abs=1e-9)
    assert spread.high - spread.low > 0.01


@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_shards_partition_the_points(count: int) -> None:
    points = list(range(7))
    parts = [shard_of(f"{i}/{count}", {}).of(points) for i in range(count)]
    assert sorted(p for part in parts for p in part) == points
    assert sorted(p for part in parts[1:] for p in part) != points  # a missing shard is missed


@pytest.mark.parametrize("text", ["2/2", "a/b", "0/0", "-1/3", "1", "", "1/2/3", "0.5/2"])
def test_bad_shard_is_named(text: str) -> None:
    with pytest.raises(InputError, match=re.escape(repr(text))):
        shard_of(text, {})


def test_shard_comes_from_slurm_unless_given() -> None:
    array = {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "4"}
    assert shard_of(None, array | {"SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_STEP": "2"}) == Shard(3, 4)
    assert shard_of("0/2", array) == Shard(0, 2)
    assert shard_of(None, {}) == WHOLE
    with pytest.raises(InputError, match="SLURM_ARRAY_TASK_ID"):
        shard_of(None, array)
    with pytest.raises(InputError, match="'x'"):
        shard_of(None, array | {"SLURM_ARRAY_TASK_COUNT": "x"})


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
    assert errors.count("from another configuration, computed again") == 12


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


def test_timing_is_joined_to_its_own_point_only(tmp_path: Path) -> None:
    path, data = record.path_of(tmp_path, "trial", {"seed": 1}), xr.Dataset({"x": 1.0})
    record.write(data, path, "trial", Empty(), {"seed": 1}, seconds=2.5)
    mark = record.digest("trial", Empty(), {"seed": 1})
    stored, _ = record.read(path, mark)
    assert stored is not None
    assert stored.attrs["seconds"] == 2.5
    assert "seconds" not in xr.load_dataset(path, engine="h5netcdf").attrs
    timing = record.timing_of(path)
    timing.write_text(timing.read_text().replace(mark, "another"))
    stored, _ = record.read(path, mark)
    assert stored is not None
    assert "seconds" not in stored.attrs


def test_bad_shard_ends_in_one_line(tmp_path: Path) -> None:
    process = start(tmp_path / "results", "--shard", "2/2")
    _, errors = process.communicate(timeout=180)
    assert process.returncode == 2
    assert errors == "error: shard: must be i/n with 0 ≤ i < n, got '2/2'\n"
