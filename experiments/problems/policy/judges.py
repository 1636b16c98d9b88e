"""Judge a policy by the probability that it answers right, which takes no draw, and set what a step asks it."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from experiments.lab.errors import OptionError
from signal_drift.lora.adapters import Weights
from signal_drift.models.bridge import Forward
from signal_drift.tasks.answers.chats import Chats
from signal_drift.tasks.policy import (
    Asked,
    Experience,
    Rules,
    completion_probabilities,
    exact_match,
    experience_of,
    kl_estimate,
    unequal_groups,
)


def check_rules(group: int, beta: float) -> None:
    """Raise `OptionError` for a group without another to compare with, and for a weight of the KL that is none."""
    if group < 2:
        raise OptionError(f"group: must be at least 2, got {group}")
    if not 0 <= beta < float("inf"):
        raise OptionError(f"beta: must be at least 0, got {beta}")


def cost(said: Chats, solutions: Chats) -> Array:
    """Reward a right completion by 0 and a wrong one by −1, so that −mean R is the rate of failure.

    Advantages are those of 1 and 0.
    """
    return exact_match(said, solutions) - 1


def asked(trained: Chats, seed: int, steps: int, count: int) -> Asked:
    """Draw the questions of every step; those of the first do not depend on how many there are."""
    key = jax.random.fold_in(jax.random.key(seed), 3)
    keys = jax.vmap(lambda t: jax.random.split(jax.random.fold_in(key, t)))(jnp.arange(steps))
    draw = jax.vmap(lambda key: jax.random.randint(key, (count,), 0, len(trained.tokens)))
    return Asked(trained.at(draw(keys[:, 0])), keys[:, 1])


def first_experience(forward: Forward, rules: Rules, base: Weights, stream: Asked, seed: int) -> Experience:
    """Answer the first questions of a stream at W₀. Raises `OptionError` where all rewards of every group are equal."""
    found = experience(forward, rules, base, first_of(stream), base)
    if not unequal_groups(found.rewards.reshape(-1, rules.group)):
        raise OptionError(f"group: all rewards at seed {seed} are equal, there is no gradient")
    return found


def first_of(stream: Asked) -> Asked:
    """Take the questions of the first step."""
    return jax.tree.map(lambda x: x[0], stream)


experience = jax.jit(experience_of, static_argnums=1)


def key_of(use: int) -> Array:
    """Make the key of a use that is the same for every seed, none that a seed has."""
    return jax.random.fold_in(jax.random.key(0), 200 + use)


@jax.jit
def solved(forward: Forward, chats: Chats, weights: Weights) -> Array:
    """Return the mean over questions of π(right answer), the expected reward."""
    return jnp.mean(completion_probabilities(forward, chats, weights))


def failed(forward: Forward, chats: Chats, weights: Weights) -> Array:
    """Return the expected rate of failure."""
    return 1 - solved(forward, chats, weights)


@jax.jit
def differ(forward: Forward, chats: Chats, group: Array, weights: Weights) -> Array:
    """Return the probability that the rewards of a group differ, 1 − p^G − (1 − p)^G, the mean over questions."""
    p = completion_probabilities(forward, chats, weights)
    return jnp.mean(1 - p**group - (1 - p) ** group)


@jax.jit
def variance(forward: Forward, chats: Chats, weights: Weights) -> Array:
    """Return the variance of the rewards of one question, p(1 − p), the mean over questions."""
    p = completion_probabilities(forward, chats, weights)
    return jnp.mean(p * (1 - p))


@dataclass(frozen=True)
class Near:
    """−KL(π_w ‖ π_start), the mean over the tokens of completions that π_w itself draws, always by the same key."""

    rules: Rules

    def __call__(self, forward: Forward, asked: Asked, start: Weights, weights: Weights) -> Array:
        """Answer the questions with the weights, and compare with the start."""
        found = experience(forward, self.rules, weights, asked, start)
        assert found.start is not None
        return -jnp.mean(kl_estimate(found.drawn, found.start), where=found.own[:, 1:])
