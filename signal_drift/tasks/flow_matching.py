"""Poses flow matching: a velocity field that carries noise to images of a class, learned from straight lines.

The line from noise ε ~ N(0, I) to an image x is x_t = (1 − t)ε + t x, and its velocity x − ε (rectified flow, arXiv
2209.03003; flow matching, arXiv 2210.02747).
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, Key

from signal_drift.errors.arguments import whole
from signal_drift.lora.adapters import Weights
from signal_drift.losses.composite import composite
from signal_drift.models.bridge import Forward, predictor
from signal_drift.tasks.criteria import mean_square


class Lines(NamedTuple):
    """Holds images with the number of each one's class, the noise that each is reached from, and a time in [0, 1]."""

    images: Float[Array, "*n pixels"]
    labels: Int[Array, "*n"]
    noise: Float[Array, "*n pixels"]
    time: Float[Array, "*n"]

    @property
    def points(self) -> Float[Array, "*n pixels"]:
        """Return x_t = (1 − t)ε + t x."""
        t = self.time[..., None]
        return (1 - t) * self.noise + t * self.images

    @property
    def velocity(self) -> Float[Array, "*n pixels"]:
        """Return dx_t/dt = x − ε."""
        return self.images - self.noise


def draw_lines(key: Key[Array, ""], images: Float[Array, "*n pixels"], labels: Int[Array, "*n"]) -> Lines:
    """Draw the noise ~ N(0, 1) and a time, uniform in [0, 1], for every image."""
    of_noise, of_time = jax.random.split(key)
    noise = jax.random.normal(of_noise, images.shape, images.dtype)
    return Lines(images, labels, noise, jax.random.uniform(of_time, labels.shape, images.dtype))


def flow_loss(forward: Forward, lines: Lines) -> Partial:
    """Make the loss ℓ(w) = mean |v_w(x_t, t, class) − (x − ε)|² over samples and pixels.

    `forward` maps (w, x, t, class) to the velocity v_w.
    """
    return composite(predictor(forward, lines.points, lines.time, lines.labels), Partial(mean_square, lines.velocity))


def batch_flow_loss(forward: Forward) -> Partial:
    """Make the map (w, batch of lines) ↦ `flow_loss` on the batch."""
    return Partial(_on_batch, forward)


def _on_batch(forward: Forward, weights: Weights, batch: Lines) -> Float[Array, ""]:
    return flow_loss(forward, batch)(weights)


def sampled(
    forward: Forward, weights: Weights, noise: Float[Array, "n pixels"], labels: Int[Array, "n"], steps: int = 32
) -> Float[Array, "n pixels"]:
    """Carry noise along the flow from t = 0 to 1, in Heun's steps of second order: images of these classes."""
    return _sampled(forward, weights, noise, labels, steps=whole("steps", steps, least=1))


@partial(jax.jit, static_argnames="steps")
def _sampled(
    forward: Forward, weights: Weights, noise: Float[Array, "n pixels"], labels: Int[Array, "n"], *, steps: int
) -> Float[Array, "n pixels"]:
    h = 1 / steps

    def velocity(x: Float[Array, "n pixels"], t: Float[Array, ""]) -> Float[Array, "n pixels"]:
        return forward(weights, x, jnp.full(labels.shape, t, x.dtype), labels)

    def step(x: Float[Array, "n pixels"], k: Int[Array, ""]) -> tuple[Float[Array, "n pixels"], None]:
        t = (k * h).astype(x.dtype)
        first = velocity(x, t)
        second = velocity(x + h * first, t + h)
        return x + h / 2 * (first + second), None

    return jax.lax.scan(step, noise, jnp.arange(steps))[0]
