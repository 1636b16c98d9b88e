"""Writes sums of small numbers in characters: questions whose answers can be checked."""

from collections.abc import Sequence

from signal_drift.errors import InputError
from signal_drift.errors.arguments import whole
from signal_drift.errors.words import shown
from signal_drift.tasks.answers.chats import Chats, Turns, filled

SYMBOLS = "0123456789+-=."
"""What is written; the token of a character is its place."""
END = SYMBOLS.index(".")
"""The token that ends an answer."""


def tokenise_sums(sums: Sequence[str], length: int) -> Chats:
    """Write "3+5+9" as "3+5+9=17.", a token for each character; the answer is what follows "=".

    >>> sums = tokenise_sums(["3+5+9", "2-7"], length=10)
    >>> "".join(SYMBOLS[k] for k in sums.tokens[0][sums.answered[0]])
    '17.'

    Raises `InputError` for what is no sum of whole numbers and for one that is longer than `length`.
    """
    length = whole("length", length, least=2)
    if not sums:
        raise InputError(f"sums: none to write, got {shown(sums)}")
    written = [(f"{terms}=", f"{_value(terms)}.") for terms in sums]
    return filled([Turns(_places(asked), _places(answer), asked + answer) for asked, answer in written], length)


def _places(text: str) -> list[int]:
    return [SYMBOLS.index(x) for x in text]


def _value(terms: str) -> int:
    try:
        return sum(int(x) for x in terms.replace("-", "+-").split("+"))
    except ValueError:
        raise InputError(f"sums: must be whole numbers with + or - between, got {shown(terms)}") from None
