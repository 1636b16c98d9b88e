"""These errors end a command with one line and exit status 2, as the library's own `InputError` does."""

from typing import Any

from signal_drift.errors import RoomError


class OptionError(Exception):
    """Say that an option has a value that makes no sense; not a `ValueError`, which the parser would dress up."""


class RecordError(Exception):
    """Say that a file or folder stands in the way; the message is one line that names it."""


class UnfitError(Exception):
    """Say which points of a sweep do not fit into memory, of which all others are stored."""


class ControlError(Exception):
    """Say that a control, which is wrong on purpose, was not refuted: no verdict of this run may be believed."""


LACKING = (RoomError, MemoryError, RuntimeError)
"""What is raised where memory is lacking, and elsewhere: JAX and PyTorch have the last."""


def no_room(error: Exception) -> str:
    """Say that there was no room, in a line; raise the error again where that is not what it says."""
    lacking = isinstance(error, RoomError | MemoryError) or "allocat" in str(error)
    if not lacking and "RESOURCE_EXHAUSTED" not in str(error):
        raise error
    return f"no room: {str(error).splitlines()[0]}" if str(error) else "no room"


def check_positive(config: Any, *names: str) -> None:
    """Check that every named field, or every member of it, is at least 1."""
    for name in names:
        value = getattr(config, name)
        for number in value if isinstance(value, tuple) else (value,):
            if number < 1:
                raise OptionError(f"{name}: must be at least 1, got {number}")


def check_ascending(config: Any, *names: str) -> None:
    """Check that every named field ascends: results are stored by their labels in order."""
    for name in names:
        values = getattr(config, name)
        if list(values) != sorted(set(values)):
            raise OptionError(f"{name}: must ascend, got {values}")
