"""Pose a problem of one's own: a model, a criterion and data, held against the claims by

python -m experiments verify docs/examples/my_problem.py:problem
"""

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.problems.own import own_problem


class Classifier(nnx.Module):
    """Two linear layers, 8 → 16 → 3."""

    def __init__(self, rngs: nnx.Rngs):
        self.hidden = nnx.Linear(8, 16, rngs=rngs)
        self.out = nnx.Linear(16, 3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.out(nnx.silu(self.hidden(x)))


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the mean over the samples of a batch."""
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1))


def accuracy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the share of labels that are right."""
    return jnp.mean(jnp.argmax(logits, axis=1) == labels)


x = jax.random.normal(jax.random.key(0), (80, 8))
labels = jnp.argmax(x[:, :3] + 0.5 * x[:, 3:6], axis=1)  # something that can be learned
batches = [(x[:30], labels[:30]), (x[30:60], labels[30:60])]

problem = own_problem(
    "my-classifier",
    Classifier(nnx.Rngs(1)),
    cross_entropy,
    batches,
    rank=2,
    held_out=(x[60:], labels[60:]),
    score=accuracy,
)
