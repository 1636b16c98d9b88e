"""The store: a file is whole or absent, believed only under its own digest, and nobody else's file is touched."""

import errno
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from experiments.lab import store
from experiments.lab.errors import RecordError, UnfitError
from experiments.lab.experiment import Experiment, Report
from experiments.lab.runner import Reader, from_store, measure_shard, results
from experiments.lab.shards import Shard
from signal_drift.errors import RoomError


@dataclass(frozen=True)
class Config:
    size: int = 3


POINT = {"seed": 1}
DATA = xr.Dataset({"x": ("i", np.array([1.0, 2.0, 3.0]))})


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    path = store.path_of(tmp_path, "trial", Config(), POINT)
    store.write(DATA, path, "trial", Config(), POINT, seconds=0.5)
    return path


def read(path: Path, config: Config | None = None) -> tuple[xr.Dataset | None, str]:
    return store.read(path, store.digest("trial", config or Config(), POINT))


def test_what_was_written_is_read_with_its_provenance(stored: Path) -> None:
    data, reason = read(stored)
    assert reason == "stored"
    assert data is not None
    np.testing.assert_array_equal(data.x, DATA.x)
    assert json.loads(data.attrs["config"]) == {"size": 3}
    assert data.attrs["dtype"] == "float64"
    assert {"commit", "device", "jax", "numpy", "python", "seconds"} <= data.attrs.keys()


def test_nothing_but_the_result_is_left_in_the_folder(stored: Path) -> None:
    assert [path.name for path in stored.parent.iterdir()] == ["seed=1.nc"]


def test_digest_depends_on_every_part() -> None:
    digests = [
        store.digest("trial", Config(), POINT),
        store.digest("other", Config(), POINT),
        store.digest("trial", Config(size=4), POINT),
        store.digest("trial", Config(), {"seed": 2}),
    ]
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_truncated_file_is_not_believed(stored: Path, share: float) -> None:
    whole = stored.read_bytes()
    stored.write_bytes(whole[: int(share * len(whole))])
    assert read(stored) == (None, "truncated or damaged")


def test_file_of_another_configuration_is_not_believed(stored: Path) -> None:
    assert read(stored, Config(size=4)) == (None, "from another configuration or an older schema")


@pytest.mark.parametrize("kind", ["text", "foreign netCDF", "folder"])
def test_file_that_is_not_ours_is_named_and_left_alone(tmp_path: Path, kind: str) -> None:
    path = store.path_of(tmp_path, "trial", Config(), POINT)
    path.parent.mkdir(parents=True)
    if kind == "folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("my own notes")
    else:
        DATA.to_netcdf(path, engine="h5netcdf")
    experiment = Experiment(
        name="trial",
        title="A trial.",
        configure=lambda problem: Config(),
        points=lambda config: [POINT],
        measure=pytest.fail,
        report=lambda config, data: Report([], [], {}),
    )
    found, reason = read(path)
    assert found is None
    assert from_store(experiment, Config(), tmp_path).reason == f"trial/seed=1.nc is {reason}"
    with pytest.raises(RecordError, match=rf"trial/seed=1\.nc' is {reason}; move it away"):
        results(experiment, Config(), tmp_path)
    assert path.exists()


def test_output_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RecordError, match=r"cannot write .*file/trial\.timing/seed=1\.json"):
        store.write(DATA, store.path_of(tmp_path / "file", "trial", Config(), POINT), "trial", Config(), POINT, 0.0)


def test_full_disk_keeps_the_old_file(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = stored.read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RecordError, match="No space left"):
        store.write(2 * DATA, stored, "trial", Config(), POINT, 0.0)
    assert stored.read_bytes() == before
    assert [path.name for path in stored.parent.iterdir()] == ["seed=1.nc"]


def test_a_crash_between_record_and_timing_loses_no_timing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = store.path_of(tmp_path, "trial", Config(), POINT)
    replaced: list[Path] = []

    def killed_after_the_first(source: Path, target: Path) -> None:
        if replaced:
            raise KeyboardInterrupt
        replaced.append(Path(target))
        Path(source).rename(target)

    monkeypatch.setattr(os, "replace", killed_after_the_first)
    with pytest.raises(KeyboardInterrupt):
        store.write(DATA, path, "trial", Config(), POINT, seconds=0.5)
    assert replaced == [store.timing_of(path)]
    assert read(path) == (None, "absent")


def test_interrupted_run_continues_where_it_stopped(tmp_path: Path) -> None:
    measured: list[int] = []

    def measure(config: Config, seed: int) -> xr.Dataset:
        if seed == 2 and 2 not in measured:
            measured.append(seed)
            raise KeyboardInterrupt
        measured.append(seed)
        return seed * DATA

    experiment = Experiment(
        name="trial",
        title="A trial.",
        configure=lambda problem: Config(),
        points=lambda config: [{"seed": seed} for seed in range(4)],
        measure=measure,
        report=lambda config, data: Report([], [], {}),
    )
    with pytest.raises(KeyboardInterrupt):
        results(experiment, Config(), tmp_path)
    data = results(experiment, Config(), tmp_path)
    assert measured == [0, 1, 2, 2, 3]
    np.testing.assert_array_equal(data.x, np.arange(4)[:, None] * DATA.x.values)
    results(experiment, Config(), tmp_path)
    assert len(measured) == 5


def test_damaged_point_is_computed_again_and_said_so(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    experiment = Experiment(
        name="trial",
        title="A trial.",
        configure=lambda problem: Config(),
        points=lambda config: [{"seed": 0}],
        measure=lambda config, seed: DATA,
        report=lambda config, data: Report([], [], {}),
    )
    results(experiment, Config(), tmp_path)
    path = store.path_of(tmp_path, "trial", Config(), {"seed": 0})
    path.write_bytes(path.read_bytes()[:100])
    results(experiment, Config(), tmp_path)
    assert "truncated or damaged, computed again" in capsys.readouterr().err
    assert xr.load_dataset(path, engine="h5netcdf").x.values.tolist() == [1.0, 2.0, 3.0]


@dataclass(frozen=True)
class Sampled:
    seeds: int


def sampled(measure: Callable[[Sampled, int], xr.Dataset]) -> Experiment[Sampled]:
    """Measure three seeds so."""
    return Experiment(
        name="trial",
        title="A trial.",
        configure=lambda problem: Sampled(3),
        points=lambda config: [{"seed": seed} for seed in range(config.seeds)],
        measure=measure,
        report=lambda config, data: Report([], [], {}),
    )


def test_a_reader_reads_what_is_whole_once_and_looks_again_for_what_was_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = sampled(lambda config, seed: DATA * seed)
    known, reader = from_store, Reader(tmp_path)
    asked: list[Sampled] = []
    monkeypatch.setattr("experiments.lab.runner.from_store", lambda e, c, out: [asked.append(c), known(e, c, out)][1])
    for config in (Sampled(3), Sampled(2)):
        assert reader(trial, config).reason == "trial/seed=0.nc is absent"
    results(trial, Sampled(3), tmp_path)
    for config in (Sampled(3), Sampled(2), Sampled(3), Sampled(2)):
        data = reader(trial, config).data
        assert data is not None
        np.testing.assert_array_equal(data.x, np.arange(config.seeds)[:, None] * DATA.x.values)
    assert asked == [Sampled(3), Sampled(2)] * 2


FULL = {
    "no room for a matrix": RoomError("op: as a dense matrix (9, 9) it needs 8 GiB, but 4 GiB are available"),
    "no memory": MemoryError("Unable to allocate 8 GiB"),
    "no memory, of no words": MemoryError(),
    "no memory on a device": RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8 bytes."),
}


@pytest.mark.parametrize("error", FULL.values(), ids=FULL)
def test_a_point_that_does_not_fit_is_named_when_all_others_are_stored(tmp_path: Path, error: Exception) -> None:
    full, measured = [1], []

    def measure(config: Sampled, seed: int) -> xr.Dataset:
        measured.append(seed)
        if seed in full:
            raise error
        return DATA * seed

    trial = sampled(measure)
    words = re.escape(f"1 of 3 points do not fit: seed=1 (no room{': ' * bool(str(error))}{error})")
    for call in (
        lambda: results(trial, Sampled(3), tmp_path),
        lambda: measure_shard(trial, Sampled(3), tmp_path, Shard(0, 1)),
    ):
        with pytest.raises(UnfitError, match=words):
            call()
    assert measured == [0, 1, 2, 1]
    full.clear()
    np.testing.assert_array_equal(results(trial, Sampled(3), tmp_path).x, np.arange(3)[:, None] * DATA.x.values)


OTHERS = {
    "of any kind": ValueError("seed 1 is odd"),
    "of a file whose name says allocated": RecordError("out: '/scratch/allocated/x.nc' is not a file; move it away"),
    "of a device": RuntimeError("INTERNAL: no kernel image"),
    "of what it builds on": UnfitError("first: 1 of 1 points do not fit: all (no room: Unable to allocate)"),
}


@pytest.mark.parametrize("error", OTHERS.values(), ids=OTHERS)
def test_another_error_ends_a_sweep_at_once(tmp_path: Path, error: Exception) -> None:
    def measure(config: Sampled, seed: int) -> xr.Dataset:
        if seed == 1:
            raise error
        return DATA

    trial = sampled(measure)
    with pytest.raises(type(error), match=re.escape(str(error))):
        results(trial, Sampled(3), tmp_path)
    assert not store.path_of(tmp_path, "trial", Sampled(3), {"seed": 2}).exists()
