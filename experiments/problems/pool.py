"""Draw the batches of a run from a pool of texts, in an order that the seed draws and all methods share."""

from typing import Any

import jax
import numpy as np

from experiments.lab.errors import OptionError


def order_of(count: int, seed: int) -> np.ndarray:
    """Return the numbers of `count` texts in the order of a seed."""
    return np.random.default_rng(seed).permutation(count)


def batches_of(texts: Any, seed: int, steps: int, batch: int) -> Any:
    """Divide a pool into batches, no text twice. Raises `OptionError` where there are not enough."""
    count, wanted = len(jax.tree.leaves(texts)[0]), steps * batch
    if wanted > count:
        raise OptionError(f"steps: {steps} batches of {batch} texts are more than the {count} there are")
    return texts.at(order_of(count, seed)[:wanted].reshape(steps, batch))


def sample_of(batches: Any, count: int) -> Any:
    """Return about `count` texts of all batches, evenly over the steps."""
    texts = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batches)
    return jax.tree.map(lambda x: x[:: max(1, len(x) // count)], texts)
