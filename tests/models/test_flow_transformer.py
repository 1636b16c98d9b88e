"""The flow transformer: its patches are those of the image, and time and class are heard."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import signal_drift as sd
from signal_drift.errors import InputError
from signal_drift.models import FlowTransformer
from signal_drift.models.flow_transformer import FREQUENCIES, waves


@pytest.fixture(scope="module")
def model() -> FlowTransformer:
    return FlowTransformer(6, 3, patch=2, width=4, heads=2, blocks=1, rngs=nnx.Rngs(0))


def test_patches_are_the_squares_of_the_image_and_go_back(model):
    x = jnp.arange(72.0).reshape(2, 36)
    patches = model._patches(x)
    square = np.asarray(x).reshape(2, 6, 6)
    for i in range(3):
        for j in range(3):
            expected = square[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].reshape(2, 4)
            np.testing.assert_array_equal(patches[:, 3 * i + j], expected)
    np.testing.assert_array_equal(model._image(patches), x)


def test_samples_do_not_see_each_other_and_time_and_class_are_heard(model):
    x = jax.random.normal(jax.random.key(0), (2, 36))
    time, label = jnp.array([0.2, 0.7]), jnp.array([0, 2])
    both = model(x, time, label)
    np.testing.assert_allclose(model(x[1:], time[1:], label[1:])[0], both[1], atol=1e-13)
    for other in (model(x, time + 0.1, label), model(x, time, label[::-1])):
        assert np.min(np.max(np.abs(other - both), axis=1)) > 1e-4


def test_waves_are_sines_and_cosines_of_doubling_frequency():
    t = np.array([0.0, 0.3])
    expected = [[f(np.pi * k * x) for f in (np.sin, np.cos) for k in 2 ** np.arange(FREQUENCIES)] for x in t]
    np.testing.assert_allclose(waves(jnp.asarray(t)), expected, atol=1e-12)


def test_layers_of_the_blocks_are_found(model):
    base, forward = sd.base_and_forward(model, "blocks.*")
    assert len(base) == 6
    x, t, c = jnp.ones((1, 36)), jnp.ones(1), jnp.array([1])
    np.testing.assert_array_equal(forward(base, x, t, c), model(x, t, c))


@pytest.mark.parametrize(
    ("sizes", "line"),
    [
        ({"patch": 4}, "patch: must divide the side 6, got 4"),
        ({"heads": 3}, "heads: must divide the width 4, got 3"),
        ({"blocks": 0}, "blocks: must be"),
    ],
)
def test_sizes_that_do_not_fit_are_named(sizes, line):
    with pytest.raises(InputError, match=f"^{line}"):
        FlowTransformer(6, 3, **{"patch": 2, "width": 4, "heads": 2, "blocks": 1} | sizes, rngs=nnx.Rngs(0))
