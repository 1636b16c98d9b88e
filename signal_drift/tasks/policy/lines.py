r"""Writes sums and products of digits as lines of text, for a language model that goes on with the last of them.

They are those that `chain_sum` and `products` of reasoning-gym ask at their smallest size, written as it writes them.

>>> chain_sums(2)[13], products()[13], len(chain_sums(2))
(Line(expression='0 - 6', value=-6), Line(expression='1 * 3', value=3), 200)
>>> chats = tokenise_lines(lambda text: list(text.encode()), [Line("7 + 5", 12)], [Line("4 - 1", 3)], length=24)
>>> bytes(chats.tokens[0].tolist())
b'4 - 1 = 3\n7 + 5 = 12\n\x00\x00\x00'
>>> bytes(chats.tokens[0][chats.answered[0]].tolist())
b' 12\n'
"""

from collections.abc import Callable, Sequence
from itertools import product
from typing import NamedTuple

from signal_drift.errors import InputError
from signal_drift.errors.arguments import function, whole
from signal_drift.errors.words import shown
from signal_drift.tasks.answers.chats import Chats, Turns, filled

LINE_END = "\n"
"""Ends a line, and with it an answer."""


class Line(NamedTuple):
    """Holds what stands before the sign of equality, and the number behind it."""

    expression: str
    value: int


def chain_sums(terms: int) -> list[Line]:
    """List all sums and differences of so many numbers from 0 to 9, such as 3 - 8 + 1."""
    terms = whole("terms", terms, least=2)
    found = []
    for first, *others in product(range(10), repeat=terms):
        for signs in product((1, -1), repeat=terms - 1):
            steps = list(zip(signs, others, strict=True))
            written = "".join(f" {'-' if sign < 0 else '+'} {number}" for sign, number in steps)
            found.append(Line(f"{first}{written}", first + sum(sign * number for sign, number in steps)))
    return found


def products() -> list[Line]:
    """List all products of two numbers from 0 to 9."""
    return [Line(f"{a} * {b}", a * b) for a, b in product(range(10), repeat=2)]


def opening(examples: Sequence[Line]) -> str:
    """Write examples with their values, as they stand before every question."""
    return "".join(f"{x.expression} ={_answer(x)}" for x in examples)


def tokenise_lines(
    encode: Callable[[str], list[int]], lines: Sequence[Line], examples: Sequence[Line], length: int
) -> Chats:
    """Write each of the lines behind the examples, as tokens; the answer is what follows the last sign of equality.

    Raises `InputError` where there is no line, and for a `length` that is too short.
    """
    function("encode", encode)
    length = whole("length", length, least=2)
    if not lines:
        raise InputError(f"lines: none to write, got {shown(lines)}")
    before = encode(opening(examples)) if examples else []
    turns = [Turns([*before, *encode(f"{x.expression} =")], encode(_answer(x)), repr(x.expression)) for x in lines]
    return filled(turns, length)


def _answer(line: Line) -> str:
    return f" {line.value}{LINE_END}"
