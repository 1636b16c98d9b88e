"""Open this for the one kind of error that a caller can mend, an argument that does not fit, and for who raises it.

>>> from signal_drift.errors.arguments import whole
>>> whole("rank", 4, least=1)
4
>>> whole("rank", 0, least=1)
Traceback (most recent call last):
    ...
signal_drift.errors.input_error.InputError: rank: must be a whole number of at least 1 and below 2³¹, got 0
"""

from signal_drift.errors.input_error import InputError, RoomError

__all__ = ["InputError", "RoomError"]
