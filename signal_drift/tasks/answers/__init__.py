"""Open this for questions with worked answers: drawn from templates, as chats, trained on, and checked by their number.

>>> from random import Random
>>> answer = sum_templates()[0](Random(0))
>>> chats = tokenise_chats(lambda text: list(text.encode()), [answer], length=120)
>>> chats.tokens.shape, is_right("#### 146", answer.number)
((1, 120), True)
"""

from signal_drift.tasks.answers.chats import Chats, prompt, tokenise_chats
from signal_drift.tasks.answers.exact_match import answered_right
from signal_drift.tasks.answers.gsm_symbolic import read_templates
from signal_drift.tasks.answers.next_token import batch_next_token_loss, next_token_loss
from signal_drift.tasks.answers.replies import end_alike, endings_of, replied
from signal_drift.tasks.answers.sums import sum_templates
from signal_drift.tasks.answers.worked_answers import (
    Template,
    WorkedAnswer,
    answer_of,
    draw_answers,
    is_right,
    split_templates,
)

__all__ = [
    "Chats",
    "Template",
    "WorkedAnswer",
    "answer_of",
    "answered_right",
    "batch_next_token_loss",
    "draw_answers",
    "end_alike",
    "endings_of",
    "is_right",
    "next_token_loss",
    "prompt",
    "read_templates",
    "replied",
    "split_templates",
    "sum_templates",
    "tokenise_chats",
]
