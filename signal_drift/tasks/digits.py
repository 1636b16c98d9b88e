"""Pre-trains models on scikit-learn's 8×8 digits, to be adapted to the same digits rotated."""

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

from signal_drift.errors import InputError
from signal_drift.lora.adapters import Weights
from signal_drift.losses.composite import composite
from signal_drift.models.bridge import Forward, base_and_forward, predictor
from signal_drift.models.mlp import MLP
from signal_drift.models.transformer import TransformerClassifier
from signal_drift.tasks.criteria import mean_cross_entropy
from signal_drift.tasks.pretraining import pretrained
from signal_drift.training import train

SIDE, PIXELS, CLASSES = 8, 64, 10
BATCH = 100
"""Images in one step of pre-training the transformer."""


class Classification(NamedTuple):
    """Holds the inputs X, one sample a row, and the number of each sample's class."""

    X: Float[Array, "n d_in"]
    labels: Int[Array, "n"]

    def at(self, rows: Int[Array, "k"]) -> "Classification":
        """Take these samples."""
        return Classification(self.X[rows], self.labels[rows])


class Adaptation(NamedTuple):
    """Holds a pre-trained model and the task to adapt it to; no image is in two of its three parts."""

    base: dict[str, Array]
    forward: Forward
    training: Classification
    validation: Classification
    pretraining: Classification


def cross_entropy(forward: Forward, data: Classification) -> Partial:
    """Make the loss ℓ(w) = −(1/n) Σ_i log softmax(forward(X_i; w))[label_i]."""
    return composite(predictor(forward, data.X), Partial(mean_cross_entropy, data.labels))


def accuracy(forward: Forward, data: Classification, weights: Weights) -> Float[Array, ""]:
    """Return the share of samples whose largest output is at their label."""
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
    """Pre-train the MLP 64 → `hidden` → 10 with Adam on upright images, to be adapted to rotated ones.

    The 1797 images are shuffled by `key`; the first `pretraining` stay upright, the next `samples` are rotated by
    `angle` degrees to train on, the rest are rotated to validate on. Pixels lie in [0, 1].
    """
    shuffle, weights = jax.random.split(key)
    parts = _parts(shuffle, angle, samples, pretraining)
    base, forward = base_and_forward(MLP([PIXELS, *hidden, CLASSES], rngs=nnx.Rngs(weights)))
    base = _pretrained(cross_entropy(forward, parts["pretraining"]), base, learning_rate, steps)
    return Adaptation(base, forward, **parts)


def rotated_digit_rows(
    key: Key[Array, ""],
    width: int = 16,
    heads: int = 2,
    blocks: int = 2,
    angle: float = 45.0,
    samples: int = 300,
    pretraining: int = 900,
    steps: int = 600,
    learning_rate: float = 3e-3,
) -> Adaptation:
    """Pre-train a transformer that reads an image as eight tokens, its rows; the layers of its blocks are adapted.

    The images are divided as by `rotated_digits`. Pre-training is of all parameters, with Adam on batches of 100
    upright images. Embedding, positions, norms, biases and class head then stay frozen.
    """
    shuffle, weights = jax.random.split(key)
    parts = _parts(shuffle, angle, samples, pretraining)
    model = TransformerClassifier(
        PIXELS, CLASSES, tokens=SIDE, width=width, heads=heads, blocks=blocks, rngs=nnx.Rngs(weights)
    )
    trained = pretrained(model, Partial(_batch_cross_entropy, parts["pretraining"]), learning_rate, steps)
    return Adaptation(*base_and_forward(trained, "blocks.*"), **parts)


def _parts(key: Key[Array, ""], angle: float, samples: int, pretraining: int) -> dict[str, Classification]:
    """Upright images to pre-train on, rotated ones to train and to validate on: shuffled, then cut in three."""
    images, labels = upright_digits()
    if not 1 <= samples <= len(images) - pretraining - 1 or pretraining < 1:
        raise InputError(f"samples: {samples} and {pretraining} for pre-training leave none of {len(images)} images")
    order = np.asarray(jax.random.permutation(key, len(images)))
    upright, rotated = images[order], _rotated(images[order], angle)
    ends = (0, pretraining, pretraining + samples, len(images))
    names = {"pretraining": upright, "training": rotated, "validation": rotated}
    return {
        name: Classification(jnp.asarray(source[start:end]), jnp.asarray(labels[order][start:end]))
        for (name, source), start, end in zip(names.items(), ends[:-1], ends[1:], strict=True)
    }


def upright_digits() -> tuple[np.ndarray, np.ndarray]:
    """Return scikit-learn's 1797 images, pixels in [0, 1], one a row, and the digit that each shows."""
    from sklearn.datasets import load_digits  # half a second that other users of the package need not pay

    data: Any = load_digits()
    return data.data / 16.0, data.target


def _rotated(images: np.ndarray, angle: float) -> np.ndarray:
    """Each 8×8 image turned about its centre, linear interpolation, black beyond the edge."""
    square = images.reshape(-1, SIDE, SIDE)
    return scipy.ndimage.rotate(square, angle, axes=(2, 1), reshape=False, order=1).reshape(images.shape)


@partial(jax.jit, static_argnames="steps")
def _pretrained(loss: Partial, base: Weights, learning_rate: float | Array, steps: int) -> dict[str, Array]:
    return train(loss, base, None, 1.0, optax.adam(learning_rate), steps).trained


def _batch_cross_entropy(data: Classification, model: TransformerClassifier, t: Int[Array, ""]) -> Float[Array, ""]:
    """The loss on the t-th hundred of images, over and over."""
    batch = data.at((t * BATCH + jnp.arange(BATCH)) % len(data.X))
    return mean_cross_entropy(batch.labels, model(batch.X))
