"""Rewards completions."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from signal_drift.errors import InputError
from signal_drift.errors.arguments import function
from signal_drift.errors.words import shown
from signal_drift.tasks.answers.chats import Chats
from signal_drift.tasks.policy.advantages import check_rewards

Scorer = Callable[[Chats, Chats], Any]
"""(completions, solutions), row by row, ↦ a reward for each."""


def exact_match(said: Chats, solutions: Chats) -> Float[Array, "n"]:
    """Reward by 1 a completion that is the solution, token for token to its end, and by 0 any other."""
    same = (said.tokens == solutions.tokens) & (said.answered == solutions.answered)
    return jnp.all(same, axis=1).astype(jnp.float32)


def rewarded(scorer: Scorer, said: Chats, questions: Chats) -> Float[Array, "questions G"]:
    """Score G completions of every question, whose rows are those of `rolled_out`.

    Raises `InputError` for a scorer that raises or that does not return one finite number a completion; what a reward
    is cannot be seen in a trace of JAX, where NaN goes on to the loss.
    """
    function("scorer", scorer)
    n, group = len(questions.tokens), len(said.tokens) // len(questions.tokens)
    solutions = Chats(*(jnp.repeat(x, group, axis=0) for x in questions))
    try:
        rewards = scorer(said, solutions)
    except Exception as error:  # whatever a function of the user's raises
        raise InputError(f"scorer: raised {type(error).__name__}: {error}") from error
    if np.shape(rewards) != (n * group,):
        raise InputError(f"scorer: must return a reward for each of {n * group} completions, got {shown(rewards)}")
    rewards = jnp.asarray(rewards)
    rewards = rewards.astype(jnp.promote_types(rewards.dtype, jnp.float32)).reshape(n, group)
    check_rewards(rewards)
    return rewards
