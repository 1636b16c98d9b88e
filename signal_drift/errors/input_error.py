"""Defines the one kind of error that a caller can mend, an argument that does not fit: in itself, or into memory."""


class InputError(ValueError):
    """Says that an argument is wrong, in one line that names the argument and its value."""

    def __init__(self, message: str) -> None:
        """Take the line; what a value brings along, line breaks and control characters, is spelled out."""
        words = " ".join(message.split())
        super().__init__("".join(c if c.isprintable() else repr(c)[1:-1] for c in words))


class RoomError(InputError):
    """Says that what was asked for does not fit into the memory that is left."""
