"""PiSSA and OLoRA: the pretrained weights stay, and the factors are what their papers say."""

import jax.numpy as jnp
import numpy as np
import pytest
from problems import rejects

import signal_drift as sd
from signal_drift.lora import olora_adapters, pissa_adapters

EPS, RANK, SCALING = np.finfo(float).eps, 2, {"tall": 0.25, "wide": 8.0}
DRAWS = np.random.default_rng(0)
BASE = {"tall": jnp.asarray(DRAWS.standard_normal((5, 3))), "wide": jnp.asarray(DRAWS.standard_normal((3, 6)))}


def rounding(W0):
    return 30 * max(W0.shape) * EPS * float(np.linalg.norm(W0))


@pytest.mark.parametrize("begin", [pissa_adapters, olora_adapters])
def test_effective_weights_are_the_pretrained_ones(begin):
    base, adapters = begin(BASE, RANK, SCALING)
    for layer, W in sd.effective_weights(base, adapters, SCALING).items():
        np.testing.assert_allclose(W, BASE[layer], rtol=0, atol=rounding(BASE[layer]))
    unscaled = sd.effective_weights(base, adapters, 1.0)
    assert all(np.max(abs(unscaled[k] - W0)) > 1e6 * rounding(W0) for k, W0 in BASE.items()), "the near control"


def test_pissa_leaves_what_no_rank_r_matrix_can_take():
    """Eckart–Young: of all s·BA of rank r, the residual is least, √Σ_{i>r} σ_i² by LAPACK; A and B weigh the same."""
    base, adapters = pissa_adapters(BASE, RANK, SCALING)
    for layer, W0 in BASE.items():
        sigma = np.linalg.svd(np.asarray(W0), compute_uv=False)
        assert abs(np.linalg.norm(base[layer]) - np.linalg.norm(sigma[RANK:])) <= rounding(W0)
        A, B = adapters[layer]
        balanced = np.diag(sigma[:RANK]) / SCALING[layer]
        for gram in (A @ A.T, B.T @ B):
            np.testing.assert_allclose(gram, balanced, rtol=0, atol=rounding(W0) / SCALING[layer])


def test_olora_takes_an_orthonormal_basis_of_the_first_columns():
    _, adapters = olora_adapters(BASE, RANK, SCALING)
    for layer, W0 in BASE.items():
        A, B = adapters[layer]
        np.testing.assert_allclose(B.T @ B, np.eye(RANK), rtol=0, atol=30 * len(B) * EPS)
        np.testing.assert_allclose(A, B.T @ W0, rtol=0, atol=rounding(W0))
        np.testing.assert_allclose(B @ A[:, :RANK], W0[:, :RANK], rtol=0, atol=rounding(W0))


@pytest.mark.parametrize("begin", [pissa_adapters, olora_adapters])
def test_what_they_cannot_begin_from(begin):
    for rank in (0, 4):
        with rejects("rank:", str(rank)):
            begin(BASE, rank, SCALING)
    with rejects("scaling:", "positive", "0.0"):
        begin(BASE, 1, 0.0)
