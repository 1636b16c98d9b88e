"""Draws questions with worked answers from templates, divides the templates, and checks what a model answers.

>>> from signal_drift.tasks.answers.sums import sum_templates
>>> trained, unseen = split_templates(sum_templates())
>>> list(trained), list(unseen)
([0, 1, 2, 3], [4])
>>> training = draw_answers(trained, 3, seed=0)
>>> held_out = draw_answers(trained, 2, seed=1, apart_from=training)
>>> is_right(training[0].answer, training[0].number)
True
"""

import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from random import Random
from typing import NamedTuple

from signal_drift.errors import InputError
from signal_drift.errors.arguments import whole

UNSEEN = 5
"""One template of so many, by its number, is never trained on."""
TRIES = 20
"""Draws for every question wanted, after which templates have no more of them."""
FINAL = re.compile(r"####[ \t]*(-?\d[\d,]*(?:\.\d+)?)")


class WorkedAnswer(NamedTuple):
    """Holds a question, the steps of its answer that end in a line "#### number", the number, and the template's."""

    question: str
    answer: str
    number: str
    template: int


Template = Callable[[Random], WorkedAnswer]
"""Draws one question with its answer."""


def split_templates(templates: Mapping[int, Template]) -> tuple[dict[int, Template], dict[int, Template]]:
    """Split into (trained on, never trained on): the latter are those with number ≡ 4 mod 5."""
    unseen = {number: template for number, template in templates.items() if number % UNSEEN == UNSEEN - 1}
    return {number: template for number, template in templates.items() if number not in unseen}, unseen


def draw_answers(
    templates: Mapping[int, Template], count: int, seed: int, apart_from: Iterable[WorkedAnswer] = ()
) -> tuple[WorkedAnswer, ...]:
    """Draw `count` questions, no two alike and none that `apart_from` has, each of any template with the same chance.

    One seed gives the same questions everywhere. Raises `InputError` where templates do not have as many questions.
    """
    count, draws = whole("count", count, least=1), Random(whole("seed", seed, least=0))
    if not templates:
        raise InputError("templates: none to draw from, got {}")
    numbers, taken, found = sorted(templates), {x.question for x in apart_from}, []
    for _ in range(TRIES * count):
        drawn = templates[draws.choice(numbers)](draws)
        if drawn.question not in taken:
            taken.add(drawn.question)
            found.append(drawn)
        if len(found) == count:
            return tuple(found)
    raise InputError(f"count: {TRIES * count} draws gave only {len(found)} of {count} different questions")


def answer_of(text: str) -> str | None:
    r"""Find the number in the first line "#### number" of a text, without commas; None where there is none.

    >>> answer_of("3 * 411 = 1233\n#### 1,233")
    '1233'
    """
    found = FINAL.search(text)
    return found[1].replace(",", "") if found else None


def is_right(text: str, number: str) -> bool:
    """Tell whether a text ends in this number, however it is spelled: 18.0 is 18."""
    found = answer_of(text)
    return found is not None and Decimal(found) == Decimal(number)
