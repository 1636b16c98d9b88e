"""Read JSON files that may be damaged or foreign, and check that they hold what they have to, field by field."""

import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from stat import S_ISREG
from typing import Any

from signal_drift.files.tensors import read_json

Check = Callable[[Any], bool]
"""Tells whether a value read from JSON is what it has to be."""


def read(path: Path, check: Check) -> Any:
    """Return what a file holds, read as `read_json` does. Raises `ValueError` for what fails that or the check.

    Raises `OSError` where nothing is there.
    """
    if not S_ISREG(path.stat().st_mode):
        raise ValueError("no file")
    found = read_json(path)
    if not check(found):
        raise ValueError("not what it has to be")
    return found


def is_text(x: Any) -> bool:
    return isinstance(x, str)


def is_number(x: Any) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool) and abs(x) <= sys.float_info.max


def is_truth(x: Any) -> bool:
    return isinstance(x, bool)


def or_none(check: Check) -> Check:
    return lambda x: x is None or check(x)


def one_of(values: Collection[str]) -> Check:
    return lambda x: isinstance(x, str) and x in values


def each(check: Check) -> Check:
    """Check every member of a list."""
    return lambda x: isinstance(x, list) and all(map(check, x))


def by_name(check: Check) -> Check:
    """Check every value of an object."""
    return lambda x: isinstance(x, dict) and all(map(check, x.values()))


def fields(checks: Mapping[str, Check], **optional: Check) -> Check:
    """Check an object that has all these fields, perhaps the optional ones, and no others."""
    every = {**checks, **optional}
    return lambda x: (
        isinstance(x, dict) and checks.keys() <= x.keys() <= every.keys() and all(every[name](x[name]) for name in x)
    )
