"""Optimizers whose update asks for more than a gradient, against the loop that optax's own pages write.

Losses of a few steps of descent agree to the rounding of their gradients, as in `test_training`: c·n·ε of the largest,
n of 9 entries, and 10³ for the steps between.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib
from problems import EPS, rejects

import signal_drift as sd

STEPS = 4
BASE = {"w": jnp.eye(3)}
START = sd.init_adapters(jax.random.key(0), BASE, 1)
FACTORS = jnp.linspace(1.0, 2.0, STEPS)


def loss(weights: Any, factor: Any) -> jax.Array:
    return factor * jnp.sum((weights["w"] - 2) ** 2)


def loss_of_factors(factor: Any, theta: Any) -> jax.Array:
    return factor * jnp.sum((jnp.eye(3) + theta["w"].B @ theta["w"].A - 2) ** 2)


ASKING: dict[str, tuple[Any, tuple[str, ...]]] = {
    "lbfgs": (optax.lbfgs(), ("value", "grad", "value_fn")),
    "backtracking": (
        optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(5)),
        ("value", "grad", "value_fn"),
    ),
    "polyak": (optax.polyak_sgd(), ("value",)),
    "plateau in a chain": (optax.chain(optax.adam(0.1), contrib.reduce_on_plateau(patience=1)), ("value",)),
    "momo": (contrib.momo(0.1), ("value",)),
    "MultiSteps": (optax.MultiSteps(optax.sgd(0.1), 2), ()),
    "MultiSteps of polyak": (optax.MultiSteps(optax.polyak_sgd(), 2), ("value",)),
    "plateau for B alone": (
        sd.separate_rates(optax.sgd(0.1), optax.chain(optax.sgd(0.1), contrib.reduce_on_plateau())),
        ("value",),
    ),
}


def losses_of_the_loop(optimizer: Any, asks: tuple[str, ...]) -> list[float]:
    theta, losses = START, []
    state = optimizer.init(theta)
    for factor in FACTORS:
        here = partial(loss_of_factors, factor)
        value, grad = jax.value_and_grad(here)(theta)
        extra = {"value": value, "grad": grad, "value_fn": here}
        updates, state = optimizer.update(grad, state, theta, **{name: extra[name] for name in asks})
        theta = optax.apply_updates(theta, updates)
        losses.append(float(value))
    return losses


@pytest.mark.parametrize(("optimizer", "asks"), ASKING.values(), ids=ASKING)
def test_losses_are_those_of_optaxs_loop(optimizer, asks):
    """Each step on a batch of its own, which is what a line search has to see."""
    expected = losses_of_the_loop(optimizer, asks)
    found = sd.train(loss, BASE, START, 1.0, optimizer, STEPS, FACTORS).loss[:STEPS]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e3 * 9 * EPS * max(expected))
    assert len(set(expected)) > 1


def test_a_line_search_moves_the_weights_themselves():
    """Backtracking on ½‖w − 2‖² from η = 1 stops at once, at the minimum."""
    optimizer = ASKING["backtracking"][0]
    run = sd.train(lambda w: jnp.sum((w["w"] - 2) ** 2) / 2, BASE, None, 1.0, optimizer, 2)
    assert run.loss[0] == 0.5 * (3 * 1 + 6 * 4)
    assert run.loss[1] == 0


LOOKAHEAD = {
    "alone": optax.lookahead(optax.sgd(0.1), 2, 0.5),
    "in a chain": optax.chain(optax.clip_by_global_norm(3.0), optax.lookahead(optax.adam(0.1), 3, 0.5)),
}


@pytest.mark.parametrize("optimizer", LOOKAHEAD.values(), ids=LOOKAHEAD)
def test_lookahead_moves_fast_and_slow_weights(optimizer, caplog):
    pair: Any = optax.LookaheadParams.init_synced(START)
    losses: list[float] = []
    state: Any = optimizer.init(pair)
    for factor in FACTORS:
        value, grad = jax.value_and_grad(partial(loss_of_factors, factor))(pair.fast)
        updates, state = optimizer.update(grad, state, pair)
        pair = optax.LookaheadParams(*jax.tree.map(jnp.add, tuple(pair), tuple(updates)))
        losses.append(float(value))
    run = sd.train(loss, BASE, START, 1.0, optimizer, STEPS, FACTORS, record=lambda step: step.loss)
    np.testing.assert_allclose(run.loss[:STEPS], losses, rtol=0, atol=1e3 * 9 * EPS * max(losses))
    ended: Any = run.state
    slow, bound = ended[1], 1e3 * 9 * EPS * 10
    for found, wanted in ((run.trained, pair.fast), (slow, pair.slow)):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=bound), found, wanted)
    assert not caplog.records, "optax warns of a lookahead that is given fast weights alone"


@pytest.mark.parametrize("optimizer", [1e-3, None, "adam", optax.sgd, (optax.sgd(0.1),)])
def test_what_is_no_optimizer_of_optax_is_named(optimizer):
    with rejects("optimizer", "optax.adam"):
        sd.train(loss, BASE, START, 1.0, optimizer, STEPS, FACTORS)
