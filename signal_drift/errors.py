"""Defines the one kind of error that a caller can mend: an argument that does not fit."""


class InputError(ValueError):
    """Says that an argument is wrong, in one line that names the argument and its value."""
