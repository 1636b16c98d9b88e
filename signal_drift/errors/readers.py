"""Ends a command quietly whose output nobody reads any more, as `head` does before everything is written."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def while_it_is_read() -> Iterator[None]:
    """Run what prints; where the reader of the output leaves, end with exit status 1 and say nothing about it."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is flushed at the exit
        raise SystemExit(1) from None
