"""Hundreds of operators of the kinds LoRA produces, their spectra known by construction: `converged` is never wrong."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import EPS, matrix_operator, rejects
from scipy.sparse.linalg import eigsh

import signal_drift as sd
from signal_drift.spectra import extremes, lanczos

N = 60


def conjugated(values, rng):
    """R diag(values) Rᵀ with R Haar-distributed, symmetric to the bit."""
    values = np.asarray(values, float)
    R = np.linalg.qr(rng.standard_normal((len(values), len(values))))[0]
    H = (R * values) @ R.T
    return (H + H.T) / 2, np.sort(values)


def zero_block(rng):
    """H_Signal at B = 0: an exactly zero block, of random size, beside a full one that need not be positive."""
    m = int(rng.integers(3, N - 3))
    H = np.zeros((N, N))
    H[:m, :m], values = conjugated(rng.standard_normal(m) + rng.integers(0, 3), rng)
    order = rng.permutation(N)
    return H[np.ix_(order, order)], np.sort(np.append(values, np.zeros(N - m)))


def drift(rng):
    """H_Drift: ±σ_i, each r times, and zeros."""
    r = int(rng.integers(1, 6))
    G = rng.standard_normal((N // (2 * r), N // (2 * r)))
    blocks, zero = np.kron(G, np.eye(r)), np.zeros((r * len(G), r * len(G)))
    sigma = np.repeat(np.linalg.svd(G, compute_uv=False), r)
    values = np.concatenate([sigma, -sigma, np.zeros(N - 2 * len(sigma))])
    H = np.zeros((N, N))
    H[: len(values) - (N - 2 * len(sigma)), : 2 * len(sigma)] = np.block([[zero, blocks.T], [blocks, zero]])
    return H, np.sort(values)


def tied(rng):
    """Every value three to five times."""
    return conjugated(np.resize(np.repeat(rng.standard_normal(15), rng.integers(3, 6)), N), rng)


def clustered(rng):
    """Ten values at each end within 10⁻² … 10⁻⁹ of each other."""
    near = 10.0 ** -rng.uniform(2, 9) * rng.uniform(size=10)
    return conjugated(np.concatenate([1 - near, near - 1, rng.uniform(-0.9, 0.9, N - 20)]), rng)


KINDS = {
    "zero": lambda rng: (np.zeros((N, N)), np.zeros(N)),
    "identity": lambda rng: (np.eye(N), np.ones(N)),
    "rank below four": lambda rng: conjugated([*rng.standard_normal(rng.integers(1, 4)), *np.zeros(N)][:N], rng),
    "zero block": zero_block,
    "drift": drift,
    "tied": tied,
    "clustered": clustered,
    "indefinite": lambda rng: conjugated(rng.standard_normal(N), rng),
    "decaying": lambda rng: conjugated(np.logspace(0, -12, N) * np.sign(rng.standard_normal(N)), rng),
    "one outlier": lambda rng: conjugated([1e6, *rng.standard_normal(N - 1)], rng),
    "tiny": lambda rng: conjugated(1e-30 * rng.standard_normal(N), rng),
}
CALLS: list[tuple[int, extremes.End]] = [(1, "largest"), (1, "both"), (2, "smallest"), (4, "both")]


@cache
def instances(kind):
    return [KINDS[kind](np.random.default_rng([i, list(KINDS).index(kind)])) for i in range(8)]


def ends(exact, k, which):
    return {"largest": exact[-k:], "smallest": exact[:k], "both": np.append(exact[:k], exact[-k:])}[which]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_converged_is_never_wrong(kind, dtype):
    """352 searches a dtype: each converges, and the i-th value is the i-th eigenvalue within its residual.

    The slack is the error of writing H down, at most n·ε·‖H‖ by Weyl; in float64 for the construction, too. A residual
    may be n·tiny beside: no product tells a smaller ‖H‖ from 0.
    """
    eps, floor = float(np.finfo(dtype).eps), N * float(np.finfo(dtype).tiny)
    for i, (H, exact) in enumerate(instances(kind)):
        op, size = matrix_operator(H.astype(dtype)), np.max(np.abs(exact))
        for k, which in CALLS:
            found = sd.extreme_eigenvalues(op, k, which, key=jax.random.key(i))
            expected = ends(exact, k, which)
            assert found.converged, (i, k, which)
            assert found.values.shape == expected.shape
            error = np.abs(found.values - expected)
            assert np.all(error <= found.residuals + N * eps * size), (i, k, which, error, found)
            assert np.all(found.residuals <= (100 * N**0.5 + N) * eps * size + floor)
            assert found.missed <= 100 * N**0.5 * eps * size


def test_long_vectors_are_fewer_and_as_right(monkeypatch):
    """32 of a thousand rows, 26 of twenty million (4 GiB); 16 at least, which find the ends as well."""
    assert [extremes.capacity(n) for n in (1_000, 20_000_000, 10**9)] == [32, 26, 16]
    monkeypatch.setattr(extremes, "BASIS_BYTES", 0)
    seen = set()
    restart = lanczos.Lanczos.restart
    monkeypatch.setattr(lanczos.Lanczos, "restart", lambda run, *x: (seen.add(run.capacity), restart(run, *x)))
    for kind in ("zero block", "indefinite", "drift"):
        H, exact = instances(kind)[0]
        for k, which in CALLS[:3]:
            found = sd.extreme_eigenvalues(matrix_operator(H), k, which, tolerance=1e-8)
            assert found.converged
            assert np.all(
                np.abs(found.values - ends(exact, k, which)) <= found.residuals + N * EPS * np.max(abs(exact))
            )


def test_without_the_second_run_ties_are_missed(monkeypatch):
    """A control: the test above would see it, were the complement of what was found not searched."""
    H, _ = conjugated([3, 3, 3, 1.5, *np.linspace(-1, 1, N - 4)], np.random.default_rng(0))
    assert np.allclose(sd.extreme_eigenvalues(matrix_operator(H), 2, tolerance=1e-6).values, 3, rtol=0, atol=1e-5)
    monkeypatch.setattr(extremes._Search, "beyond", lambda self, *_: 0.0)
    missed = sd.extreme_eigenvalues(matrix_operator(H), 2, tolerance=1e-6).values
    assert np.allclose(missed, [1.5, 3], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["drift", "clustered", "indefinite"])
@pytest.mark.parametrize("steps", [6, 12, 20])
def test_nothing_lies_beyond_the_reach(kind, steps):
    """Long before convergence: λ_max ≤ θ_max + reach, of which δ = 10⁻⁶ allows no failure in these 24 runs."""
    for i, (H, exact) in enumerate(instances(kind)):
        for restarts in (False, True):
            start = np.random.default_rng(i).standard_normal(N)
            run = lanczos.Lanczos(lambda v, H=H: H @ v, np.zeros((0, N)), start, 8 if restarts else N, 0.0)
            for _ in range(steps):
                if run.size == run.capacity:
                    run.restart(run.ritz(), np.arange(8)[-4:])
                run.step()
            ritz = run.ritz()
            for sign in (-1, 1):
                top, bound = np.max(sign * ritz.values), run.reach(ritz, sign)
                assert np.max(sign * exact) <= top + bound
                assert top <= np.max(sign * exact) + N * EPS


@pytest.mark.parametrize("restarts", [False, True])
def test_next_vector_is_the_polynomial_of_the_start(restarts):
    """⟨y, q⟩ = p(λ)⟨y, v⟩ with p(x) = Π_roots (x − θ)/Π_steps β, for every eigenvector, restarted or not.

    Errors of 12 steps add up to 10²·ε relative to the largest |p|·‖v‖ seen.
    """
    H, _ = instances("indefinite")[0]
    values, vectors = np.linalg.eigh(H)
    start = np.random.default_rng(0).standard_normal(N)
    run = lanczos.Lanczos(lambda v: H @ v, np.zeros((0, N)), start, 8 if restarts else N, 0.0)
    for _ in range(12):
        if run.size == run.capacity:
            run.restart(run.ritz(), np.array([0, 1, 6, 7]))
        run.step()
    roots = np.append(run.dropped, run.ritz().values)
    assert len(roots) == 12
    p = np.exp(np.sum(np.log(np.abs(values[:, None] - roots)), axis=1) - run.log_betas)
    seen = np.abs(vectors.T @ run.rows[run.size])
    expected = p * np.abs(vectors.T @ start) / np.linalg.norm(start)
    assert np.allclose(seen, expected, rtol=1e-9, atol=1e-11)


def plain_lanczos(H, start, steps):
    """The textbook recurrence, nothing reorthogonalised."""
    q, before, beta, alphas, betas = start / np.linalg.norm(start), 0.0, 0.0, [], []
    for _ in range(steps):
        w = H @ q - beta * before
        alphas.append(q @ w)
        w -= alphas[-1] * q
        before, beta = q, np.linalg.norm(w)
        betas.append(beta)
        q = w / beta
    return np.linalg.eigvalsh(np.diag(alphas) + np.diag(betas[:-1], 1) + np.diag(betas[:-1], -1))


def test_arpack_misreports_a_zero_block():
    """This must not happen here: SciPy's `eigsh` calls 0.1 the smallest eigenvalue of a matrix with 160 zeros."""
    rng = np.random.default_rng(0)
    H = np.zeros((200, 200))
    H[:40, :40], _ = conjugated(np.linspace(0.1, 8, 40), rng)
    assert eigsh(H, 1, which="SA", return_eigenvectors=False, v0=rng.standard_normal(200))[0] > 0.05
    found = sd.extreme_eigenvalues(matrix_operator(H), 1, "smallest")
    assert found.converged
    assert abs(found.values[0]) <= found.residuals[0]


def test_plain_lanczos_counts_a_tie_once_and_then_too_often():
    """Twelve steps show one of a fivefold largest eigenvalue, 300 show ghosts of a simple one."""
    rng = np.random.default_rng(0)
    fivefold, _ = conjugated([*5 * [3.0], *rng.uniform(-1, 1, N - 5)], rng)
    assert np.sum(plain_lanczos(fivefold, rng.standard_normal(N), 12) > 2) == 1
    simple, _ = conjugated([3.0, *rng.uniform(-1, 1, N - 1)], rng)
    assert np.sum(plain_lanczos(simple, rng.standard_normal(N), 300) > 2) > 1
    for H, count in ((fivefold, 5), (simple, 1)):
        found = sd.extreme_eigenvalues(matrix_operator(H), 6)
        assert found.converged
        assert np.sum(np.abs(found.values - 3) <= found.residuals + N * EPS * 3) == count


def test_tolerance_buys_products():
    """A looser tolerance takes fewer products, and still bounds what is missed."""
    H, exact = instances("indefinite")[0]
    loose = sd.extreme_eigenvalues(matrix_operator(H), 2, tolerance=1e-2)
    tight = sd.extreme_eigenvalues(matrix_operator(H), 2)
    assert loose.converged
    assert loose.products < tight.products
    assert np.all(np.abs(loose.values - exact[-2:]) <= loose.residuals + loose.missed)
    assert loose.missed <= 1e-2 * np.max(np.abs(exact))


@pytest.mark.parametrize("tolerance", [0.0, -1.0, 1.0, np.nan])
def test_tolerance_out_of_range_is_named(tolerance):
    with rejects("tolerance", tolerance):
        sd.extreme_eigenvalues(matrix_operator(np.eye(3)), tolerance=tolerance)


@jax.custom_jvp
def _lopsided(W):
    return jnp.sum(W**2)


@_lopsided.defjvp
def _lopsided_jvp(primals, tangents):
    """The gradient w ↦ (w_2, …, w_n, 0), which no loss has."""
    (W,), (dW,) = primals, tangents
    return jnp.sum(W**2), jnp.sum(jnp.append(W.ravel()[1:], 0.0) * dW.ravel())


def test_operator_that_is_not_symmetric_is_named():
    """A wrong derivative rule in the loss makes one."""
    base = {"W": jnp.ones((5, 6))}
    adapters = sd.init_adapters(jax.random.key(0), base, 1)
    op = sd.decompose(lambda weights: _lopsided(weights["W"]), base, adapters, 1.0).task
    with rejects("op", "symmetric"):
        sd.extreme_eigenvalues(op)


def _broken(layer, weights):
    """‖w‖³ᐟ² at w = 0 in one layer: a finite gradient, and no Hessian."""
    sizes = {k: jnp.sum(W**2) for k, W in weights.items()}
    return sizes.pop(layer) ** 0.75 + sum(sizes.values())


@pytest.mark.parametrize(("part", "where"), [("task", "['b']"), ("lora", "['b']['A']")])
def test_layer_of_a_product_that_is_not_finite_is_named(part, where):
    base = {k: jnp.zeros((4, 5)) for k in "abc"}
    adapters = {k: sd.Adapter(jnp.ones((2, 5)), jnp.zeros((4, 2))) for k in base}
    op = getattr(sd.decompose(partial(_broken, "b"), base, adapters, 1.0), part)
    with rejects("op", "nan", where):
        sd.extreme_eigenvalues(op)
