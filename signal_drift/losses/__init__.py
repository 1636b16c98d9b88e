"""Open this to write a loss: any scalar function of the dict of weights will do, and these make special ones.

>>> import jax.numpy as jnp
>>> X, Y = jnp.arange(8.0).reshape(4, 2), jnp.zeros((4, 2))
>>> loss = composite(lambda weights: X @ weights["layer"].T, lambda y: jnp.mean((y - Y) ** 2))
>>> weights = {"layer": jnp.eye(2)}
>>> float(loss(weights))
17.5
>>> outputs, criterion = outputs_and_criterion(loss)
>>> outputs(weights).shape
(4, 2)
>>> streamed = mean_over_batches(lambda weights, x: jnp.mean((x @ weights["layer"].T) ** 2), [X[:2], X[2:]])
>>> float(streamed(weights))
17.5
"""

from signal_drift.losses.arguments import Loss
from signal_drift.losses.batches import Batches, BatchLoss, mean_over_batches
from signal_drift.losses.composite import composite, outputs_and_criterion

__all__ = ["BatchLoss", "Batches", "Loss", "composite", "mean_over_batches", "outputs_and_criterion"]
