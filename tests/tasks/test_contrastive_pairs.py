"""InfoNCE against a softmax of cosines written out in NumPy, and recall against rows that are sorted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.flatten_util import ravel_pytree
from problems import EPS, rejects

import signal_drift as sd
from signal_drift.losses.composite import outputs_and_criterion
from signal_drift.models.bert import Bert, BertConfig
from signal_drift.tasks.contrastive_pairs import Texts, batch_info_nce, info_nce, recall, similarities

TAU = 0.05
DRAWS = np.random.default_rng(0)
PAIRS = Texts(
    jnp.asarray(DRAWS.integers(1, 20, (4, 2, 5))), jnp.asarray(np.arange(5) < DRAWS.integers(1, 6, (4, 2, 1)))
)


@pytest.fixture(scope="module")
def encoder():
    return sd.base_and_forward(Bert(BertConfig(20, 4, 1, 2, 4, 5), rngs=nnx.Rngs(0), dtype=jnp.float64))


def cosines(encoder, pairs):
    """⟨e_i, e'_j⟩ / |e_i||e'_j|, the means of hidden states over the tokens that count, one text at a time."""
    base, forward = encoder
    hidden = jax.jit(lambda ids, mask: forward(base, ids, mask))

    def means(side):
        texts = zip(pairs.ids[:, side], pairs.mask[:, side], strict=True)
        return [np.asarray(hidden(ids[None], mask[None]))[0][np.asarray(mask)].mean(0) for ids, mask in texts]

    return np.array([[a @ b / np.sqrt((a @ a) * (b @ b)) for b in means(1)] for a in means(0)])


def written_out(S, tau=TAU, kept=None):
    """−(1/n) Σ_i log( e^{S_ii/τ} / Σ_j e^{S_ij/τ} ), with the j that are kept for each i."""
    kept = np.ones_like(S, bool) if kept is None else kept
    return float(np.mean([np.log(np.sum(np.exp(S[i, kept[i]] / tau))) - S[i, i] / tau for i in range(len(S))]))


def rounding(tau=TAU):
    """A logit, of size 1/τ at most, errs by that times the roundings of the encoder and of two norms."""
    return 1e3 * EPS / tau


def test_loss_is_the_formula(encoder):
    """Controls: τ off by one percent, the partner left out of the denominator, and the other direction."""
    base, forward = encoder
    S, found = cosines(encoder, PAIRS), float(jax.jit(info_nce(forward, PAIRS, TAU))(base))
    assert abs(found - written_out(S)) < rounding()
    for near in (written_out(S, 1.01 * TAU), written_out(S, kept=~np.eye(4, dtype=bool)), written_out(S.T)):
        assert abs(found - near) > 1e3 * rounding()


def test_similarities_are_cosines(encoder):
    base, forward = encoder
    found = np.asarray(similarities(forward, base, PAIRS))
    np.testing.assert_allclose(found, cosines(encoder, PAIRS), rtol=0, atol=TAU * rounding())
    assert np.max(np.abs(found - found.T)) > 1e-3, "rows are first texts"


def test_loss_on_a_batch_is_that_of_its_pairs_alone(encoder):
    """Negatives come from the batch: with three pairs in it, a row has two."""
    base, forward = encoder
    in_a_batch = jax.jit(batch_info_nce(forward, TAU))
    batches = Texts(*(x.reshape(8, 5) for x in PAIRS)).at(np.array([[[0, 1], [6, 7]], [[5, 2], [3, 3]]]))
    assert batches.ids.shape == (2, 2, 2, 5)
    for k in range(2):
        batch = jax.tree.map(lambda x, k=k: x[k], batches)
        assert abs(float(in_a_batch(base, batch)) - written_out(cosines(encoder, batch))) < rounding()


def test_gauss_newton_is_that_of_a_softmax(encoder):
    """The second derivative in the outputs is (diag(p) − ppᵀ)/n row by row."""
    base, forward = encoder
    outputs, criterion = outputs_and_criterion(info_nce(forward, PAIRS, TAU)) or pytest.fail("not composite")
    logits = np.asarray(outputs(base))
    np.testing.assert_allclose(logits, cosines(encoder, PAIRS) / TAU, rtol=0, atol=rounding())
    H = np.asarray(jax.hessian(criterion)(jnp.asarray(logits)))
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    for i in range(4):
        for k in range(4):
            expected = (np.diag(p[i]) - np.outer(p[i], p[i])) / 4 if i == k else np.zeros((4, 4))
            np.testing.assert_allclose(H[i, :, k], expected, rtol=0, atol=100 * EPS)


def test_gradient_is_the_difference_of_two_losses(encoder):
    """Along one direction, by central differences at h and 2h, whose difference bounds the error of the finer."""
    base, forward = encoder
    loss = jax.jit(info_nce(forward, PAIRS, TAU))
    along = {k: jnp.asarray(DRAWS.standard_normal(W.shape)) for k, W in base.items()}

    def quotient(h):
        up, down = (float(loss({k: W + x * along[k] for k, W in base.items()})) for x in (h, -h))
        return (up - down) / (2 * h)

    h = 2.0**-17
    fine, coarse = quotient(h), quotient(2 * h)
    slope = sum(float(jnp.vdot(g, along[k])) for k, g in jax.jit(jax.grad(loss))(base).items())
    assert abs(slope - fine) < abs(coarse - fine) + rounding() / h
    assert abs(1.001 * slope - fine) > abs(coarse - fine) + rounding() / h, "the near control"


def test_recall_is_the_share_found_among_the_first_k():
    """Controls: one candidate more, and columns for rows."""
    S, depths = np.random.default_rng(1).standard_normal((50, 50)) + 2 * np.eye(50), np.arange(1, 5)

    def shares(S, depths):
        return np.array([np.mean([i in np.argsort(-row)[:k] for i, row in enumerate(S)]) for k in depths])

    found = np.array([float(recall(jnp.asarray(S), int(k))) for k in depths])
    np.testing.assert_allclose(found, shares(S, depths), rtol=0, atol=EPS)
    for near in (shares(S, depths + 1), shares(S.T, depths)):
        assert np.max(np.abs(found - near)) > 1 / 50 - EPS


@pytest.mark.parametrize("value", [1.0, np.nan, np.inf])
def test_an_encoder_that_tells_nothing_apart_finds_nothing(value):
    """So does one that diverged."""
    assert float(recall(jnp.full((5, 5), value), 4)) == 0
    assert float(recall(jnp.full((5, 5), value), 5)) == 1


def test_loss_is_decomposed_exactly(encoder):
    """H_LoRA v against central differences of the gradient in the adapters, their error measured from h and 2h."""
    base, forward = encoder
    start = {
        k: sd.Adapter(A, jnp.asarray(DRAWS.standard_normal(B.shape)))
        for k, (A, B) in sd.init_adapters(jax.random.key(0), base, 1).items()
    }
    loss, s, h = info_nce(forward, PAIRS, TAU), 0.5, 2.0**-17
    v, unflat = ravel_pytree(jax.tree.map(lambda x: jnp.asarray(DRAWS.standard_normal(x.shape)), start))
    gradient = jax.jit(jax.grad(lambda x: loss({k: W + s * x[k].B @ x[k].A for k, W in base.items()})))

    def quotient(h):
        up, down = (gradient(jax.tree.map(lambda a, d, x=x: a + x * d, start, unflat(v))) for x in (h, -h))
        return (ravel_pytree(up)[0] - ravel_pytree(down)[0]) / (2 * h)

    fine, coarse = quotient(h), quotient(2 * h)
    size = float(jnp.max(jnp.abs(ravel_pytree(gradient(start))[0])))
    error = float(jnp.max(jnp.abs(coarse - fine))) + size * rounding() / h
    parts = sd.decompose(loss, base, start, s)
    signal, drift = parts.signal @ v, parts.drift @ v
    assert float(jnp.max(jnp.abs(signal + drift - fine))) < error
    assert float(jnp.max(jnp.abs(signal + 0.99 * drift - fine))) > error, "the near control"


@pytest.mark.parametrize("tau", [0.0, -0.05, float("nan")])
@pytest.mark.parametrize("make", [lambda forward, tau: info_nce(forward, PAIRS, tau), batch_info_nce])
def test_a_temperature_that_is_not_positive_is_refused(encoder, make, tau):
    with rejects("temperature: must be positive and finite", tau):
        make(encoder[1], tau)


def test_what_are_no_pairs_is_refused(encoder):
    for texts in (PAIRS.at(np.array([0])), Texts(PAIRS.ids[:, 0], PAIRS.mask[:, 0])):
        with rejects("pairs: must be at least two", texts.ids.shape):
            info_nce(encoder[1], texts, TAU)
