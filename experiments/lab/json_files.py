"""Read JSON files that may be damaged or foreign, and check that they hold what they have to, field by field."""

import json
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

Check = Callable[[Any], bool]
"""Tells whether a value read from JSON is what it has to be."""
LARGEST = 50_000_000
"""Bytes of a file that is read at all; the ledger of the reference run has one million."""


def read(path: Path, check: Check) -> Any:
    """Return what a file holds. Raises `ValueError` for what is no JSON or fails the check, and `OSError`.

    JSON is taken strictly: an object names a field once, and NaN is no number.
    """
    if path.stat().st_size > LARGEST or not path.is_file():
        raise ValueError("too large, or no file")
    try:
        found = json.loads(
            path.read_text(encoding="utf-8"), object_pairs_hook=_each_once, parse_constant=_no_such_number
        )
    except RecursionError:
        raise ValueError("too deep") from None
    if not check(found):
        raise ValueError("not what it has to be")
    return found


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a field stands twice")
    return found


def _no_such_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


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
