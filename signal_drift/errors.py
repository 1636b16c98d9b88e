"""The one kind of error a caller can mend: an argument that does not fit, named together with its value."""


class InputError(ValueError):
    """An argument is wrong; the message is one line that names the argument and its value."""
