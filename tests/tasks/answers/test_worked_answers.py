"""Questions drawn from templates: no leak between what is trained on and what is not, and answers read as written."""

from random import Random

import pytest
from problems import rejects

from signal_drift.tasks.answers.sums import sum_templates
from signal_drift.tasks.answers.worked_answers import (
    Template,
    WorkedAnswer,
    answer_of,
    draw_answers,
    is_right,
    split_templates,
)

SUMS = sum_templates()
FEW: dict[int, Template] = {7: lambda draws: WorkedAnswer(f"{draws.randint(1, 6)}?", "#### 1", "1", 7)}
"""One template of six questions."""


def questions(answers: tuple[WorkedAnswer, ...]) -> set[str]:
    return {x.question for x in answers}


def test_every_fifth_template_is_never_trained_on() -> None:
    trained, unseen = split_templates(dict.fromkeys(range(100), FEW[7]) | SUMS)
    assert list(unseen) == list(range(4, 100, 5))
    assert sorted([*trained, *unseen]) == list(range(100))
    assert all(side[k] is SUMS[k] for side in (trained, unseen) for k in side if k in SUMS)
    assert {x.template for x in draw_answers(split_templates(SUMS)[1], 20, seed=0)} == {4}


def test_a_seed_gives_the_same_questions_whatever_the_order_of_the_templates() -> None:
    drawn = draw_answers(SUMS, 30, seed=3)
    assert drawn == draw_answers(dict(reversed(SUMS.items())), 30, seed=3)
    assert not questions(drawn) & questions(draw_answers(SUMS, 30, seed=4))
    assert drawn[0].question == "What is 75 minus 69?"  # with every Python


def test_no_question_is_drawn_twice() -> None:
    assert len(questions(draw_answers(FEW, 6, seed=0))) == 6


def test_what_was_trained_on_is_not_held_out() -> None:
    """Without the exclusion, another seed of six questions does give some of the same."""
    training = draw_answers(FEW, 4, seed=0)
    assert not questions(training) & questions(draw_answers(FEW, 2, seed=1, apart_from=training))
    assert questions(training) & questions(draw_answers(FEW, 3, seed=1))


def test_templates_are_drawn_with_the_same_chance() -> None:
    """4000 draws of five: each within five standard deviations √(n·(1/5)·(4/5)) of n/5, by chance 3 in 10⁶."""
    counts = [0] * 5
    for x in draw_answers(SUMS, 4000, seed=5):
        counts[x.template] += 1
    assert max(abs(count - 800) for count in counts) < 5 * 640**0.5


def test_more_questions_than_there_are_is_refused() -> None:
    with rejects("count: ", "140 draws gave only 6 of 7 different questions"):
        draw_answers(FEW, 7, seed=0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(({}, 1, 0), "templates: none"), ((SUMS, 0, 0), "count: "), ((SUMS, 1, -1), "seed: ")],
    ids=["no templates", "no questions", "a seed below zero"],
)
def test_what_cannot_be_drawn_is_named(arguments: tuple[dict[int, Template], int, int], words: str) -> None:
    with rejects(words, "got"):
        draw_answers(*arguments)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("2 + 3 = 5\n#### 5", "5"),
        ("####5", "5"),
        ("#### -3\n", "-3"),
        ("#### 18.0 oz", "18.0"),
        ("#### 12,345.50.", "12345.50"),
        ("#### 5\nuser: more\n#### 6", "5"),
        ("the answer is 5", None),
        ("#### five", None),
        ("####\n5", None),
        ("", None),
    ],
)
def test_an_answer_is_the_number_after_the_first_mark(text: str, number: str | None) -> None:
    assert answer_of(text) == number


@pytest.mark.parametrize(
    ("text", "right"),
    [("#### 18.0", True), ("#### 018", True), ("#### 180", False), ("#### -18", False), ("18", False)],
)
def test_an_answer_is_right_however_it_is_spelled(text: str, right: bool) -> None:
    assert is_right(text, "18") is right


def test_sums_are_worked_out() -> None:
    """Every line but the last is an equation that holds, the last is its right side, and all answers are right."""
    for number, template in SUMS.items():
        for seed in range(20):
            found = template(Random(seed))
            *steps, last = found.answer.split("\n")
            sides = [step.split(" = ") for step in steps]
            assert all(eval(left) == int(right) for left, right in sides)
            assert last == f"#### {sides[-1][1]}" == f"#### {found.number}"
            assert found.template == number
