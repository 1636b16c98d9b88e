"""Takes the clipped surrogate of GRPO as a loss of the weights, at completions that are given (arXiv 2402.03300).

Its Hessian splits into signal and drift like any other's: `sd.decompose(surrogate_loss(…), base, adapters, s)`.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int

from signal_drift.errors import InputError
from signal_drift.errors.arguments import is_real, positive
from signal_drift.errors.words import shown
from signal_drift.lora.adapters import Weights
from signal_drift.losses.composite import composite
from signal_drift.models.bridge import Forward, predictor
from signal_drift.tasks.answers.chats import Chats
from signal_drift.tasks.policy.advantages import group_advantages
from signal_drift.tasks.policy.rollouts import log_probabilities

CLIP = 0.2
"""ε: outside of [1 − ε, 1 + ε] a ratio that has gone the way of its advantage has no gradient."""


class Experience(NamedTuple):
    """Holds completions, reward and advantage of each, and the log probabilities of their tokens when they were drawn.

    `start` are those under the model that training started from, None where its distance is of no concern.
    """

    tokens: Int[Array, "n t"]
    own: Bool[Array, "n t"]
    rewards: Float[Array, "n"]
    advantages: Float[Array, "n"]
    drawn: Float[Array, "n u"]
    start: Float[Array, "n u"] | None = None


def experienced(
    forward: Forward,
    weights: Weights,
    said: Chats,
    rewards: Float[Array, "questions G"],
    start: Weights | None = None,
) -> Experience:
    """Put completions together with how likely they are under the `weights` that drew them, and those of the `start`.

    Raises `InputError` where there is not one reward a completion, and as `group_advantages` does.
    """
    if rewards.size != len(said.tokens):
        raise InputError(f"rewards: need one for each of {len(said.tokens)} completions, got {rewards.size}")

    def likely(weights: Weights) -> Float[Array, "n u"]:
        return log_probabilities(said.tokens, forward(weights, said.tokens))

    drawn = likely(weights)
    rewards = rewards.astype(drawn.dtype)
    advantages, first = group_advantages(rewards), None if start is None else likely(start)
    return Experience(said.tokens, said.answered, rewards.ravel(), advantages.ravel(), drawn, first)


def surrogate_loss(forward: Forward, experience: Experience, clip: float = CLIP, beta: float = 0.0) -> Partial:
    """Make the loss ℓ(w) = −mean R − mean [min(ρA, clip(ρ, 1 − ε, 1 + ε)A) − A] + β·mean k₃.

    The first mean is over completions, the others are over the tokens of all of them. ρ = π_w(token)/π_drawn(token), A
    is the advantage of the token's completion, and k₃ estimates the KL from the start (`kl_estimate`). The constants R
    and A have no gradient: with them the loss is −mean R, the policy's own, at the weights that drew. All tokens
    weigh alike, whichever completion they are of; GRPO's own mean over completions of means over tokens is the same
    where all are of one length. Raises `InputError` for a clip outside (0, 1), for a negative β, and for a β without
    the probabilities of the start.
    """
    check_beta(beta)
    if beta and experience.start is None:
        raise InputError(f"beta: needs the weights of the start in `experienced`, got {beta}")
    if not positive("clip", clip) < 1:
        raise InputError(f"clip: must be below 1, got {clip}")
    return composite(predictor(forward, experience.tokens), Partial(_Surrogate(float(clip), float(beta)), experience))


def check_beta(beta: float) -> None:
    """Raise `InputError` for a β that is negative or not finite."""
    if not is_real(beta) or not 0 <= beta < jnp.inf:
        raise InputError(f"beta: must be a finite number of at least 0, got {shown(beta)}")


@dataclass(frozen=True)
class _Surrogate:
    """Holds ε and β, with which a program is compiled; where β is 0 the KL is left out."""

    clip: float
    beta: float

    def __call__(self, experience: Experience, logits: Float[Array, "n t vocabulary"]) -> Float[Array, ""]:
        now, own = log_probabilities(experience.tokens, logits), experience.own[:, 1:]
        A = experience.advantages[:, None]
        gain = surrogate(now - experience.drawn, A, self.clip) - A
        loss = -jnp.mean(experience.rewards) - jnp.mean(gain, where=own)
        if not self.beta or experience.start is None:
            return loss
        return loss + self.beta * jnp.mean(kl_estimate(now, experience.start), where=own)


def surrogate(log_ratio: Float[Array, "*n"], advantage: Float[Array, "*#n"], clip: float = CLIP) -> Float[Array, "*n"]:
    """Return min(ρA, clip(ρ, 1 − ε, 1 + ε)A) of every token, with log ρ given.

    Its derivative in ρ is A, but 0 where A > 0 and ρ > 1 + ε, and where A < 0 and ρ < 1 − ε.
    """
    ratio = jnp.exp(log_ratio)
    return jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - clip, 1 + clip) * advantage)


def kl_estimate(now: Float[Array, "*n"], start: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Estimate KL(π_w ‖ π_start) at tokens drawn from π_w, log π of both given: k₃ = q/p − 1 − log(q/p) ≥ 0.

    p = π_w and q = π_start of the token. The mean over tokens of π_w is the KL, since that of q/p is 1. With the tokens
    held fixed, as in training, its gradient has the mean −Σ q ∇log p, that of the other one, KL(π_start ‖ π_w).
    """
    off = start - now
    return jnp.expm1(off) - off
