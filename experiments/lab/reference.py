"""Take records from docs/records, where the long ones of the reference run are kept, and put them there.

One ZIP file for each experiment and problem has its points as they were stored (without their seals: ZIP has its own),
with when they were computed and how long that took. A point is taken only where it carries the digest of the
configuration asked for, as any other.
"""

import io
import json
import zipfile
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory

from experiments.lab import store
from experiments.lab.errors import RecordError
from experiments.lab.experiment import C, Experiment, Point
from experiments.lab.files import replacing
from experiments.lab.seal import body_of

FOLDER = Path(__file__).parents[2] / "docs" / "records"
LARGEST = 3_000_000
"""Bytes of a file there: compact records only."""
LARGEST_MEMBER = 20 * LARGEST
"""Bytes of a record that such a file is believed to hold; HDF5 has compressed it before."""
UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, LookupError, OSError, RuntimeError, TypeError, ValueError)
"""What zipfile and json raise for damaged files."""
TAKEN = {"taken from": "docs/records"}
"""What is noted beside a record that was not computed here."""
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time of every member of a ZIP file, so that the same records give the same bytes."""


def archive(experiment: Experiment[C], config: C, folder: Path = FOLDER) -> Path:
    """Place the records of an experiment on a problem."""
    return folder / experiment.name / f"{store.problem_of(config) or 'all'}.zip"


def take(experiment: Experiment[C], config: C, out: Path, folder: Path = FOLDER) -> int:
    """Put into `out` what it lacks and the reference has, and count it. Raises `RecordError` for a damaged file."""
    path = archive(experiment, config, folder)
    if not path.exists():
        return 0
    try:
        with zipfile.ZipFile(path) as kept:
            return sum(_take_point(experiment, config, point, out, kept) for point in experiment.points(config))
    except UNREADABLE as error:
        raise RecordError(f"reference: {str(path)!r} is damaged ({type(error).__name__})") from None


def _take_point(experiment: Experiment[C], config: C, point: Point, out: Path, kept: zipfile.ZipFile) -> bool:
    place, beside = _files(experiment, config, point, out)
    if place.exists() or place.name not in kept.namelist():
        return False
    timing = json.loads(_member(kept, beside.name))
    if timing[store.MARK] != store.digest(experiment.name, config, point):
        return False
    store.put(place, _member(kept, place.name), timing | TAKEN)
    return True


def _member(kept: zipfile.ZipFile, name: str) -> bytes:
    if kept.getinfo(name).file_size > LARGEST_MEMBER:
        raise ValueError(name)
    return kept.read(name)


def keep(experiment: Experiment[C], config: C, out: Path, folder: Path = FOLDER) -> bool:
    """Add the records in `out`, all or some, to those that the reference has; tell whether any are there.

    Nothing is changed where they are too large together. Raises `RecordError` for a damaged file.
    """
    path = archive(experiment, config, folder)
    with TemporaryDirectory() as before:
        take(experiment, config, Path(before), folder)
        found = (
            _stored(experiment, config, point, out) or _stored(experiment, config, point, Path(before))
            for point in experiment.points(config)
        )
        whole = _zipped(list(filter(None, found)))
    small = 0 < len(whole) <= LARGEST
    if small:
        with replacing(path) as temporary:
            temporary.write_bytes(whole)
    return small


def _zipped(records: list[tuple[Path, Path]]) -> bytes:
    """Return the ZIP file of records, without their seals, and what is noted beside them; no bytes of no records."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as kept:
        for place, beside in records:
            for name, member in ((place.name, body_of(place)), (beside.name, beside.read_bytes())):
                kept.writestr(zipfile.ZipInfo(name, EPOCH), member, zipfile.ZIP_DEFLATED, 9)
    return content.getvalue() if records else b""


def _stored(experiment: Experiment[C], config: C, point: Point, out: Path) -> tuple[Path, Path] | None:
    """Return the files of a point whose record is believed."""
    place, beside = _files(experiment, config, point, out)
    return (place, beside) if store.read(place, store.digest(experiment.name, config, point))[0] is not None else None


def _files(experiment: Experiment[C], config: C, point: Point, out: Path) -> tuple[Path, Path]:
    place = store.path_of(out, experiment.name, config, point)
    return place, store.timing_of(place)
