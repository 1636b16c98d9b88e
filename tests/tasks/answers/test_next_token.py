"""The loss of answers' tokens, against sums over tokens written out, for a model that sees one token back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from flax import nnx
from problems import EPS

import signal_drift as sd
from signal_drift.losses.composite import outputs_and_criterion
from signal_drift.tasks.answers.chats import Chats
from signal_drift.tasks.answers.next_token import batch_next_token_loss, next_token_loss

VOCABULARY, LENGTH = 7, 6
ENDS = np.array([[2, 5], [1, 3], [4, 6], [3, 4]])
"""Where the answer of each chat begins and where it ends."""
DRAWS = np.random.default_rng(0)
CHATS = Chats(
    jnp.asarray(DRAWS.integers(1, VOCABULARY, (4, LENGTH)) * (np.arange(LENGTH) < ENDS[:, 1:])),
    jnp.asarray((np.arange(LENGTH) >= ENDS[:, :1]) & (np.arange(LENGTH) < ENDS[:, 1:])),
)


class Pairs(nnx.Module):
    """Logits at t of the tokens at t − 1 and t, by a hidden layer: a causal model with two layers."""

    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.words = nnx.Embed(VOCABULARY, 3, param_dtype=jnp.float64, rngs=rngs)
        self.hidden = nnx.Linear(3, 4, param_dtype=jnp.float64, rngs=rngs)
        self.head = nnx.Linear(4, VOCABULARY, param_dtype=jnp.float64, rngs=rngs)

    def __call__(self, tokens):
        x = self.words(tokens)
        return self.head(jnp.tanh(self.hidden(x + jnp.pad(x, ((0, 0), (1, 0), (0, 0)))[:, :-1])))


BASE, FORWARD = sd.base_and_forward(Pairs())


def written_out(chats, weights, ahead=1):
    """Σ over chats and answers' tokens in NumPy; `ahead` is how many tokens ahead logits are of."""
    logits, total, count = np.asarray(FORWARD(weights, chats.tokens)), 0.0, 0
    for i, row in enumerate(np.asarray(chats.tokens)):
        for t in np.flatnonzero(chats.answered[i]):
            total -= scipy.special.log_softmax(logits[i, t - ahead])[row[t]]
            count += 1
    return total / count


def test_loss_is_the_mean_over_the_answers_tokens():
    """Controls: the mean over all tokens, and logits that know the token they are of, differ."""
    found, wanted = float(jax.jit(next_token_loss(FORWARD, CHATS))(BASE)), written_out(CHATS, BASE)
    assert found == pytest.approx(wanted, rel=100 * EPS)
    everywhere = CHATS._replace(answered=jnp.arange(LENGTH) >= jnp.ones((4, 1)))
    assert found != pytest.approx(written_out(everywhere, BASE), rel=1e-3)
    assert found != pytest.approx(written_out(CHATS, BASE, ahead=0), rel=1e-3)


def test_what_comes_after_the_end_does_not_count():
    """But the question does, which the answer is given after."""
    loss = jax.jit(lambda tokens: next_token_loss(FORWARD, CHATS._replace(tokens=tokens))(BASE))
    after = np.arange(LENGTH) >= ENDS[:, 1:]
    before = np.arange(LENGTH) == ENDS[:, :1] - 1
    assert float(loss(jnp.where(after, 5, CHATS.tokens))) == float(loss(CHATS.tokens))
    assert float(loss(jnp.where(before, 5, CHATS.tokens))) != float(loss(CHATS.tokens))


def test_loss_on_a_batch_is_that_of_its_chats():
    in_a_batch = jax.jit(batch_next_token_loss(FORWARD))
    batches = CHATS.at(np.array([[3, 1], [2, 2]]))
    for k in range(2):
        batch = jax.tree.map(lambda x, k=k: x[k], batches)
        assert float(in_a_batch(BASE, batch)) == pytest.approx(written_out(batch, BASE), rel=100 * EPS)


def test_loss_is_composite_and_can_be_decomposed():
    """Its outputs are the logits of every token but the first."""
    loss = next_token_loss(FORWARD, CHATS)
    outputs, _ = outputs_and_criterion(loss) or pytest.fail("not composite: it has no Gauss–Newton matrix")
    assert np.array_equal(outputs(BASE), FORWARD(BASE, CHATS.tokens)[:, :-1])
    parts = sd.decompose(loss, BASE, sd.init_adapters(jax.random.key(0), BASE, 1), 2.0)
    assert parts.lora.shape == (18, 18)
