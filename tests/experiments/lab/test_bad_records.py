"""Bad records cannot hurt: they are named, not believed, computed again or left alone, and nothing hangs."""

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr
from bad_files import ESCAPE, damaged, unprintable, within
from test_reference import TRIAL, Config

from experiments.doors.rerun import as_text, find
from experiments.lab import reference, store
from experiments.lab.errors import RecordError
from experiments.lab.experiment import Row, table
from experiments.lab.runner import Reader, from_store, results, seconds_spent
from experiments.ledger.ledger import entry
from experiments.ledger.ledger import store as judged_from
from experiments.problems import PROBLEMS
from experiments.tuning import magnitudes

EXPERIMENT = magnitudes.EXPERIMENT
CONFIG = EXPERIMENT.at(PROBLEMS["mlp"], quick=True)
WANTED = store.digest(EXPERIMENT.name, CONFIG, {})
COUNT = 6
"""Draws of every harm."""

Harm = Callable[[Path, random.Random], None]


def place(out: Path) -> Path:
    return store.path_of(out, EXPERIMENT.name, CONFIG, {})


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one record, of magnitudes."""
    out = tmp_path_factory.mktemp("sound")
    results(EXPERIMENT, CONFIG, out)
    return out


@pytest.fixture
def out(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "out"))


def judged(out: Path) -> dict:
    found = entry(find("T6-magnitudes"), {"mlp": PROBLEMS["mlp"]}, judged_from(Reader(out), quick=True), quick=True)
    return {name: x for name, x in found.items() if name not in ("provenance", "seconds", "problems")}


def refused(command: Callable[[], object]) -> str:
    """Return the line in which the command refuses a file, nothing where it does not."""
    try:
        command()
    except RecordError as error:
        return str(error)
    return ""


def bytes_of(path: Path, draw: random.Random) -> None:
    path.write_bytes(damaged(path.read_bytes(), draw))


def numbers(path: Path, draw: random.Random) -> None:
    """NaN, infinity or another number where a sound one belongs."""
    with h5py.File(path, "r+") as file:
        arrays = [x for x in file.values() if isinstance(x, h5py.Dataset) and x.dtype.kind == "f"]
        draw.choice(arrays)[...] = draw.choice([np.nan, np.inf, -1.0, 0.0])


def attributes(path: Path, draw: random.Random) -> None:
    with h5py.File(path, "r+") as file:
        name = draw.choice([*file.attrs, store.MARK, store.MARK])
        file.attrs[name] = draw.choice([ESCAPE, "other", 3, np.nan, np.arange(4.0), "x" * 20_000])


def sizes(path: Path, draw: random.Random) -> None:
    """An array that claims more numbers than any memory has; the mark may be gone too."""
    with h5py.File(path, "r+") as file:
        name = draw.choice(list(file))
        del file[name]
        file.create_dataset(name, shape=(10 ** draw.choice([9, 12, 15]),), dtype="f8", chunks=(1000,))
        if draw.random() < 0.3:
            del file.attrs[store.MARK]


def length(path: Path, draw: random.Random) -> None:
    """A file that claims to be up to a terabyte long, and is all holes."""
    os.truncate(path, draw.choice([10**6, 10**9, 10**12]))


def other_kinds(path: Path, draw: random.Random) -> None:
    path.unlink()
    kinds: list[Callable[[], object]] = [
        path.touch,
        path.mkdir,
        lambda: os.mkfifo(path),
        lambda: path.symlink_to("/dev/zero"),
        lambda: path.symlink_to(path.name),
        lambda: path.symlink_to("nowhere"),
        lambda: path.write_text(ESCAPE),
        lambda: xr.Dataset({"x": 1.0}).to_netcdf(path, engine="h5netcdf"),
    ]
    draw.choice(kinds)()


HARMS: tuple[Harm, ...] = (bytes_of, bytes_of, bytes_of, numbers, attributes, sizes, length, other_kinds)


@pytest.mark.parametrize("harm", dict.fromkeys(HARMS), ids=lambda harm: harm.__name__)
def test_a_bad_record_is_named_and_computed_again_or_left_alone(harm: Harm, sound: Path, out: Path) -> None:
    path, whole = place(out), place(sound).read_bytes()
    for seed in range(COUNT * HARMS.count(harm)):
        shutil.rmtree(out)
        shutil.copytree(sound, out)
        harm(path, random.Random(seed))
        with within(5):
            found = judged(out)
            assert (found["verdict"], found["findings"]) == ("not run", []), seed
            assert found["reason"].startswith("magnitudes/all.nc is "), seed
            assert not unprintable(as_text(found)), seed
            error = refused(lambda: results(EXPERIMENT, CONFIG, out))
        if error:
            assert str(path) in error
            assert not unprintable(error)
            assert os.path.lexists(path)
        else:
            assert path.read_bytes() == whole, seed


def test_what_was_not_touched_is_believed(sound: Path) -> None:
    assert judged(sound)["verdict"] == "supported"


TIMES = ("2026-01-01T00:00:00Z", ESCAPE, 3, None, ["x"], "9" * 30)
SECONDS = (1.5, "NaN", "Infinity", "1e999", -1, '"12"', "true", "null", "[]", "9" * 5000)


def timing(draw: random.Random) -> str:
    """A file beside a record that says something senseless, or nothing."""
    named = f'"created": {json.dumps(draw.choice(TIMES))}, "seconds": {draw.choice(SECONDS)}'
    more = draw.choice(["", ', "seconds": 3', *(f', "{x}": {json.dumps(ESCAPE)}' for x in ("commit", "taken from"))])
    whole = f'{{"{store.MARK}": "{WANTED}", {named}{more}}}'
    return draw.choice([whole, whole, whole, "[" * 100_000, whole[: draw.randrange(len(whole))], "[]", '{"a": 1}', "3"])


def test_what_lies_beside_a_record_changes_neither_verdict_nor_provenance(sound: Path, out: Path) -> None:
    wanted, sure = judged(sound), from_store(EXPERIMENT, CONFIG, sound).data
    assert sure is not None
    for seed in range(24):
        store.timing_of(place(out)).write_text(timing(random.Random(seed)), encoding="utf-8")
        with within(5):
            assert seconds_spent(EXPERIMENT, CONFIG, out) in (None, 1.5)
            found = from_store(EXPERIMENT, CONFIG, out)
            assert found.data is not None
            assert found.seconds in (None, 1.5)
            assert found.data.attrs.get("created", TIMES[0]) in ("", TIMES[0])
            assert found.data.attrs.keys() <= {*sure.attrs, "created"}
            assert found.data.attrs["commit"] == sure.attrs["commit"]
    assert judged(out) == wanted


def test_a_bad_archive_is_named_and_nothing_of_it_is_believed(tmp_path: Path) -> None:
    results(TRIAL, Config(), tmp_path / "sound")
    reference.keep(TRIAL, Config(), tmp_path / "sound", tmp_path / "kept")
    path = reference.archive(TRIAL, Config(), tmp_path / "kept")
    whole = path.read_bytes()
    for seed in range(40):
        draw = random.Random(seed)
        path.write_bytes(damaged(whole if draw.random() < 0.5 else damaged(whole, draw), draw))
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        with within(5):
            error = refused(lambda: reference.take(TRIAL, Config(), tmp_path / "out", tmp_path / "kept"))
        assert str(path) in (error or str(path))
        for record in (tmp_path / "out").rglob("*.nc"):
            assert record.read_bytes() == (tmp_path / "sound" / record.relative_to(tmp_path / "out")).read_bytes()


@pytest.mark.parametrize(
    ("at", "field"),
    [
        (8, b"\x01\x00"),
        (8, b"\x20\x00"),
        (10, b"\x63\x00"),
        (10, b"\x0c\x00"),
        (6, b"\xff\x00"),
        (24, b"\xff\xff\xff\x7f"),
    ],
    ids=["encrypted", "patched", "method 99", "bzip2 that is none", "version 25.5", "two gigabytes"],
)
def test_an_archive_that_claims_to_be_what_it_is_not_is_named(at: int, field: bytes, tmp_path: Path) -> None:
    """Each by a field of the central directory of ZIP, of its first member."""
    results(TRIAL, Config(), tmp_path / "sound")
    reference.keep(TRIAL, Config(), tmp_path / "sound", tmp_path / "kept")
    path = reference.archive(TRIAL, Config(), tmp_path / "kept")
    whole = path.read_bytes()
    place = whole.index(b"PK\x01\x02") + at
    path.write_bytes(whole[:place] + field + whole[place + len(field) :])
    assert str(path) in refused(lambda: reference.take(TRIAL, Config(), tmp_path / "out", tmp_path / "kept"))


def test_a_table_shows_the_control_characters_of_a_name() -> None:
    assert not unprintable(table([Row(ESCAPE, "1", "2", ESCAPE)]))
