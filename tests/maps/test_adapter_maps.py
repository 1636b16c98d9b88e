"""Signal and drift of every adapter map that is written down: P1's identity, and what H_Drift is like."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adapter_cases import ADAPTERS, ALPHA, BASE, CASES, FROZEN, RANK, X, base_at, decomposition, dense, loss, oracle
from problems import rounding

import signal_drift as sd
from signal_drift.spectra import structure

PARTS = ("jacobian", "task", "signal", "drift", "lora")
SCALED = [name for name, case in CASES.items() if case.scaled]


def error(name: str) -> float:
    """A bound on the error of any of the five matrices, as chains of products with J, H_ℓ and ∇²w.

    ∇²w enters with g through the drift. Divisions by ‖V_i‖ cost digits in proportion to its condition, of order 1.
    """
    M = oracle(name)
    D, p = M["jacobian"].shape
    return (
        rounding(D + p, M["jacobian"], M["task"], M["jacobian"])
        + 10 * rounding(D + p, M["drift"])
        + rounding(D, M["task"])
    )


@pytest.mark.parametrize("name", CASES)
def test_weights_are_those_of_the_formula(name):
    """Against NumPy; a scaling that is off by √r or by a rank, as α for α/r, would not be."""
    case, w = CASES[name], decomposition(name).task.point.weights()
    for k, W0 in BASE.items():
        expected = case.formula(np, ALPHA, W0, [np.asarray(x) for x in jax.tree.leaves(case.theta[k])], FROZEN[k])
        assert np.allclose(w[k], expected, rtol=0, atol=rounding(20, expected))
        if case.scaled:
            near = case.formula(np, ALPHA * RANK**0.5, W0, jax.tree.leaves(case.theta[k]), FROZEN[k])
            assert not np.allclose(w[k], near, rtol=0, atol=0.01)


@pytest.mark.parametrize("name", CASES)
def test_matrices_equal_the_oracle(name):
    """J, H_ℓ, JᵀH_ℓJ, Σ_k g_k ∇²w_k and ∇²_θ ℓ(w(θ)), by jax.jacfwd and jax.hessian of the formula."""
    for part in PARTS:
        assert np.allclose(dense(name)[part], oracle(name)[part], rtol=0, atol=error(name)), part


@pytest.mark.parametrize("name", CASES)
def test_hessian_is_signal_plus_drift(name):
    """P1-hessian for any map. Without the drift, and with half or twice of it, it is not, where there is a drift."""
    M = dense(name)
    assert np.linalg.norm(M["lora"] - M["signal"] - M["drift"]) <= error(name)
    for wrong in (0, 0.5, 2):
        off = np.linalg.norm(M["lora"] - M["signal"] - wrong * M["drift"])
        assert (off > 1e6 * error(name)) == (CASES[name].drift != "zero")


def holds(H: np.ndarray) -> set[str]:
    """Which statements about the signs of a spectrum are true of a matrix, none of them by a narrow margin."""
    spectrum = np.linalg.eigvalsh(H)
    size = max(1e-300, np.max(np.abs(spectrum)))
    apart = {"zero": float(np.any(H)), "paired": np.max(np.abs(spectrum + spectrum[::-1])) / size}
    apart["one-signed"] = min(max(0.0, -spectrum[0]), max(0.0, spectrum[-1])) / size
    assert all(x <= 1e-13 or x >= 0.01 for x in apart.values()), apart
    return {name for name, x in apart.items() if x <= 1e-13}


@pytest.mark.parametrize("name", CASES)
def test_drift_has_the_structure_that_is_said(name):
    """X1's pairs belong to maps linear in each of two halves of θ; of zero the other statements are true as well."""
    said, true = CASES[name].drift, holds(oracle(name)["drift"])
    assert structure(decomposition(name).drift) == said
    assert true == {"zero": {"zero", "paired", "one-signed"}, "paired": {"paired"}, "neither": set()}[said]
    trace = sd.trace(decomposition(name).drift)
    assert (abs(trace) <= error(name)) == CASES[name].traceless
    assert not decomposition(name).drift.traceless


def test_lora_as_a_general_map_is_lora():
    P = sd.decompose(loss, BASE, ADAPTERS, ALPHA / RANK)
    for part, M in dense("lora").items():
        assert np.allclose(getattr(P, part).dense(), M, rtol=0, atol=error("lora")), part


def test_dora_whose_norm_is_held_fixed_is_another_map():
    """The near control of `dora`: what PEFT differentiates, ‖V_i‖ detached, has the same W, and other derivatives."""

    def detached(W0, theta):
        V = W0 + ALPHA / RANK * theta.B @ theta.A
        return (theta.m / jax.lax.stop_gradient(jnp.linalg.norm(V, axis=1)))[:, None] * V

    parts = sd.decompose_map(loss, BASE, CASES["dora"].theta, detached)
    assert np.allclose(parts.task.dense(), oracle("dora")["task"], rtol=0, atol=error("dora"))
    assert np.linalg.norm(parts.jacobian.dense() - oracle("dora")["jacobian"]) > 0.1
    assert structure(parts.drift) == "neither"


def degree(one: np.ndarray, two: np.ndarray, error: float) -> int | None:
    """The k with H(2α) = 2^k·H(α), none where there is no such k or every k is one."""
    fits = [k for k in range(4) if np.linalg.norm(two - 2**k * one) <= 16 * error]
    return fits[0] if len(fits) == 1 else None


@pytest.mark.parametrize("name", SCALED)
def test_degree_in_alpha(name):
    """P4-landscape with w(θ) held fixed: J and ∇²w are linear in α where it multiplies all that θ adds to W₀.

    With W₀ fixed instead, H_ℓ and g change as well, and there is no degree.
    """
    one, two = dense(name), dense(name, 2 * ALPHA)
    found = tuple(degree(one[part], two[part], error(name)) for part in ("signal", "drift"))
    assert found == CASES[name].degrees
    assert np.allclose(one["task"], two["task"], rtol=0, atol=error(name))
    assert degree(one["signal"], (1 + 1e-9) * two["signal"], error(name)) is None, "the near control"


def test_operators_do_all_that_they_do():
    """`@` a vector and a block, the diagonal, spectra and their display, of a θ that is no pair (A, B)."""
    parts, H = decomposition("dora"), dense("dora")["lora"]
    V = np.random.default_rng(0).standard_normal((len(H), 3))
    assert np.allclose(parts.lora @ jnp.asarray(V), H @ V, rtol=0, atol=error("dora") * np.linalg.norm(V))
    assert np.allclose(parts.lora.diagonal(), np.diag(H), rtol=0, atol=error("dora"))
    spectrum = np.linalg.eigvalsh(H)
    assert np.allclose(sd.eigenvalues(parts.lora), spectrum, rtol=0, atol=len(H) * error("dora"))
    ends = sd.extreme_eigenvalues(parts.lora, 1, which="both")
    found = np.sort(np.ravel(ends.values))
    assert np.allclose(found, spectrum[[0, -1]], rtol=0, atol=2 * np.max(ends.residuals) + len(H) * error("dora"))
    assert abs(sd.trace(parts.lora) - np.trace(H)) <= len(H) * error("dora")
    assert "2×3, 4×2, 4" in repr(parts)


def test_the_unit_of_the_loss_does_not_matter():
    """Products beyond the range of float64 are taken at another scale, through the map too."""
    parts = sd.decompose_map(lambda w: 1e-180 * loss(w), BASE, CASES["vera"].theta, CASES["vera"].at(1.0))
    here = np.linalg.eigvalsh(dense("vera")["drift"])
    assert np.allclose(sd.eigenvalues(parts.drift), 1e-180 * here, rtol=0, atol=1e-180 * len(here) * error("vera"))


def test_a_tree_of_mixed_order_is_flattened_by_ravel_pytree():
    """Keys sorted, whatever the order in which they are inserted; W = W₀ + u vᵀ + t·1 by a map of the reader's own."""

    def own(W0, theta):
        return W0 + jnp.outer(theta["u"], theta["v"][0]) + theta["t"] * jnp.eye(*W0.shape)

    base = {"a": BASE["a"]}
    theta = {"a": {"v": [jnp.arange(3.0)], "u": jnp.ones(4), "t": jnp.asarray(2.0)}}
    J = sd.decompose_map(lambda w: jnp.sum((X @ w["a"].T) ** 2), base, theta, own).jacobian.dense()
    expected = np.zeros((12, 8))
    expected[[0, 4, 8], 0] = 1
    expected[np.arange(12), 1 + np.arange(12) // 3] = np.tile(np.arange(3.0), 4)
    expected[np.arange(12), 5 + np.arange(12) % 3] = 1
    assert np.array_equal(J, expected)


def test_base_moves_so_that_w_stays():
    """A control of the cases: w(θ) at 2α is w(θ) at α."""
    for name in SCALED:
        one, two = (decomposition(name, alpha).task.point.weights() for alpha in (ALPHA, 2 * ALPHA))
        assert base_at(name, 2 * ALPHA)["a"] is not BASE["a"]
        for k, W in one.items():
            assert np.allclose(W, two[k], rtol=0, atol=1e-12)
