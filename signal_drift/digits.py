"""A real adaptation task: scikit-learn's 8×8 digits, pre-trained upright and adapted to the same digits rotated."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.ndimage
from flax import nnx
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, Key

from signal_drift.bridge import Forward, base_and_forward
from signal_drift.errors import InputError
from signal_drift.lora import Weights
from signal_drift.models import MLP
from signal_drift.training import train


class Classification(NamedTuple):
    """Inputs X, one sample a row, and the number of each sample's class."""

    X: Float[Array, "n d_in"]
    labels: Int[Array, "n"]


class Adaptation(NamedTuple):
    """A pre-trained model and the task to adapt it to; no image is in two of its three parts."""

    base: dict[str, Array]
    forward: Forward
    training: Classification
    validation: Classification
    pretraining: Classification


def cross_entropy(forward: Forward, data: Classification) -> Partial:
    """ℓ(w) = −(1/n) Σ_i log softmax(forward(X_i; w))[label_i]."""
    return Partial(_mean_cross_entropy, forward, data)


def _mean_cross_entropy(forward: Forward, data: Classification, weights: Weights) -> Float[Array, ""]:
    logits = forward(weights, data.X)
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, data.labels))


def accuracy(forward: Forward, data: Classification, weights: Weights) -> Float[Array, ""]:
    """The share of samples whose largest output is at their label."""
    return jnp.mean(jnp.argmax(forward(weights, data.X), axis=1) == data.labels)


def rotated_digits(
    key: Key[Array, ""],
    hidden: tuple[int, ...] = (64, 64),
    angle: float = 45.0,
    samples: int = 300,
    pretraining: int = 900,
    steps: int = 300,
    learning_rate: float = 3e-3,
) -> Adaptation:
    """The MLP 64 → `hidden` → 10, pre-trained with Adam on upright images, to be adapted to rotated ones.

    The 1797 images are shuffled by `key`; the first `pretraining` stay upright, the next `samples` are rotated by
    `angle` degrees to train on, the rest are rotated to validate on. Pixels lie in [0, 1].
    """
    images, labels = _digits()
    if not 1 <= samples <= len(images) - pretraining - 1 or pretraining < 1:
        raise InputError(f"samples: {samples} and {pretraining} for pre-training leave none of {len(images)} images")
    shuffle, weights = jax.random.split(key)
    order = np.asarray(jax.random.permutation(shuffle, len(images)))
    upright, rotated = images[order], _rotated(images[order], angle)
    ends = (0, pretraining, pretraining + samples, len(images))
    parts = [
        Classification(jnp.asarray(source[start:end]), jnp.asarray(labels[order][start:end]))
        for source, start, end in zip((upright, rotated, rotated), ends[:-1], ends[1:], strict=True)
    ]
    base, forward = base_and_forward(MLP([images.shape[1], *hidden, 10], rngs=nnx.Rngs(weights)))
    base = _pretrained(cross_entropy(forward, parts[0]), base, learning_rate, steps)
    return Adaptation(base, forward, training=parts[1], validation=parts[2], pretraining=parts[0])


def _digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits  # half a second that other users of the package need not pay

    data: Any = load_digits()
    return data.data / 16.0, data.target


def _rotated(images: np.ndarray, angle: float) -> np.ndarray:
    """Each 8×8 image turned about its centre, linear interpolation, black beyond the edge."""
    square = images.reshape(-1, 8, 8)
    return scipy.ndimage.rotate(square, angle, axes=(2, 1), reshape=False, order=1).reshape(images.shape)


@partial(jax.jit, static_argnames="steps")
def _pretrained(loss: Partial, base: Weights, learning_rate: float | Array, steps: int) -> dict[str, Array]:
    return train(loss, base, None, 1.0, optax.adam(learning_rate), steps).trained
