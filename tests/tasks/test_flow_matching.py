"""Flow matching against formulas in NumPy, and the integrator against a flow that is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from flax import nnx
from problems import rounding

import signal_drift as sd
from signal_drift.tasks.flow_matching import batch_flow_loss, draw_lines, flow_loss, sampled

IMAGES, LABELS = jnp.arange(12.0).reshape(3, 4) / 10, jnp.array([0, 2, 1])


class Linear(nnx.Module):
    """The velocity W x + t·c, c a number of the class: its flow is known in closed form."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.map = nnx.Linear(4, 4, use_bias=False, param_dtype=jnp.float64, rngs=rngs)

    def __call__(self, x: jax.Array, time: jax.Array, label: jax.Array) -> jax.Array:
        return self.map(x) + (time * (label + 1))[:, None]


@pytest.fixture(scope="module")
def field():
    return sd.base_and_forward(Linear(nnx.Rngs(0)))


def test_lines_lead_from_noise_to_the_image():
    lines = draw_lines(jax.random.key(0), IMAGES, LABELS)
    t = np.asarray(lines.time)[:, None]
    np.testing.assert_allclose(lines.points, np.asarray(lines.noise) + t * np.asarray(lines.velocity), atol=1e-15)
    ends = [lines._replace(time=jnp.full(3, float(end))).points for end in (0, 1)]
    np.testing.assert_array_equal(ends[0], lines.noise)
    np.testing.assert_array_equal(ends[1], IMAGES)


def test_noise_and_time_have_the_distributions_that_are_stated():
    """Mean square of the noise 1, mean of t ½ and of t² ⅓, each within five standard errors; of t³ it would be ¼."""
    n = 20_000
    lines = draw_lines(jax.random.key(1), jnp.zeros((n, 4)), jnp.zeros(n, int))
    t = np.asarray(lines.time)
    assert abs(np.mean(np.asarray(lines.noise) ** 2) - 1) < 5 * np.sqrt(2 / (4 * n))
    assert abs(np.mean(t) - 1 / 2) < 5 * np.sqrt(1 / 12 / n)
    assert abs(np.mean(t**2) - 1 / 3) < 5 * np.sqrt(4 / 45 / n) < 1 / 3 - 1 / 4


def test_loss_is_the_mean_square_of_the_formula(field):
    base, forward = field
    lines = draw_lines(jax.random.key(2), IMAGES, LABELS)
    W, eps, x, t = (np.asarray(a) for a in (base["map"], lines.noise, IMAGES, lines.time[:, None]))

    def formula(sign: float) -> float:
        at = (1 - t) * eps + t * x
        return float(np.mean((at @ W.T + t * (np.asarray(LABELS)[:, None] + 1) - (x - sign * eps)) ** 2))

    for loss in (flow_loss(forward, lines)(base), batch_flow_loss(forward)(base, lines)):
        assert abs(float(loss) - formula(1)) < rounding(50, formula(1))
        assert abs(float(loss) - formula(0.99)) > 1e-4, "the near control"


def test_samples_follow_the_flow_to_second_order(field):
    """x(1) = e^W ε + (c + 1) ∫ t e^{W(1−t)} 1 dt; halving the step divides the error by four, not by two."""
    base, forward = field
    W, noise = np.asarray(base["map"]), jax.random.normal(jax.random.key(3), (3, 4))
    augmented = np.zeros((6, 6))  # d/dt of (x, t, 1)
    augmented[:4, :4], augmented[4, 5] = W, 1
    errors = []
    for steps in (16, 32):
        found = np.asarray(sampled(forward, base, noise, LABELS, steps))
        off = 0.0
        for row, (x, label) in enumerate(zip(np.asarray(noise), np.asarray(LABELS), strict=True)):
            augmented[:4, 4] = label + 1
            exact = scipy.linalg.expm(augmented) @ np.concatenate([x, [0, 1]])
            off = max(off, float(np.max(np.abs(found[row] - exact[:4]))))
        errors.append(off)
    assert 3.5 < errors[0] / errors[1] < 4.5
