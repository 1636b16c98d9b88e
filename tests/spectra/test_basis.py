"""The basis on the device is what NumPy's is, and stays orthogonal to rounding through restarts."""

import jax.numpy as jnp
import numpy as np
import pytest
from problems import matrix_operator

import signal_drift as sd
from signal_drift.spectra import basis, lanczos

DTYPES = [np.float64, np.float32]
M, KEPT, RESTARTS = 16, np.r_[0:4, 12:16], 20


def filled(rows):
    found = basis.Basis(rows.shape[1], rows.dtype)
    for row in rows:
        found.append(2 * jnp.asarray(row), 2.0)
    return found


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [60, 1500, basis.CHUNKS * basis.NARROW + 5])
def test_combinations_are_numpys(dtype, n):
    """Combine 13 vectors, kept and returned, in blocks of each height, chunks and a rest, to 13·ε·|S|ᵀ|Q|."""
    rng = np.random.default_rng(0)
    rows, S = rng.standard_normal((13, n)).astype(dtype), rng.standard_normal((13, 9)).astype(dtype)
    here, bound = filled(rows), 13 * float(np.finfo(dtype).eps) * (abs(S).T @ abs(rows))
    assert np.array_equal(here.rows(), rows)
    assert np.all(abs(here.combined(S) - S.T.astype(float) @ rows) <= bound)
    here.recombine(S)
    assert here.rows().dtype == dtype
    assert np.all(abs(here.rows() - S.T.astype(float) @ rows) <= bound)
    here.append(jnp.asarray(rows[0]), 1.0)
    assert here.rows().shape == (10, n)
    assert not np.any(np.concatenate(here.blocks)[10:])


@pytest.mark.parametrize("dtype", DTYPES)
def test_orthogonalised_is_the_projection(dtype):
    """x = Qᵀh + rest, h = Qx; of a vector within the span only rounding is left."""
    Q = np.linalg.qr(np.random.default_rng(0).standard_normal((60, 20)))[0].T.astype(dtype)
    x, eps = np.random.default_rng(1).standard_normal(60).astype(dtype), float(np.finfo(dtype).eps)
    one, other = filled(Q[:7]), filled(Q[7:])
    rest, h, norm = basis.orthogonalised(jnp.asarray(x), one, other)
    assert [len(part) for part in h] == [7, 13]
    assert np.allclose(np.concatenate(h), Q.astype(float) @ x, rtol=0, atol=60 * eps * np.linalg.norm(x))
    assert np.max(abs(Q.astype(float) @ np.asarray(rest, float))) <= 60 * eps * np.linalg.norm(x)
    assert norm == pytest.approx(np.linalg.norm(np.asarray(rest, float)), rel=60 * eps)
    assert basis.orthogonalised(jnp.asarray(Q.T @ x[:20]), one, other)[2] <= 60 * eps * np.linalg.norm(x[:20])


def loss_of_orthogonality(kind, dtype, n):
    """‖QQᵀ − I‖ of a run on a diagonal matrix with one outlier of a thousand, in units of √m·ε."""
    D = jnp.asarray(np.append(1e3, np.linspace(-1, 1, n - 1)).astype(dtype))
    run = kind(lambda v: D * v, np.zeros((0, n), dtype), np.random.default_rng(1).standard_normal(n), M, 0.0)
    for _ in range(M + RESTARTS * (M - len(KEPT))):
        if run.size == run.capacity:
            run.restart(run.ritz(), KEPT)
        run.step()
    Q = run.rows.astype(float)
    assert Q.shape == (M + 1, n)
    return np.linalg.norm(Q @ Q.T - np.eye(len(Q)), 2) / (len(Q) ** 0.5 * float(np.finfo(dtype).eps))


class Carried(lanczos.Lanczos):
    """The next vector is not made orthogonal to the restarted basis."""

    def restart(self, ritz, keep):
        following, norm = self.following + 0, self.norm
        super().restart(ritz, keep)
        self.following, self.norm = following, norm


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [60, 10_000])
def test_basis_stays_orthogonal(dtype, n):
    """A restart rounds each row to √m·ε, and twenty add at most as many."""
    assert loss_of_orthogonality(lanczos.Lanczos, dtype, n) <= RESTARTS + 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_without_the_second_pass_it_is_lost(dtype, monkeypatch):
    """A control: the outlier leaves a thousandth."""
    monkeypatch.setattr(lanczos, "orthogonalised", lambda x, *bases: basis._pass(x, bases))
    assert loss_of_orthogonality(lanczos.Lanczos, dtype, 60) > 3 * RESTARTS


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_carried_through_restarts_grows(dtype):
    """A control: so it is without the pass of the next vector at a restart."""
    assert loss_of_orthogonality(Carried, dtype, 10_000) > 2 * (RESTARTS + 1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_basis_has_the_dtype_of_the_operator(dtype, monkeypatch):
    """A float32 operator has a float32 basis."""
    seen = set()
    swept = basis._swept
    monkeypatch.setattr(basis, "_swept", lambda block, x: (seen.add((block.dtype, x.dtype)), swept(block, x))[1])
    H = np.diag(np.linspace(-1, 2, 60)).astype(dtype)
    assert sd.extreme_eigenvalues(matrix_operator(H), which="both").converged
    assert seen == {(np.dtype(dtype), np.dtype(dtype))}
