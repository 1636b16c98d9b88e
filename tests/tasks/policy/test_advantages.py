"""Advantages within a group against NumPy, and what has none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import EPS, rejects

from signal_drift.tasks.policy import group_advantages, unequal_groups
from signal_drift.tasks.policy.advantages import FLOOR

REWARDS = np.array([[0.0, 1.0, 0.0, 0.25], [2.0, -1.0, 0.5, 0.5]])


def by_numpy(rewards: np.ndarray, ddof: int = 0, sign: float = 1) -> np.ndarray:
    return np.array([(r - sign * np.mean(r)) / (np.std(r, ddof=ddof) + FLOOR) for r in rewards])


def test_advantages_are_those_of_the_formula():
    """The controls: the sample's own deviation, G − 1, and the mean added."""
    found = np.asarray(group_advantages(jnp.asarray(REWARDS)))
    assert np.max(np.abs(found - by_numpy(REWARDS))) < 100 * EPS
    for wrong in (by_numpy(REWARDS, ddof=1), by_numpy(REWARDS, sign=-1)):
        assert np.max(np.abs(found - wrong)) > 1e-2


def test_equal_rewards_have_none_at_all():
    """Exactly: the mean of three times 0.3 is not 0.3, and what is left over ε would be a gradient."""
    rewards = jnp.array([[0.3, 0.3, 0.3], [0.0, 1.0, 0.0]])
    assert float(jnp.mean(rewards[0])) != 0.3
    found = group_advantages(rewards)
    assert found[0].tolist() == [0, 0, 0]
    assert float(jnp.min(jnp.abs(found[1]))) > 0
    assert float(unequal_groups(rewards)) == 0.5


def test_nan_in_a_trace_stays_in_its_group():
    found = np.asarray(jax.jit(group_advantages)(jnp.asarray(REWARDS).at[0, 1].set(jnp.nan)))
    assert np.isnan(found[0]).all()
    assert np.max(np.abs(found[1] - by_numpy(REWARDS)[1])) < 100 * EPS


@pytest.mark.parametrize("function", [group_advantages, unequal_groups])
def test_rewards_that_make_no_group_are_named(function):
    with rejects("rewards: a group needs at least two completions", "(3, 1)"):
        function(jnp.ones((3, 1)))
    with rejects("rewards: must be finite", "nan", "1 of 4"):
        function(jnp.array([[0.0, jnp.nan], [1.0, 1.0]]))
