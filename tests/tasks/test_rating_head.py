"""A head on mean-pooled embeddings, against normal equations, sums over texts and a loss written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from problems import EPS

import signal_drift as sd
from signal_drift.losses.composite import outputs_and_criterion
from signal_drift.models.bert import Bert, BertConfig
from signal_drift.tasks.rating_head import PENALTIES, Examples, Head, batch_error, embeddings, rating_error, ridge_head

DRAWS = np.random.default_rng(0)
TEXTS = Examples(
    jnp.asarray(DRAWS.integers(1, 20, (50, 5))),
    jnp.asarray(np.arange(5) < DRAWS.integers(1, 6, (50, 1))),
    jnp.asarray(DRAWS.standard_normal(50)),
)
HEAD = Head(jnp.asarray(DRAWS.standard_normal(8)), jnp.asarray(0.3))


@pytest.fixture(scope="module")
def encoder():
    model = Bert(BertConfig(20, 8, 1, 2, 12, 5), rngs=nnx.Rngs(0), dtype=jnp.float64)
    return pooled(model), *sd.base_and_forward(model)


def pooled(model):
    """The mean over the tokens that count, a text at a time."""
    means, hidden = [], nnx.jit(lambda model, ids, mask: model(ids, mask))
    for ids, mask in zip(TEXTS.ids, TEXTS.mask, strict=True):
        states = hidden(model, ids[None], mask[None])[0]
        means.append(np.mean(np.asarray(states)[np.asarray(mask)], axis=0))
    return np.array(means)


def test_embeddings_are_means_over_the_tokens_that_count(encoder):
    """More texts than fit one chunk. Without the mask they differ."""
    means, base, forward = encoder
    found = np.asarray(embeddings(forward, base, TEXTS))
    assert np.allclose(found, means, rtol=0, atol=1e3 * EPS)
    unmasked = TEXTS._replace(mask=jnp.ones_like(TEXTS.mask))
    assert not np.allclose(found, embeddings(forward, base, unmasked), rtol=0, atol=1e-3)


def test_ridge_head_solves_the_normal_equations_of_the_best_penalty():
    """(FᵀF + cI)h = Fᵀy of centred F and y; no other penalty of the list errs less on texts left out one at a time."""
    rng = np.random.default_rng(1)
    F = rng.standard_normal((30, 4)) + 2
    y = F @ np.array([1.0, -2.0, 0.5, 0.0]) + 3 + rng.standard_normal(30)
    head = ridge_head(jnp.asarray(F), jnp.asarray(y))

    def fit(F, y, c):
        centred = F - F.mean(0)
        h = np.linalg.solve(centred.T @ centred + c * np.eye(4), centred.T @ (y - y.mean()))
        return h, y.mean() - F.mean(0) @ h

    def left_out(c):
        rest = []
        for i in range(len(y)):
            h, b = fit(np.delete(F, i, 0), np.delete(y, i), c)
            rest.append((F[i] @ h + b - y[i]) ** 2)
        return np.mean(rest)

    best = min(PENALTIES, key=left_out)
    h, b = fit(F, y, best)
    assert np.allclose(head.weight, h, rtol=1e-9)
    assert float(head.bias) == pytest.approx(b, rel=1e-9)
    assert not np.allclose(head.weight, fit(F, y, 100 * best)[0], rtol=1e-2)


def test_loss_is_the_mean_squared_error_of_the_ratings(encoder):
    means, base, forward = encoder
    rest = means @ np.asarray(HEAD.weight) + 0.3 - np.asarray(TEXTS.ratings)
    loss = rating_error(forward, HEAD, TEXTS)
    assert float(jax.jit(loss)(base)) == pytest.approx(np.mean(rest**2), rel=1e3 * EPS)
    outputs, _ = outputs_and_criterion(loss) or pytest.fail("not composite: it has no Gauss–Newton matrix")
    assert np.allclose(jax.jit(outputs)(base), rest + np.asarray(TEXTS.ratings), rtol=0, atol=1e3 * EPS)


def test_loss_on_a_batch_is_that_of_its_texts(encoder):
    _, base, forward = encoder
    rows = np.array([[3, 1], [4, 4]])
    batches = TEXTS.at(rows)
    alone = jax.jit(lambda texts: rating_error(forward, HEAD, texts)(base))
    in_a_batch = jax.jit(batch_error(forward, HEAD))
    assert batches.ids.shape == (2, 2, 5)
    for k, pair in enumerate(rows):
        batch = jax.tree.map(lambda x, k=k: x[k], batches)
        wanted = float(alone(Examples(*(x[pair] for x in TEXTS))))
        assert float(in_a_batch(base, batch)) == pytest.approx(wanted, rel=1e3 * EPS)
