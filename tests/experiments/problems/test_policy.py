"""The policy problem: which sum is for what, what it is judged by, and starts that cannot be trained."""

from dataclasses import replace
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.lab.errors import OptionError
from experiments.problems.policy import Policy
from experiments.problems.policy.speaker import questions
from signal_drift.tasks.answers.chats import Chats
from signal_drift.tasks.policy import END, SYMBOLS, completion_probabilities, exact_match, rewarded, rolled_out

TINY = Policy().tiny()


def texts(chats: Chats) -> set[str]:
    """The questions as they are written, with their answers."""
    return {"".join(SYMBOLS[k] for k in row).split(".")[0] for row in np.asarray(chats.tokens)}


def test_no_sum_is_for_two_things_and_every_answer_is_right():
    sets = {kind: texts(chats) for kind, chats in questions(9).items()}
    assert {kind: len(written) for kind, written in sets.items()} == {
        "trained": 800,
        "held out": 200,
        "sums of two": 100,
        "differences": 55,
        "longer": 500,
    }
    assert sum(map(len, sets.values())) == len(set.union(*sets.values()))
    for written in set.union(*sets.values()):
        terms, answer = written.split("=")
        numbers = [int(x) for x in terms.replace("-", "+-").split("+")]
        assert sum(numbers) == int(answer)
        assert str(int(answer)) == answer


def test_the_stream_asks_what_is_trained_on_and_begins_alike_whatever_its_length():
    start = TINY.speaker("float32")
    long, short = (TINY.training(3, steps, "float32").batches for steps in (5, 2))
    assert texts(Chats(*(x.reshape(-1, x.shape[-1]) for x in long.questions))) <= texts(start.trained)
    np.testing.assert_array_equal(long.questions.tokens[:2], short.questions.tokens)
    assert bool(jnp.all(long.key[:2] == short.key))


def test_failure_is_how_often_completions_are_not_right():
    """Draw 200 completions of every sum: right ones within four standard errors; of means over tokens, √p of p, not."""
    start = TINY.speaker("float64")
    training = TINY.training(0, 2)
    said = rolled_out(start.forward, TINY.rules.config, start.base, start.trained, 200, END, jax.random.key(0))
    rewards = np.asarray(rewarded(exact_match, said, start.trained))
    error = np.sqrt(np.mean(rewards.mean(axis=1) * (1 - rewards.mean(axis=1))) / rewards.size)
    assert abs(1 - rewards.mean() - float(training.fit(start.base))) < 4 * error
    wrong = jnp.sqrt(completion_probabilities(start.forward, start.trained, start.base))
    assert abs(rewards.mean() - float(jnp.mean(wrong))) > 4 * error


def test_groups_differ_as_often_as_is_counted():
    """Over all 2⁴ patterns of right and wrong in a group of four."""
    start = TINY.speaker("float64")
    p = np.asarray(completion_probabilities(start.forward, start.trained, start.base))
    exact = np.zeros_like(p)
    for pattern in product((0, 1), repeat=TINY.group):
        likely = np.prod([p if right else 1 - p for right in pattern], axis=0)
        exact += likely * (0 < sum(pattern) < TINY.group)
    found = TINY.training(0, 2).scores["groups that differ"](start.base)
    assert float(found) == pytest.approx(exact.mean(), rel=1e-12)


def test_distance_to_the_start_is_zero_there_and_grows():
    base, near = TINY.draw(0).base, TINY.training(0, 2).scores["less KL to the start"]
    moved = [float(near({k: W * (1 + off) for k, W in base.items()})) for off in (0.0, 0.1, 0.5)]
    assert abs(moved[0]) < 1e-12
    assert 0 > moved[1] > moved[2]


@pytest.mark.parametrize("pretraining", [1, 2000])
def test_a_start_that_solves_hardly_any_sum_or_nearly_all_is_refused(pretraining):
    with pytest.raises(OptionError, match=r"^pretraining: must leave a model that solves from 5% to 60% of the sums, "):
        replace(TINY, pretraining=pretraining).draw(0)


def test_a_first_step_without_a_gradient_is_named():
    """One question, answered twice: alike more often than not."""
    alone, refused = replace(TINY, questions=1, group=2), []
    for seed in range(9):
        try:
            alone.draw(seed)
        except OptionError as error:
            refused.append((seed, str(error)))
    assert 0 < len(refused) < 9
    assert all(line == f"group: all rewards at seed {seed} are equal, there is no gradient" for seed, line in refused)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"heads": 3}, "heads: twice as many must divide the width 16, got 3"),
        ({"largest": 10}, "largest: must be one digit, got 10"),
        ({"group": 1}, "group: must be at least 2, got 1"),
        ({"beta": -0.1}, "beta: must be at least 0, got -0.1"),
        ({"beta": float("nan")}, "beta: must be at least 0, got nan"),
    ],
)
def test_sizes_that_do_not_fit_are_named(change, line):
    with pytest.raises(OptionError, match=f"^{line}"):
        Policy(**change)
