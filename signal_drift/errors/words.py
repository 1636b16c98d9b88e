"""Writes a value of unknown origin in a few words that no terminal obeys."""

from reprlib import Repr
from typing import Any

import jax
import numpy as np


def printable(text: str) -> str:
    """Escape what would not show itself, or would command a terminal, as in a Python string."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def shown(value: Any) -> str:
    """Write a value of unknown origin as Python would, on one line and cut where it is long or deep.

    An array of one axis or more is written by its shape and dtype.
    """
    if isinstance(value, jax.Array | np.ndarray) and value.ndim:
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    return printable(_SHORT.repr(value))


_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 200
_SHORT.maxlevel = 3
