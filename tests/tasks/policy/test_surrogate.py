"""The surrogate of a policy whose every completion, and every group of them, is counted out in NumPy."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bigrams import FORWARD, SAYINGS, SPOKEN, WEIGHTS, WORDS, W, probability, score, steps, table
from problems import EPS, rejects

import signal_drift as sd
from signal_drift.tasks.answers.chats import Chats
from signal_drift.tasks.policy import (
    CLIP,
    Experience,
    completion_probabilities,
    experienced,
    group_advantages,
    kl_estimate,
    surrogate,
    surrogate_loss,
)
from signal_drift.tasks.policy.advantages import FLOOR

G = 3
GROUPS = np.array(list(product(range(len(SAYINGS)), repeat=G)))
"""Every group of three of the four completions: 64."""
OWN = jnp.ones(SAYINGS.shape, bool).at[:, 0].set(False)
SAID = Chats(jnp.asarray(SAYINGS), OWN)
BOUND = 100 * len(GROUPS) * EPS
"""Sums of 64 groups, each a few dozen roundings of numbers of order one."""


@jax.jit
def gradients(advantages: jax.Array) -> jax.Array:
    """∇ of the surrogate of every group, at the weights that drew it."""

    def of_group(rows: jax.Array, advantages: jax.Array) -> jax.Array:
        said = SAID.at(rows)
        experience = experienced(FORWARD, WEIGHTS, said, advantages[None])._replace(advantages=advantages)
        return jax.grad(surrogate_loss(FORWARD, experience))(WEIGHTS)["next"]

    return jax.vmap(of_group)(jnp.asarray(GROUPS), advantages)


def expected(advantages: np.ndarray) -> np.ndarray:
    """E ∇ over all groups, each as likely as its completions; (d_out, d_in)."""
    likely = np.prod([[probability(SAYINGS[i]) for i in group] for group in GROUPS], axis=1)
    assert abs(likely.sum() - 1) < BOUND
    return np.tensordot(likely, np.asarray(gradients(jnp.asarray(advantages))), 1)


def slope(rewards: np.ndarray) -> np.ndarray:
    """∇ E[R], over all completions."""
    return np.sum([probability(x) * r * score(x) for x, r in zip(SAYINGS, rewards, strict=True)], axis=0)


def test_completions_have_the_probabilities_that_are_counted():
    found = np.asarray(completion_probabilities(FORWARD, SAID, WEIGHTS))
    assert np.max(np.abs(found - [probability(x) for x in SAYINGS])) < 100 * EPS
    assert abs(found.sum() - 1) < 100 * EPS


def test_with_a_baseline_alone_it_is_the_gradient_of_the_expected_reward():
    """E ∇ℓ = −(1 − 1/G) ∇E[R]/L, for the mean of a group holds a share 1/G of each reward itself; L tokens.

    The control: the baseline added, 1 + 1/G.
    """
    rewards = np.array([0.3, -1.2, 2.0, 0.7])
    here = rewards[GROUPS]
    mean = here.mean(axis=1, keepdims=True)
    exact = -(1 - 1 / G) * slope(rewards) / SPOKEN
    assert np.max(np.abs(expected(here - mean) - exact)) < BOUND
    assert np.max(np.abs(expected(here + mean) - exact)) > 1e-2


def test_normalised_it_follows_the_expected_reward_at_a_length_that_is_known():
    """For R of 0 or 1 and p = E[R]: E ∇ℓ = −∇p/L · E[v/(√v + ε)]/(p(1 − p)), v = q(1 − q), q = K/G, K ~ Bin(G, p).

    The controls: without the deviation, and with that of G − 1.
    """
    rewards = np.array([0.0, 0.0, 1.0, 0.0])
    p = probability(SAYINGS[2])
    counts = np.array([3 * p * (1 - p) ** 2, 3 * p**2 * (1 - p)])  # of one and of two that are right
    v = 2 / 9  # of either
    exact = -slope(rewards) / SPOKEN * counts.sum() * v / (v**0.5 + FLOOR) / (p * (1 - p))
    here = rewards[GROUPS]
    assert np.max(np.abs(expected(np.asarray(group_advantages(jnp.asarray(here)))) - exact)) < BOUND
    off = here - here.mean(axis=1, keepdims=True)
    for wrong in (off, off / (here.std(axis=1, ddof=1, keepdims=True) + FLOOR)):
        assert np.max(np.abs(expected(wrong) - exact)) > 1e-3


REWARDS, ADVANTAGES = (2.0, -1.0, 0.7), (1.0, -2.0, 0.5)


def experience(start: bool = False) -> Experience:
    """Three completions; what drew them, and the start, are other policies than `WEIGHTS`."""
    said = SAID.at(np.array([0, 2, 3]))
    drawn, first = ({"next": jnp.asarray(W * k)} for k in (1.6, -0.5))
    found = experienced(FORWARD, drawn, said, jnp.array([REWARDS]), first if start else None)
    return found._replace(advantages=jnp.array(ADVANTAGES))


def by_hand(beta: float, reverse: bool = False, clipped: bool = True) -> float:
    """The formula, token by token."""
    total = []
    for saying, A in zip(SAYINGS[[0, 2, 3]], ADVANTAGES, strict=True):
        for now, then in steps(saying):
            p, drawn, q = (table(W * k)[then, now] for k in (1, 1.6, -0.5))
            ratio, other = p / drawn, p / q if reverse else q / p
            inside = min(max(ratio, 1 - CLIP), 1 + CLIP) if clipped else ratio
            total.append(A - min(ratio * A, inside * A) + beta * (other - 1 - np.log(other)))
    return float(np.mean(total) - np.mean(REWARDS))


def test_value_away_from_where_it_was_drawn_is_that_of_the_formula():
    """With and without the KL. The controls: never clipped, and the KL's ratio upside down."""
    found = [float(surrogate_loss(FORWARD, experience(True), beta=beta)(WEIGHTS)) for beta in (0.0, 0.7)]
    assert np.max(np.abs(np.subtract(found, [by_hand(0.0), by_hand(0.7)]))) < 100 * EPS
    assert abs(found[0] - by_hand(0.0, clipped=False)) > 1e-3
    assert abs(found[1] - by_hand(0.7, reverse=True)) > 1e-3


@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_ratios_that_went_their_way_have_no_gradient(advantage):
    """The derivative in ρ is A but where A > 0, ρ > 1 + ε or A < 0, ρ < 1 − ε: there 0.

    The control: clipped on both sides whatever A, as without the minimum.
    """
    ratios = np.array([0.7, 0.79, 0.81, 1.0, 1.19, 1.21, 1.4])
    slopes = jax.vmap(jax.grad(lambda ratio: surrogate(jnp.log(ratio), jnp.asarray(advantage))))(jnp.asarray(ratios))
    gone = ratios > 1 + CLIP if advantage > 0 else ratios < 1 - CLIP
    assert np.asarray(slopes)[gone].tolist() == [0.0, 0.0]
    assert np.max(np.abs(np.asarray(slopes)[~gone] - advantage)) < 100 * EPS
    outside = (ratios > 1 + CLIP) | (ratios < 1 - CLIP)
    assert np.any(np.asarray(slopes)[outside] != 0)


def test_the_estimate_of_the_KL_has_the_right_mean_and_is_never_negative():
    """Σ p k₃ = Σ p log(p/q). The controls: half the square of the log ratio, and p and q exchanged."""
    p, q = np.array([0.5, 0.2, 0.3]), np.array([0.1, 0.3, 0.6])
    estimate = np.asarray(kl_estimate(jnp.log(p), jnp.log(q)))
    exact = float(np.sum(p * np.log(p / q)))
    assert abs(p @ estimate - exact) < 100 * EPS
    assert np.all(estimate > 0)
    for wrong in (np.log(p / q) ** 2 / 2, np.asarray(kl_estimate(jnp.log(q), jnp.log(p)))):
        assert abs(p @ wrong - exact) > 1e-2


def test_curvature_at_the_start_is_that_of_probabilities_and_not_of_their_logarithms():
    """H_ℓ = −mean A[(e − P)(e − P)ᵀ − (diag P − P Pᵀ)] in the logits of each token, hence in the columns of W.

    The control: of −mean A log π, whose gradient is the same, the first term is missing. Both halves of H_LoRA follow.
    """
    said, advantages = SAID.at(np.array([0, 2, 3])), np.array(ADVANTAGES)
    drawn = experienced(FORWARD, WEIGHTS, said, jnp.array([REWARDS]))
    loss = surrogate_loss(FORWARD, drawn._replace(advantages=jnp.asarray(advantages)))
    assert abs(float(loss(WEIGHTS)) + np.mean(REWARDS)) < 100 * EPS
    exact, wrong = (np.zeros((WORDS, WORDS, WORDS, WORDS)) for _ in range(2))  # (row, column, row, column) of W
    for saying, A in zip(SAYINGS[[0, 2, 3]], advantages, strict=True):
        for now, then in steps(saying):
            P = table()[:, now]
            off, spread = np.eye(WORDS)[then] - P, np.diag(P) - np.outer(P, P)
            exact[:, now, :, now] -= A * (np.outer(off, off) - spread) / 6
            wrong[:, now, :, now] += A * spread / 6
    theta = {"next": sd.Adapter(jnp.array([[0.4, -0.2]]), jnp.zeros((WORDS, 1)))}
    parts = sd.decompose(loss, WEIGHTS, theta, 1.5)
    found = np.asarray(parts.task.dense()).reshape(exact.shape)
    assert np.max(np.abs(found - exact)) < 100 * EPS
    assert np.max(np.abs(found - wrong)) > 1e-2
    G_drift = np.asarray(parts.drift.dense())
    assert np.max(np.abs(parts.signal.dense() + G_drift - parts.lora.dense())) < 100 * EPS
    A = advantages[:, None, None]
    gradient = -np.sum(A * np.array([score(x) for x in SAYINGS[[0, 2, 3]]]), axis=0) / 6
    assert np.max(np.abs(G_drift[2:, :2] - 1.5 * gradient)) < 100 * EPS  # the block of (B, A) is sG


def test_what_makes_no_surrogate_is_named():
    ours = experience()
    with rejects("beta: needs the weights of the start", "0.1"):
        surrogate_loss(FORWARD, ours, beta=0.1)
    with rejects("beta: must be a finite number of at least 0", "-1"):
        surrogate_loss(FORWARD, ours, beta=-1.0)
    with rejects("clip: must be positive", "0.0"):
        surrogate_loss(FORWARD, ours, clip=0.0)
    with rejects("clip: must be below 1", "1.5"):
        surrogate_loss(FORWARD, ours, clip=1.5)
    with rejects("rewards: need one for each of 4 completions", "6"):
        experienced(FORWARD, WEIGHTS, SAID, jnp.ones((2, 3)))
