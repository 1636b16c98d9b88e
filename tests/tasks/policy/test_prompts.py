"""Prompts that are read once: what is said after them is as likely as where every row reads its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from problems import EPS, rejects

import signal_drift as sd
from signal_drift.models import Llama, LlamaConfig
from signal_drift.models.llama import continued
from signal_drift.tasks.answers.chats import Chats
from signal_drift.tasks.policy import Asked, Rules, after_prompts, experience_of, on_policy_loss, rolled_out

CONFIG = LlamaConfig(7, 8, 8, 2, num_attention_heads=2, num_key_value_heads=1, head_dim=4, max_position_embeddings=9)
G, END, KEY = 3, 6, jax.random.key(1)
PROMPTS = jnp.array([[1, 5, 2, 0], [3, 3, 1, 4]])
TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, 6, (6, 4)))
ROUNDINGS = 1e4 * EPS
"""A few hundred in each of 8 tokens and two layers, of numbers of order one."""


@pytest.fixture(scope="module")
def decoder():
    base, forward = sd.base_and_forward(Llama(CONFIG, rngs=nnx.Rngs(1), dtype=jnp.float64), "layers.*")
    return {k: 2 * W for k, W in base.items()}, forward


def whole(prompts: jax.Array) -> jax.Array:
    """Every row with its own prompt in front."""
    return jnp.concatenate([jnp.repeat(prompts, G, axis=0), TOKENS], axis=1)


def test_logits_and_gradient_are_those_of_whole_rows(decoder):
    """The controls: the prompts exchanged, and the derivative without its part through the prompts."""
    base, forward = decoder
    reads = after_prompts(forward, CONFIG, PROMPTS, G)
    weighing = jnp.asarray(np.random.default_rng(1).standard_normal((6, 4, 7)))

    def once(weights: dict[str, jax.Array], read: dict[str, jax.Array]) -> jax.Array:
        return jnp.sum(weighing * reads.at(read)(weights, TOKENS))

    def by_rows(weights: dict[str, jax.Array]) -> jax.Array:
        return jnp.sum(weighing * forward(weights, whole(PROMPTS))[:, 4:])

    run = jax.jit(forward)
    found, exact = jax.jit(reads)(base, TOKENS), run(base, whole(PROMPTS))[:, 4:]
    assert float(jnp.max(jnp.abs(found - exact))) < ROUNDINGS
    assert float(jnp.max(jnp.abs(found - run(base, whole(PROMPTS[::-1]))[:, 4:]))) > 1e-2
    partial, through = jax.jit(jax.grad(once, argnums=(0, 1)))(base, base)
    g, oracle = {k: partial[k] + through[k] for k in base}, jax.jit(jax.grad(by_rows))(base)
    assert max(float(jnp.max(jnp.abs(g[k] - oracle[k]))) for k in base) < 10 * ROUNDINGS
    assert max(float(jnp.max(jnp.abs(partial[k] - oracle[k]))) for k in base) > 1e-2


def test_what_is_said_after_them_is_the_same(decoder):
    """Greedily, which needs no draw; what is drawn has its own key at every place."""
    base, forward = decoder
    following = after_prompts(forward, CONFIG, PROMPTS, G).at(base)
    first, one, five = TOKENS[:, :1], jnp.ones(6, int), jnp.full(6, 5)
    tokens, own = continued(following, CONFIG, base, first, one, 5, END)
    exact, exact_own = continued(forward, CONFIG, base, whole(PROMPTS)[:, :5], five, 9, END)
    np.testing.assert_array_equal(tokens, exact[:, 4:])
    np.testing.assert_array_equal(own, exact_own[:, 4:])
    other, _ = continued(forward, CONFIG, base, whole(PROMPTS[::-1])[:, :5], five, 9, END)
    assert np.any(np.asarray(tokens) != np.asarray(other[:, 4:]))


def likes(said: Chats, solutions: Chats) -> jax.Array:
    return jnp.sum(said.tokens * said.answered, axis=1) / 10.0


def test_experience_and_loss_are_those_of_whole_rows(decoder):
    base, forward = decoder
    questions = Chats(jnp.array([[2, 0, 0, 0], [4, 0, 0, 0]]), jnp.array([[False, True, True, True]] * 2))
    rules, batch = Rules(CONFIG, likes, G, END), Asked(questions, KEY, PROMPTS)
    kept = jax.jit(experience_of, static_argnums=1)(forward, rules, base, batch)
    assert float(jnp.std(kept.rewards)) > 0
    rows = jnp.concatenate([jnp.repeat(PROMPTS, G, axis=0), kept.tokens], axis=1)

    def weighted(weights: dict[str, jax.Array]) -> jax.Array:
        log = jax.nn.log_softmax(forward(weights, rows))[:, 4:-1]
        each = jnp.sum(log * jax.nn.one_hot(kept.tokens[:, 1:], 7), axis=-1)
        return -jnp.sum(each * kept.advantages[:, None] * kept.own[:, 1:]) / jnp.sum(kept.own)

    gradient, oracle = jax.jit(jax.grad(on_policy_loss(forward, rules))), jax.jit(jax.grad(weighted))(base)
    found, exchanged = gradient(base, batch), gradient(base, batch._replace(prompts=PROMPTS[::-1]))
    assert max(float(jnp.max(jnp.abs(found[k] - oracle[k]))) for k in base) < 10 * ROUNDINGS
    assert max(float(jnp.max(jnp.abs(exchanged[k] - oracle[k]))) for k in base) > 1e-3


def test_what_leaves_no_room_is_named(decoder):
    base, forward = decoder
    with rejects("prompts: must have at least one token", "(2, 0)"):
        after_prompts(forward, CONFIG, PROMPTS[:, :0], G)
    with rejects("group: must be a whole number of at least 1", "0"):
        after_prompts(forward, CONFIG, PROMPTS, 0)
    with rejects("tokens: 10 a sequence, more than max_position_embeddings = 9"):
        after_prompts(forward, CONFIG, jnp.tile(PROMPTS, 2)[:, :6], G)(base, TOKENS)
    chats = Chats(TOKENS[::3], jnp.arange(4)[None] > jnp.zeros((2, 1)))
    with rejects("tokens: 10 a sequence, more than max_position_embeddings = 9"):
        rolled_out(
            after_prompts(forward, CONFIG, jnp.tile(PROMPTS, 2)[:, :6], G).at(base), CONFIG, base, chats, G, END, KEY
        )
