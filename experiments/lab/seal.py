"""Seal a record: it ends with the SHA-256 of all that is before, so that a damaged one is never believed."""

import hashlib
import os
from pathlib import Path

MARK = b"\nsignal_drift sha256 "
LENGTH = len(MARK) + 2 * hashlib.sha256().digest_size


def sealed(body: bytes) -> bytes:
    """Return the body with its seal."""
    return body + _seal(body)


def is_sealed(path: Path) -> bool:
    """Tell whether a file ends with the seal of what is before it; what has no seal at its end is not read whole."""
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) < LENGTH:
            return False
        file.seek(-LENGTH, os.SEEK_END)
        end = file.read(LENGTH)
    return end.startswith(MARK) and end == _seal(body_of(path))


def body_of(path: Path) -> bytes:
    """Return what a sealed file has before its seal."""
    return path.read_bytes()[:-LENGTH]


def _seal(body: bytes) -> bytes:
    return MARK + hashlib.sha256(body).hexdigest().encode()
