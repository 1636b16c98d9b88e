"""Reference records: taken only by digest, the same bytes as they were stored, and never a damaged or a large file."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from experiments.lab import reference, store
from experiments.lab.errors import RecordError
from experiments.lab.experiment import Experiment, Report
from experiments.lab.runner import from_store, last_stage, results


@dataclass(frozen=True)
class Config:
    seeds: int = 2
    size: int = 3


def measure(config: Config, seed: int) -> xr.Dataset:
    return xr.Dataset({"x": ("i", np.random.default_rng(seed).standard_normal(config.size))})


TRIAL = Experiment(
    name="trial",
    title="A trial.",
    configure=lambda problem: Config(),
    points=lambda config: [{"seed": seed} for seed in range(config.seeds)],
    measure=measure,
    report=lambda config, data: Report([], [], {}),
    stages=(1, 2),
)


def test_records_come_back_as_they_were_stored_and_say_where_from(tmp_path: Path) -> None:
    here, there, kept = tmp_path / "here", tmp_path / "there", tmp_path / "kept"
    results(TRIAL, Config(), here)
    assert reference.keep(TRIAL, Config(), here, kept)
    assert reference.take(TRIAL, Config(), there, kept) == 2
    assert reference.take(TRIAL, Config(), there, kept) == 0
    old, new = (from_store(TRIAL, Config(), out) for out in (here, there))
    assert new.data is not None
    assert old.digest == new.digest != ""
    assert old.seconds == new.seconds
    assert new.data.attrs["taken from"] == "docs/records"


def test_part_of_the_records_is_kept_and_added_to_elsewhere(tmp_path: Path) -> None:
    """One point here, the other there; a folder that has neither takes nothing away."""
    kept, places = tmp_path / "kept", [tmp_path / name for name in "abc"]
    for i, out in enumerate(places[:2]):
        results(TRIAL, Config(), out)
        store.path_of(out, "trial", Config(), {"seed": 1 - i}).unlink()
    assert not reference.keep(TRIAL, Config(), places[2], kept)
    assert reference.keep(TRIAL, Config(), places[0], kept)
    assert reference.take(TRIAL, Config(), places[2], kept) == 1
    assert from_store(TRIAL, Config(), places[2]).data is None
    assert reference.keep(TRIAL, Config(), places[1], kept)
    assert reference.keep(TRIAL, Config(), tmp_path / "empty", kept)
    assert reference.take(TRIAL, Config(), places[2], kept) == 1
    assert from_store(TRIAL, Config(), places[2]).data is not None


def test_the_same_records_are_the_same_archive(tmp_path: Path) -> None:
    results(TRIAL, Config(), tmp_path)
    archives = [tmp_path / name for name in "ab"]
    for folder in archives:
        reference.keep(TRIAL, Config(), tmp_path, folder)
    first, second = (reference.archive(TRIAL, Config(), folder).read_bytes() for folder in archives)
    assert first == second


def test_a_record_of_another_configuration_is_not_taken(tmp_path: Path) -> None:
    results(TRIAL, Config(), tmp_path)
    reference.keep(TRIAL, Config(), tmp_path, tmp_path / "kept")
    assert reference.take(TRIAL, Config(size=4), tmp_path / "other", tmp_path / "kept") == 0
    assert reference.take(TRIAL, Config(), tmp_path / "empty", tmp_path / "none") == 0


def test_more_seeds_take_what_there_is_and_measure_the_rest(tmp_path: Path) -> None:
    results(TRIAL, Config(), tmp_path)
    reference.keep(TRIAL, Config(), tmp_path, tmp_path / "kept")
    more = TRIAL.staged(Config())[1]
    assert reference.take(TRIAL, more, tmp_path / "new", tmp_path / "kept") == 2
    assert last_stage(TRIAL, Config(), tmp_path / "new") == Config()
    results(TRIAL, more, tmp_path / "new")
    assert last_stage(TRIAL, Config(), tmp_path / "new") == more


def test_what_is_there_is_never_replaced(tmp_path: Path) -> None:
    results(TRIAL, Config(), tmp_path)
    reference.keep(TRIAL, Config(), tmp_path, tmp_path / "kept")
    place = store.path_of(tmp_path, "trial", Config(), {"seed": 0})
    place.write_bytes(b"")
    assert reference.take(TRIAL, Config(), tmp_path, tmp_path / "kept") == 0
    assert place.read_bytes() == b""


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 nothing more"])
def test_a_damaged_archive_is_named(content: bytes, tmp_path: Path) -> None:
    path = reference.archive(TRIAL, Config(), tmp_path)
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(RecordError, match="is damaged"):
        reference.take(TRIAL, Config(), tmp_path / "out", tmp_path)


def test_what_is_too_large_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = reference.archive(TRIAL, Config(), tmp_path / "kept")
    results(TRIAL, Config(), tmp_path)
    with monkeypatch.context() as small:
        small.setattr(reference, "LARGEST", 100)
        assert not reference.keep(TRIAL, Config(), tmp_path, tmp_path / "kept")
        assert not path.exists()
    assert reference.keep(TRIAL, Config(), tmp_path, tmp_path / "kept")
    before = path.read_bytes()
    monkeypatch.setattr(reference, "LARGEST", 100)
    assert not reference.keep(TRIAL, Config(), tmp_path, tmp_path / "kept")
    assert path.read_bytes() == before


def test_a_record_that_was_damaged_since_is_kept_as_it_was(tmp_path: Path) -> None:
    results(TRIAL, Config(), tmp_path)
    assert reference.keep(TRIAL, Config(), tmp_path, tmp_path / "kept")
    store.path_of(tmp_path, "trial", Config(), {"seed": 0}).write_bytes(b"damaged")
    assert reference.keep(TRIAL, Config(), tmp_path, tmp_path / "kept")
    assert reference.take(TRIAL, Config(), tmp_path / "new", tmp_path / "kept") == 2


def test_a_flipped_byte_of_a_record_is_no_record(tmp_path: Path) -> None:
    config = Config(seeds=1, size=400)
    results(TRIAL, config, tmp_path)
    path = store.path_of(tmp_path, "trial", config, {"seed": 0})
    whole, wanted = path.read_bytes(), store.digest("trial", config, {"seed": 0})
    for at in range(0, len(whole), 37):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        assert store.read(path, wanted)[0] is None
