"""The flow problem: which image is for what, and what a score says."""

import numpy as np
import pytest

from experiments.lab.errors import OptionError
from experiments.problems.flow import KNOWN, Flow, asked_for
from signal_drift.tasks.digits import accuracy, upright_digits

TINY = Flow().tiny()


def rows(images) -> set[bytes]:
    return {np.asarray(x).tobytes() for x in images.X}


def test_no_image_is_for_two_things_and_new_digits_are_never_pretrained_on():
    painter = TINY.painter("float32")
    parts = (painter.few, painter.held_out, painter.known)
    digits = upright_digits()[1]
    assert [len(x.X) for x in parts[1:]] == [sum(digits >= KNOWN) - 3 * TINY.few, len(painter.known.X)]
    assert 0.15 < len(painter.known.X) / sum(digits < KNOWN) < 0.25
    assert not rows(painter.few) & rows(painter.held_out)
    assert {int(x) for x in painter.known.labels} == set(range(KNOWN))
    assert np.bincount(painter.few.labels, minlength=10)[KNOWN:].tolist() == [TINY.few] * (10 - KNOWN)
    assert {int(x) for x in painter.held_out.labels} == set(range(KNOWN, 10))


def test_the_stream_shows_the_few_alone_and_begins_alike_whatever_its_length():
    few = rows(TINY.painter("float32").few)
    long, short = (TINY.training(3, steps, "float32").batches for steps in (5, 2))
    assert {np.asarray(x).tobytes() for x in long.images.reshape(-1, 64)} <= few
    np.testing.assert_array_equal(long.noise[:2], short.noise)


def test_velocity_explained_is_one_less_the_share_of_the_mean_square_that_is_left():
    painter, training = TINY.painter("float64"), TINY.training(0, 2)
    judge = training.scores["velocity explained, held-out images"]
    (loss,) = judge.args
    outputs, criterion = loss.args
    (velocity,) = criterion.args
    left = np.asarray(outputs(painter.base)) - np.asarray(velocity)
    expected = 1 - np.mean(left**2) / np.mean(np.asarray(velocity) ** 2)
    assert float(judge(painter.base)) == pytest.approx(expected, rel=1e-12)


def test_judge_knows_real_images_and_not_turned_ones():
    """Nine tenths of the held-out images, and few of them upside down."""
    painter = TINY.painter("float64")
    forward, judge = painter.judge
    real = painter.held_out._replace(X=(painter.held_out.X + 1) / 2)
    assert accuracy(forward, real, judge) > 0.9
    assert accuracy(forward, real._replace(X=real.X[:, ::-1]), judge) < 0.6


@pytest.mark.parametrize("rank", [1, 3, 4])
def test_adapters_have_numbers_of_their_own(rank):
    """No entry of A, in units of its deviation, is among the noise that a run of that seed sees, or a judge."""
    seen = np.ravel(TINY.training(3, 8, "float32").batches.noise)
    for A, _ in TINY.adapters(3, rank, "float32").values():
        drawn = np.ravel(A) * A.shape[1] ** 0.5
        assert np.min(np.abs(drawn[:, None] - seen), axis=1).max() > 1e-5


def test_samples_are_asked_for_in_turn_from_one_noise():
    noise, labels = asked_for(7, "float64")
    assert labels.tolist() == [7, 8, 9, 7, 8, 9, 7]
    np.testing.assert_array_equal(noise, asked_for(7, "float32")[0].astype("float64"))


@pytest.mark.parametrize(
    ("change", "line"),
    [({"heads": 3}, "heads: must divide the width 32, got 3"), ({"few": 101}, "few: must leave images")],
)
def test_sizes_that_do_not_fit_are_named(change, line):
    with pytest.raises(OptionError, match=f"^{line}"):
        Flow(**change)
