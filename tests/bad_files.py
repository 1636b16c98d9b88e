"""Damage files as disks, editors and strangers do, drawn from a seed, and watch what reads them."""

import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ESCAPE = "\x1b[31mred\x1b]0;title\x07\u202e\x9b1m\r"
"""What would colour a terminal, set its title, turn text around and write over the line."""


def damaged(content: bytes, draw: random.Random) -> bytes:
    """Return the bytes truncated, with flipped or overwritten ones, with others put in, or twice."""
    at, length = draw.randrange(len(content)), draw.choice([1, 2, 8, 64])
    bit = bytes([content[at] ^ 1 << draw.randrange(8)])
    return draw.choice(
        [
            content[:at],
            content[:at] + bit + content[at + 1 :],
            content[:at] + b"\xff" * length + content[at + length :] + b"\n",
            content[:at] + b"\0" * length + content[at + length :] + b"\n",
            content[:at] + draw.randbytes(length) + content[at:],
            content + content,
        ]
    )


class Hangs(BaseException):
    """Say that something hangs, past every handler of errors."""


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """Raise `Hangs` where something takes longer on the processor, or waits for half a minute."""

    def late(number: int, frame: FrameType | None) -> None:
        raise Hangs(f"more than {seconds} s")

    clocks = {signal.SIGPROF: (signal.ITIMER_PROF, seconds), signal.SIGALRM: (signal.ITIMER_REAL, 30)}
    before = {number: signal.signal(number, late) for number in clocks}
    for clock, limit in clocks.values():
        signal.setitimer(clock, limit)
    try:
        yield
    finally:
        for number, (clock, _) in clocks.items():
            signal.setitimer(clock, 0)
            signal.signal(number, before[number])


def unprintable(text: str) -> set[str]:
    """Return the characters that do not show themselves, but for the ends of lines."""
    return {c for c in text if not c.isprintable()} - {"\n"}
