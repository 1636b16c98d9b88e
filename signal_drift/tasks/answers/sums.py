"""Makes questions of sums and products in the form of worked answers, for trying out what takes longer to fetch."""

from collections.abc import Callable
from functools import partial
from random import Random

from signal_drift.tasks.answers.worked_answers import Template, WorkedAnswer

LARGEST = 99
"""Of the whole numbers that are asked about; the smallest is 0."""


def sum_templates() -> dict[int, Template]:
    r"""Return five templates by their numbers.

    >>> sum_templates()[0](Random(0))
    WorkedAnswer(question='What is 49 plus 97?', answer='49 + 97 = 146\n#### 146', number='146', template=0)
    """
    kinds = (_plus, _minus, _times, _plus_twice, _plus_then_times)
    return {number: partial(_drawn, number, kind) for number, kind in enumerate(kinds)}


def _drawn(template: int, kind: Callable[[int, int, int], tuple[str, str, int]], draws: Random) -> WorkedAnswer:
    question, steps, number = kind(*(draws.randint(0, LARGEST) for _ in range(3)))
    return WorkedAnswer(question, f"{steps}\n#### {number}", str(number), template)


def _plus(a: int, b: int, _: int) -> tuple[str, str, int]:
    return f"What is {a} plus {b}?", f"{a} + {b} = {a + b}", a + b


def _minus(a: int, b: int, _: int) -> tuple[str, str, int]:
    return f"What is {a} minus {b}?", f"{a} - {b} = {a - b}", a - b


def _times(a: int, b: int, _: int) -> tuple[str, str, int]:
    return f"What is {a} times {b}?", f"{a} * {b} = {a * b}", a * b


def _plus_twice(a: int, b: int, c: int) -> tuple[str, str, int]:
    return f"Add {a}, {b} and {c}.", f"{a} + {b} = {a + b}\n{a + b} + {c} = {a + b + c}", a + b + c


def _plus_then_times(a: int, b: int, c: int) -> tuple[str, str, int]:
    steps = f"{a} + {b} = {a + b}\n{a + b} * {c} = {(a + b) * c}"
    return f"Add {a} and {b}, then multiply by {c}.", steps, (a + b) * c
