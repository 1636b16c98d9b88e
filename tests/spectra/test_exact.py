"""Eigenvalues on spectra known by construction, and the certified extremes on LoRA's degenerate ones."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import EPS, decomposition, dense, matrix_operator, rejects, rounding

import signal_drift as sd
from signal_drift.spectra import exact as spectrum
from signal_drift.spectra.basis import Basis, orthogonalised


def rotation(n, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))[0]


def with_spectrum(values, seed=0):
    """R diag(values) Rᵀ, exactly symmetric."""
    R = rotation(len(values), seed)
    H = (R * np.asarray(values, float)) @ R.T
    return (H + H.T) / 2


def block_diagonal(*blocks):
    n = sum(len(block) for block in blocks)
    H, start = np.zeros((n, n)), 0
    for block in blocks:
        H[start : start + len(block), start : start + len(block)] = block
        start += len(block)
    return H


def shuffled(H, seed=0):
    order = np.random.default_rng(seed).permutation(len(H))
    return H[np.ix_(order, order)]


def coupling(sigma, r):
    """H_Drift's shape: ±σ_i, each r times, and a zero for every direction that no σ_i reaches."""
    G = rotation(6)[:, : len(sigma)] * sigma @ rotation(len(sigma), 1).T
    return np.block(
        [
            [np.zeros((len(sigma) * r, len(sigma) * r)), np.kron(G.T, np.eye(r))],
            [np.kron(G, np.eye(r)), np.zeros((6 * r, 6 * r))],
        ]
    )


SPREAD = np.concatenate([-np.logspace(0, -8, 10), np.zeros(3), np.logspace(-9, 0, 12)])
KNOWN = {
    "1x1": (np.array([[-3.0]]), [-3.0]),
    "zero": (np.zeros((6, 6)), np.zeros(6)),
    "diagonal": (np.diag([3.0, -1.0, 0.0, 2.0]), [-1, 0, 2, 3]),
    "chain": (np.diag(np.ones(9), 1) + np.diag(np.ones(9), -1), 2 * np.cos(np.arange(1, 11) * np.pi / 11)),
    "dense": (with_spectrum(SPREAD), SPREAD),
    "more than one panel": (with_spectrum(np.linspace(-1, 2, 300)), np.linspace(-1, 2, 300)),
    "zero block": (block_diagonal(np.zeros((7, 7)), with_spectrum([1, 2, 5])), [*np.zeros(7), 1, 2, 5]),
    "shuffled blocks": (
        shuffled(block_diagonal(with_spectrum([-4, 1, 1]), np.zeros((2, 2)), with_spectrum(SPREAD), [[2.0]])),
        [-4, 1, 1, 0, 0, *SPREAD, 2],
    ),
    "r-fold ±λ": (
        shuffled(coupling([3.0, 0.5], 4)),
        [*np.repeat([3.0, 0.5, -3.0, -0.5], 4), *np.zeros(4 * 4)],
    ),
}


@pytest.mark.parametrize("solver", ["lapack", "device"])
@pytest.mark.parametrize("case", KNOWN)
def test_eigenvalues_are_those_built_in(case, solver, monkeypatch):
    """Weyl: the error is at most that of building H and of a backward stable solver, both O(n·ε·‖H‖).

    The device path is the one taken where JAX finds an accelerator; LAPACK must then not be called.
    """
    if solver == "device":
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
        monkeypatch.setattr(spectrum, "_lapack_eigenvalues", None)
    else:
        monkeypatch.setattr(spectrum, "_device_eigenvalues", None)
    H, expected = KNOWN[case]
    before = H.copy()
    values = sd.eigenvalues(H)
    assert values.dtype == np.float64
    assert np.allclose(values, np.sort(expected), rtol=0, atol=rounding(len(H), H))
    assert np.all(np.diff(values) >= 0)
    assert np.array_equal(H, before)


def test_zero_block_gives_exact_zeros():
    """Wherever its rows lie among those of a full block, whose own eigenvalues 1, …, 20 are none."""
    H = shuffled(block_diagonal(np.zeros((7, 7)), with_spectrum(np.arange(1, 21))))
    assert np.sum(sd.eigenvalues(H) == 0) == 7


def test_drift_is_solved_in_blocks_of_one_layer_and_one_rank(monkeypatch):
    """H_Drift's exact zeros decouple the Σ r_l = 15 columns of B with their rows of A: d_in + d_out = 16 entries."""
    solve, sizes = spectrum._lapack_eigenvalues, []
    monkeypatch.setattr(spectrum, "_lapack_eigenvalues", lambda H: sizes.append(len(H)) or solve(H))
    sd.eigenvalues(dense("large", "drift"))
    assert sizes == [16] * 15


@pytest.mark.parametrize("part", ["signal", "drift", "lora"])
def test_eigenvalues_of_an_operator_are_those_of_its_matrix(part):
    H = dense("mlp-at-init", part)
    values = sd.eigenvalues(getattr(decomposition("mlp-at-init"), part))
    assert np.allclose(values, np.linalg.eigvalsh(H), rtol=0, atol=rounding(len(H), H))
    assert np.allclose(values, sd.eigenvalues(jnp.asarray(H)), rtol=0, atol=rounding(len(H), H))
    assert abs(sd.trace(getattr(decomposition("mlp-at-init"), part)) - np.sum(values)) <= rounding(len(H), H)


def test_rounding_asymmetry_is_averaged_away():
    """H and Hᵀ give the same bits, whichever triangle a solver reads."""
    H = with_spectrum(SPREAD) + 1e-14 * np.random.default_rng(0).standard_normal((len(SPREAD), len(SPREAD)))
    assert np.any(H != H.T)
    assert np.array_equal(sd.eigenvalues(H), sd.eigenvalues(H.T))


@pytest.mark.parametrize("seed", range(5))
def test_decoupled_blocks_undo_a_permutation(seed):
    """Chains of known lengths, the slowest shape to explore, shuffled: each is found whole."""
    lengths = [1, 1, 2, 5, 9]
    chains = [np.eye(m, k=1) + np.eye(m, k=-1) for m in lengths]
    label = np.repeat(np.arange(len(lengths)), lengths)
    order = np.random.default_rng(seed).permutation(len(label))
    blocks = list(spectrum.decoupled_blocks(block_diagonal(*chains)[np.ix_(order, order)]))
    assert sorted(map(tuple, blocks)) == sorted(tuple(np.flatnonzero(label[order] == i)) for i in range(len(lengths)))


def test_decoupled_blocks_of_a_full_and_of_a_zero_matrix():
    assert [list(b) for b in spectrum.decoupled_blocks(np.ones((4, 4)))] == [[0, 1, 2, 3]]
    assert [list(b) for b in spectrum.decoupled_blocks(np.zeros((3, 3)))] == [[0], [1], [2]]


# Matrices that have no spectrum to speak of.


@pytest.mark.parametrize(("n", "i", "j"), [(3, 0, 1), (300, 299, 2)])
def test_asymmetric_matrix_is_named(n, i, j):
    """Shown is ‖H − Hᵀ‖_F, here 0.5·√2."""
    H = np.eye(n)
    H[i, j] = 0.5
    with rejects("op", 0.707):
        sd.eigenvalues(H)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("value", [np.nan, np.inf], ids=str)
@pytest.mark.parametrize(("i", "j"), [(0, 0), (1, 299)])
def test_matrix_that_is_not_finite_is_named(value, i, j):
    """The value shown must not be a number that looks harmless."""
    H = np.eye(300)
    H[i, j] = H[j, i] = value
    with rejects("op", "finite") as caught:
        sd.eigenvalues(H)
    assert "nan" in str(caught.value) or "inf" in str(caught.value)


def test_lower_precision_is_named():
    with rejects("op", "float32", error=TypeError):
        sd.eigenvalues(np.eye(3, dtype=np.float32))
    with rejects("op", "float32", error=TypeError):
        sd.eigenvalues(jnp.eye(3, dtype=jnp.float32))


def test_lower_precision_of_an_operator_is_named():
    op = matrix_operator(np.eye(3, dtype=np.float32))
    with rejects("base", "float32", error=TypeError):
        sd.eigenvalues(op)
    with rejects("base", "float32", error=TypeError):
        sd.trace(op)


# Certified extremes.

CLUSTERED = np.concatenate([np.linspace(-0.5, 0.99, 237), [1 - 2e-6, 1 - 1e-6, 1]])
OPERATORS = {
    # name: (operator, k up to which the multiplicity is asked for)
    "H_Signal at B = 0": (lambda: decomposition("mlp-at-init").signal, 3),
    "H_Drift, 5-fold": (lambda: decomposition("large").drift, 5),
    "H_Drift, 6-fold": (lambda: decomposition("indefinite").drift, 6),
    "H_LoRA, indefinite": (lambda: decomposition("indefinite").lora, 4),
    "zero": (lambda: matrix_operator(np.zeros((30, 30))), 3),
    "rank two": (lambda: matrix_operator(with_spectrum([*np.zeros(28), 2.0, 5.0])), 4),
    "n below the block": (lambda: matrix_operator(with_spectrum([-2.0, 0.5, 3.0])), 2),
    "clustered": (lambda: matrix_operator(with_spectrum(CLUSTERED)), 3),
}


@cache
def operator(name):
    op = OPERATORS[name][0]()
    H = np.asarray(op.dense())
    return op, H, np.linalg.eigvalsh((H + H.T) / 2)


def wanted(exact, k, which):
    """The k largest, k smallest or both ends of an ascending list, ascending."""
    ends = {"largest": exact[-k:], "smallest": exact[:k], "both": np.concatenate([exact[:k], exact[-k:]])}[which]
    return exact if which == "both" and 2 * k > len(exact) else ends


@pytest.mark.parametrize("which", ["largest", "smallest", "both"])
@pytest.mark.parametrize("name", OPERATORS)
def test_extreme_eigenvalues_equal_the_dense_ones(name, which):
    """Each with its multiplicity, and within its residual of the i-th exact eigenvalue, both sides to n·ε·‖H‖.

    Converged means a residual of at most 100·√n·ε·‖H‖, and n·tiny: no product tells a smaller ‖H‖ from 0.
    """
    op, H, exact = operator(name)
    k = OPERATORS[name][1]
    found, expected = sd.extreme_eigenvalues(op, k, which), wanted(exact, k, which)
    slack = rounding(len(H), H) + len(H) * np.finfo(float).tiny
    assert found.converged
    assert found.values.shape == found.residuals.shape == expected.shape
    assert np.all(np.abs(found.values - expected) <= found.residuals + slack)
    assert np.all(found.residuals <= 100 * np.sqrt(len(H)) * EPS * np.max(np.abs(exact)) + slack)


def test_extremes_default_to_the_single_largest():
    op, H, exact = operator("H_LoRA, indefinite")
    found = sd.extreme_eigenvalues(op)
    assert found.values.shape == (1,)
    assert abs(found.values[0] - exact[-1]) <= found.residuals[0] + rounding(len(H), H)


@pytest.mark.parametrize("budget", [1, 60, 120])
def test_residual_bounds_hold_without_convergence(budget):
    """Cut short, the search says so, and there still is an eigenvalue within each residual, before or after a restart.

    The residuals are no looser than Weinstein's bound allows: for a unit y, ‖Hy − θy‖ ≤ ‖H − θ‖ ≤ 2‖H‖.
    """
    op, H, exact = operator("clustered")
    found = sd.extreme_eigenvalues(op, 3, max_products=budget)
    distance = np.min(np.abs(found.values[:, None] - exact), axis=1)
    assert not found.converged
    assert np.all(distance <= found.residuals + rounding(len(H), H))
    assert np.all(found.residuals > 100 * np.sqrt(len(H)) * EPS)
    assert np.all(found.residuals <= 2)


def test_extremes_are_reproducible_from_the_key():
    op, H, _ = operator("H_LoRA, indefinite")
    first, again, other = (sd.extreme_eigenvalues(op, 2, key=jax.random.key(i)) for i in (1, 1, 2))
    default, zero = sd.extreme_eigenvalues(op, 2), sd.extreme_eigenvalues(op, 2, key=jax.random.key(0))
    assert np.array_equal(first.values, again.values)
    assert np.array_equal(first.residuals, again.residuals)
    assert np.array_equal(default.residuals, zero.residuals)
    assert not np.array_equal(first.residuals, other.residuals)
    assert np.all(np.abs(first.values - other.values) <= first.residuals + other.residuals + rounding(len(H), H))


def test_extremes_in_single_precision_keep_their_bounds():
    """A float32 product of length n errs by n·ε₃₂·‖H‖, which is what both the bound and the slack then allow."""
    H = with_spectrum([*np.linspace(-1, 0.5, 28), 2.0, 5.0])
    found = sd.extreme_eigenvalues(matrix_operator(H.astype(np.float32)), 2)
    assert found.converged
    error = 30 * float(np.finfo(np.float32).eps) * np.linalg.norm(H)
    assert np.allclose(found.values, [2, 5], rtol=0, atol=error)
    assert np.all(found.residuals <= error)


@pytest.mark.parametrize("depth", [1.0, 1e-5, 1e-9, 0.0])
def test_next_vector_stays_orthogonal(depth):
    """Even from one that lies in span Q up to `depth`: after two passes the overlap is rounding, n·ε.

    A single pass would leave ε/depth. At depth 0 nothing but rounding is left. h holds the coefficients.
    """
    Q, rest = np.split(rotation(40), [10], axis=1)
    x = Q[:, 0] - Q[:, 3] + depth * rest[:, 4]
    basis = Basis(40, "float64")
    for row in Q.T:
        basis.append(jnp.asarray(row), 1.0)
    rest_of_x, (h,), norm = orthogonalised(jnp.asarray(x), basis)
    y = np.asarray(rest_of_x)
    assert norm == pytest.approx(np.linalg.norm(y), rel=rounding(40))
    assert np.allclose(h, Q.T @ x, rtol=0, atol=rounding(40, x))
    assert np.allclose(Q @ h + y, x, rtol=0, atol=rounding(40, x))
    if depth > 0:
        assert np.max(np.abs(Q.T @ y)) <= rounding(40) * np.linalg.norm(y)
        assert abs(rest[:, 4] @ y / np.linalg.norm(y)) >= 1 - rounding(40) / depth
    else:
        assert np.linalg.norm(y) <= rounding(40)


@pytest.mark.parametrize("k", [0, -1, 31])
def test_number_of_extremes_out_of_range_is_named(k):
    with rejects("k", k, "n = 30"):
        sd.extreme_eigenvalues(operator("zero")[0], k)


def test_extremes_of_an_operator_that_is_not_finite_are_refused():
    """A finite loss may have a Hessian that is not: ‖w‖³ᐟ² at w = 0."""
    base = {"W": jnp.zeros((2, 2))}
    adapters = sd.init_adapters(jax.random.key(0), base, 1)
    op = sd.decompose(lambda weights: jnp.sum(weights["W"] ** 2) ** 0.75, base, adapters, 1.0).task
    with rejects("op", "nan"):
        sd.extreme_eigenvalues(op)


def test_unknown_end_of_the_spectrum_is_named():
    """SciPy's name for the largest must not silently give the smallest."""
    which: Any = "LA"
    with rejects("which", which):
        sd.extreme_eigenvalues(operator("zero")[0], which=which)


@pytest.mark.parametrize("shape", [(1, 1), (7, 4), (4, 7), (30, 30)])
@pytest.mark.parametrize("unit", [1e-150, 1.0, 1e150])
def test_spectral_norm_is_the_largest_singular_value(shape, unit):
    """NumPy's SVD, in any unit."""
    G = unit * np.random.default_rng(0).standard_normal(shape)
    allowed = 4 * max(shape) * EPS
    assert spectrum.spectral_norm(G) == pytest.approx(np.linalg.svd(G)[1][0], rel=allowed)


def test_spectral_norm_tells_two_near_singular_values_apart():
    """σ₂ = 1 − 1e-9 is not taken for σ₁ = 1; of no gradient there is none."""
    G = rotation(9) * np.append([1.0, 1 - 1e-9], np.zeros(7)) @ rotation(9, 1)
    assert abs(spectrum.spectral_norm(G) - 1) <= 4 * 9 * EPS < 1e-9
    assert spectrum.spectral_norm(np.zeros((2, 3))) == 0
