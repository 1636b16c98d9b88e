"""PiSSA, MiLoRA, OLoRA and LoRA-GA: the pretrained weights stay, and the factors are what their papers say."""

import jax.numpy as jnp
import numpy as np
import pytest
from problems import rejects

import signal_drift as sd
from signal_drift.lora import lora_ga_adapters, milora_adapters, olora_adapters, pissa_adapters

EPS, RANK, SCALING = np.finfo(float).eps, 2, {"tall": 0.25, "wide": 8.0}
DRAWS = np.random.default_rng(0)
BASE = {"tall": jnp.asarray(DRAWS.standard_normal((5, 3))), "wide": jnp.asarray(DRAWS.standard_normal((3, 6)))}


GRADIENT = {layer: jnp.asarray(DRAWS.standard_normal(W0.shape)) for layer, W0 in BASE.items()}
GAMMA = 4.0


def gradient_adapters(base, rank, scaling):
    return lora_ga_adapters(base, GRADIENT, rank, scaling, GAMMA)


def rounding(W0):
    return 30 * max(W0.shape) * EPS * float(np.linalg.norm(W0))


@pytest.mark.parametrize("begin", [pissa_adapters, milora_adapters, olora_adapters, gradient_adapters])
def test_effective_weights_are_the_pretrained_ones(begin):
    base, adapters = begin(BASE, 1, SCALING)
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


def test_milora_takes_what_weighs_least():
    """s·BA is W₀ less its best approximation by rank 3 − r: of the norm √Σ_{i>3−r} σ_i², and BᵀB, AAᵀ are those σ/s."""
    base, adapters = milora_adapters(BASE, RANK, SCALING)
    for layer, W0 in BASE.items():
        sigma = np.linalg.svd(np.asarray(W0), compute_uv=False)
        kept, minor = sigma[:-RANK], sigma[-RANK:]
        assert abs(np.linalg.norm(base[layer]) - np.linalg.norm(kept)) <= rounding(W0)
        A, B = adapters[layer]
        for gram in (A @ A.T, B.T @ B):
            np.testing.assert_allclose(
                gram, np.diag(minor) / SCALING[layer], rtol=0, atol=rounding(W0) / SCALING[layer]
            )


def test_lora_ga_first_moves_along_the_best_approximation_of_the_gradient():
    """JJᵀG = s²(BBᵀG + GAᵀA) is s²√d_out/γ times the best approximation of G of rank 2r; without B's part it is not."""
    _, adapters = lora_ga_adapters(BASE, GRADIENT, 1, SCALING, GAMMA)
    for layer, G in GRADIENT.items():
        U, sigma, Vt = np.linalg.svd(np.asarray(G))
        best = (U[:, :2] * sigma[:2]) @ Vt[:2]
        A, B = adapters[layer]
        weight = len(G) ** 0.5 / GAMMA
        np.testing.assert_allclose(B @ (B.T @ G) + G @ A.T @ A, weight * best, rtol=0, atol=rounding(G))
        assert np.max(abs(G @ A.T @ A - weight * best)) > 0.01
        assert abs(np.sum(A**2) - weight) <= rounding(G)


def test_lora_ga_names_what_does_not_fit():
    with rejects("gradient['tall']:", "(3, 5)"):
        lora_ga_adapters(BASE, {**GRADIENT, "tall": GRADIENT["tall"].T}, 1, SCALING)
    with rejects("gradient:", "missing layer 'wide'"):
        lora_ga_adapters(BASE, {"tall": GRADIENT["tall"]}, 1, SCALING)
    with rejects("rank:", "half of 3", "2"):
        lora_ga_adapters(BASE, GRADIENT, 2, SCALING)
    with rejects("gamma:", "0.0"):
        lora_ga_adapters(BASE, GRADIENT, 1, SCALING, 0.0)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_factors_have_the_dtype_of_the_weights(dtype):
    base, adapters = pissa_adapters({"layer": BASE["tall"].astype(dtype)}, RANK, 1.0)
    assert {base["layer"].dtype, *(x.dtype for x in adapters["layer"])} == {jnp.dtype(dtype)}


@pytest.mark.parametrize("begin", [pissa_adapters, milora_adapters, olora_adapters])
def test_what_they_cannot_begin_from(begin):
    for rank in (0, 4):
        with rejects("rank:", str(rank)):
            begin(BASE, rank, SCALING)
    with rejects("scaling:", "positive", "0.0"):
        begin(BASE, 1, 0.0)
