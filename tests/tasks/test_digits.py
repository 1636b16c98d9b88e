"""The digits: pre-trained on upright images, adapted to rotated ones, nothing leaking from one part to another."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from signal_drift import InputError
from signal_drift.models.bridge import base_and_forward
from signal_drift.models.mlp import MLP
from signal_drift.tasks.digits import (
    Adaptation,
    Classification,
    accuracy,
    cross_entropy,
    rotated_digit_rows,
    rotated_digits,
)


def fresh(seed: int = 0, angle: float = 45.0, steps: int = 150) -> Adaptation:
    return rotated_digits(jax.random.key(seed), hidden=(32,), angle=angle, samples=200, pretraining=600, steps=steps)


drawn = cache(fresh)


@pytest.fixture(scope="module")
def task() -> Adaptation:
    return drawn()


def images(*parts: Classification) -> set[bytes]:
    return {np.asarray(image).tobytes() for part in parts for image in part.X}


def test_no_image_is_in_two_parts() -> None:
    same = drawn(angle=0.0, steps=1)  # unrotated, so that an image can be recognised
    parts = (same.pretraining, same.training, same.validation)
    assert [len(part.X) for part in parts] == [600, 200, 997]
    assert sum(len(images(part)) for part in parts) == len(images(*parts))
    leaking = (same.pretraining, same.training, same.training)
    assert sum(len(images(part)) for part in leaking) > len(images(*leaking))  # a leak would be seen


def test_everything_follows_from_the_seed(task: Adaptation) -> None:
    again, other = fresh(), fresh(seed=1)
    for name, W0 in task.base.items():
        np.testing.assert_array_equal(W0, again.base[name])
        assert np.any(other.base[name] != W0)
    np.testing.assert_array_equal(task.validation.X, again.validation.X)


def test_pretraining_learns_upright_digits_and_rotation_undoes_it(task: Adaptation) -> None:
    upright = float(accuracy(task.forward, task.pretraining, task.base))
    rotated = float(accuracy(task.forward, task.validation, task.base))
    held_out = drawn(angle=0.0)
    assert upright > 0.9
    assert float(accuracy(held_out.forward, held_out.validation, held_out.base)) > 0.8
    assert rotated < 0.6


def test_a_quarter_turn_is_exact() -> None:
    upright, turned = drawn(angle=0.0, steps=1).training.X, drawn(angle=90.0, steps=1).training.X
    expected = np.rot90(np.asarray(upright).reshape(-1, 8, 8), axes=(1, 2)).reshape(len(upright), -1)
    found = min(np.abs(np.asarray(turned) - expected).max(), np.abs(np.asarray(turned) - expected[:, ::-1]).max())
    assert found < 1e-9


def test_cross_entropy_is_the_mean_negative_log_probability() -> None:
    data = Classification(jnp.array([[1.0, 0.0], [0.0, 2.0]]), jnp.array([0, 1]))
    base, forward = base_and_forward(MLP([2, 2], rngs=nnx.Rngs(0)))
    loss, (layer,) = cross_entropy(forward, data), base
    expected = (np.log(1 + np.exp(-1.0)) + np.log(1 + np.exp(-2.0))) / 2
    assert float(loss({layer: jnp.eye(2)})) == pytest.approx(expected, rel=1e-12)
    assert float(loss({layer: -jnp.eye(2)})) != pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("samples", [0, 1197, 5000])
def test_parts_that_leave_nothing_are_named(samples: int) -> None:
    with pytest.raises(InputError, match=f"samples: {samples}"):
        rotated_digits(jax.random.key(0), samples=samples, pretraining=600)


def test_transformer_learns_upright_digits_and_rotation_undoes_it() -> None:
    """On the images that the MLP sees; adapted are the twelve layers of two blocks, D = 2(4·16² + 2·16·32)."""
    task, mlp = (make(jax.random.key(0), samples=50) for make in (rotated_digit_rows, drawn_with))
    np.testing.assert_array_equal(task.validation.X, mlp.validation.X)
    assert float(accuracy(task.forward, task.pretraining, task.base)) > 0.95
    assert float(accuracy(task.forward, task.validation, task.base)) < 0.5
    assert all(name.startswith("blocks.") for name in task.base)
    assert (len(task.base), sum(W.size for W in task.base.values())) == (12, 4096)


def drawn_with(key: jax.Array, samples: int) -> Adaptation:
    return rotated_digits(key, hidden=(4,), samples=samples, steps=1)


def test_transformer_follows_from_its_key() -> None:
    one, same, other = (
        rotated_digit_rows(jax.random.key(seed), width=4, blocks=1, samples=5, steps=3) for seed in (0, 0, 1)
    )
    for name, W0 in one.base.items():
        np.testing.assert_array_equal(W0, same.base[name])
        assert np.any(other.base[name] != W0)
