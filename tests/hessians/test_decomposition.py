"""The four Hessians and the Jacobian: against oracles that share nothing with them, and against each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from problems import (
    AWAY_FROM_INIT,
    HESSIANS,
    PARTS,
    SMALL,
    decomposition,
    dense,
    flat,
    oracle,
    problem,
    quadratic_loss,
    rejects,
    rounding,
)

import signal_drift as sd


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", SMALL)
def test_matrix_equals_the_oracle(name, part):
    """P1-hessian, each of the five matrices from Kronecker products and finite differences (`problems.oracle`)."""
    expected, error = oracle(name, part)
    assert np.allclose(dense(name, part), expected, rtol=0, atol=error)


@pytest.mark.parametrize("name", SMALL)
def test_lora_hessian_is_signal_plus_drift(name):
    """P1-hessian, to rounding: JᵀH_ℓJ has inner lengths D and factors J, H_ℓ, J; H_Drift has inner length D."""
    J, H_task = dense(name, "jacobian"), dense(name, "task")
    difference = dense(name, "lora") - dense(name, "signal") - dense(name, "drift")
    D = problem(name).D
    assert np.linalg.norm(difference) <= rounding(D, J, H_task, J) + rounding(D, dense(name, "drift"))


@pytest.mark.parametrize("name", ["psd", "indefinite", "mlp", "cross-entropy"])
def test_task_hessian_couples_the_layers(name):
    """A control for the oracles above: without its cross-layer blocks H_ℓ would be another matrix."""
    first = problem(name).base[min(problem(name).base)].size
    assert np.linalg.norm(dense(name, "task")[:first, first:]) > 0.01


@pytest.mark.parametrize("part", HESSIANS)
@pytest.mark.parametrize("name", ["indefinite", "mlp", "large"])
def test_hessian_is_symmetric(name, part):
    H = dense(name, part)
    assert np.linalg.norm(H - H.T) <= rounding(
        problem(name).D, dense(name, "jacobian"), dense(name, "task")
    ) + rounding(problem(name).D, dense(name, "task"))


@pytest.mark.parametrize(("name", "part"), [*(("indefinite", part) for part in PARTS), ("mlp", "lora")])
def test_products_diagonal_and_dense_agree(name, part):
    """One column at a time, a block of columns and the matrix: equal to rounding of the same chain of products."""
    op, M = getattr(decomposition(name), part), dense(name, part)
    V = np.random.default_rng(0).standard_normal((M.shape[1], 3))
    error = rounding(max(M.shape), dense(name, "jacobian"), dense(name, "task"), dense(name, "jacobian"), V)
    assert op.shape == M.shape
    assert op.dtype == M.dtype == np.float64
    block = np.asarray(op @ jnp.asarray(V))
    assert block.shape == (M.shape[0], 3)
    assert np.allclose(block, M @ V, rtol=0, atol=error)
    for i in range(3):
        assert np.allclose(op @ jnp.asarray(V[:, i]), block[:, i], rtol=0, atol=error)
    if part != "jacobian":
        assert np.allclose(op.diagonal(), np.diag(M), rtol=0, atol=error)


@pytest.mark.parametrize("part", ["jacobian", "task", "signal", "drift"])
def test_matrix_larger_than_a_chunk_equals_the_oracle(part):
    """192 and 240 columns, built 128 at a time."""
    expected, error = oracle("large", part)
    assert np.allclose(dense("large", part), expected, rtol=0, atol=error)
    if part != "jacobian":
        diagonal = getattr(decomposition("large"), part).diagonal()
        assert np.allclose(diagonal, np.diag(expected), rtol=0, atol=error)


@pytest.mark.parametrize("name", AWAY_FROM_INIT)
def test_jacobian_gram_is_a_kronecker_sum(name):
    """X7, row by row: J_l J_lᵀ = s²(BBᵀ ⊗ I_{d_in} + I_{d_out} ⊗ AᵀA), and zero between layers."""
    P, J = problem(name), dense(name, "jacobian")
    gram, start = np.zeros((P.D, P.D)), 0
    for layer in sorted(P.base):
        A, B = (np.asarray(factor) for factor in P.adapters[layer])
        here = slice(start, start := start + P.base[layer].size)
        outer, inner = np.kron(B @ B.T, np.eye(A.shape[1])), np.kron(np.eye(len(B)), A.T @ A)
        gram[here, here] = P.s[layer] ** 2 * (outer + inner)
    assert np.allclose(J @ J.T, gram, rtol=0, atol=rounding(P.p, J, J))


def gauge_direction(P):
    """(δA, δB) = (−XA, BX) with a random X per layer, along which W₀ + s·BA does not move to first order."""
    rng = np.random.default_rng(0)
    X = {layer: rng.standard_normal((len(A), len(A))) for layer, (A, _) in P.adapters.items()}
    return flat({k: (-X[k] @ np.asarray(A), np.asarray(B) @ X[k]) for k, (A, B) in P.adapters.items()})


@pytest.mark.parametrize("name", SMALL)
def test_gauge_directions_are_seen_by_the_drift_alone(name):
    """X5: Jv = 0, H_Signal v = 0 and H_LoRA v = H_Drift v, for every X in gl(r)."""
    P = problem(name)
    v, (J, H_task, H_signal, H_drift, H_lora) = gauge_direction(P), (dense(name, part) for part in PARTS)
    error = rounding(P.D, J, H_task, J, v) + rounding(P.D, H_drift, v)
    assert np.linalg.norm(v) > 1
    assert np.linalg.norm(J @ v) <= rounding(P.p, J, v)
    assert np.linalg.norm(H_signal @ v) <= error
    assert np.linalg.norm(H_lora @ v - H_drift @ v) <= error


@pytest.mark.parametrize("name", ["psd", "psd-at-init"])
def test_signal_is_positive_semidefinite_where_the_task_is(name):
    """P2-psd; an eigenvalue of a computed symmetric matrix errs by at most the Frobenius norm of its error."""
    J, H_task = dense(name, "jacobian"), dense(name, "task")
    assert np.linalg.eigvalsh(H_task)[0] >= -rounding(problem(name).D, H_task)
    assert np.linalg.eigvalsh(dense(name, "signal"))[0] >= -rounding(problem(name).D, J, H_task, J)


@pytest.mark.parametrize("name", ["indefinite", "one-layer"])
def test_signal_is_indefinite_where_the_task_is(name):
    """P2-psd's premise is needed (negative control)."""
    spectrum = np.linalg.eigvalsh(dense(name, "signal"))
    assert spectrum[0] < -0.1 < 0.1 < spectrum[-1]


def within_a_layer(P):
    """The entries of a p×p matrix that couple A and B of one layer."""
    label = {
        k: (np.full(A.shape, 2 * i), np.full(B.shape, 2 * i + 1)) for i, (k, (A, B)) in enumerate(P.adapters.items())
    }
    kind = flat(label)
    return (kind[:, None] != kind) & (kind[:, None] // 2 == kind // 2)


@pytest.mark.parametrize("name", SMALL)
def test_drift_couples_only_the_factors_of_one_layer(name):
    """P2-drift-indefinite: exact zeros everywhere else, and ±λ pairs: the spectrum is its own mirror image."""
    H = dense(name, "drift")
    assert not np.any(H[~within_a_layer(problem(name))])
    spectrum = np.linalg.eigvalsh((H + H.T) / 2)
    assert np.allclose(spectrum, -spectrum[::-1], rtol=0, atol=rounding(len(H), H))
    assert spectrum[-1] > 0.01


def test_drift_vanishes_where_the_gradient_does():
    """P2-drift-indefinite fails exactly here: at W₀ = −s·BA a loss ½wᵀQw has g = 0, so H_Drift = 0.

    Integer factors and dyadic s make W₀ + s·BA an exact zero, even if the compiler fuses the two operations.
    """
    rng = np.random.default_rng(0)
    integers = lambda *shape: jnp.asarray(rng.integers(-4, 5, shape), float)  # noqa: E731
    adapters = {"a": sd.Adapter(integers(2, 3), integers(4, 2)), "b": sd.Adapter(integers(3, 2), integers(2, 3))}
    base = {layer: -0.5 * (B @ A) for layer, (A, B) in adapters.items()}
    D = sum(W0.size for W0 in base.values())
    loss = Partial(quadratic_loss, jnp.asarray(rng.standard_normal((D, D))), jnp.zeros(D))
    parts = sd.decompose(loss, base, adapters, 0.5)
    assert not np.any(parts.drift.dense())
    assert np.any(parts.signal.dense())


def test_alpha_scales_signal_by_its_square_and_drift_by_itself():
    """P4-landscape at B = 0 and fixed weights; a power of two commutes with rounding, so equal bit for bit."""
    P, name = problem("mlp-at-init"), "mlp-at-init"
    scaled = sd.decompose(P.loss, P.base, P.adapters, {layer: 4 * s for layer, s in P.s.items()})
    assert np.array_equal(scaled.signal.dense(), 16 * dense(name, "signal"))
    assert np.array_equal(scaled.drift.dense(), 4 * dense(name, "drift"))


def test_operator_is_an_argument_of_jit():
    op, H = decomposition("psd").signal, dense("psd", "signal")
    v = jnp.asarray(np.random.default_rng(0).standard_normal(len(H)))
    product, matrix = jax.jit(lambda op, v: (op @ v, op.dense()))(op, v)
    assert np.allclose(product, H @ v, rtol=0, atol=rounding(problem("psd").D, H, v))
    assert np.allclose(matrix, H, rtol=0, atol=rounding(problem("psd").D, H))


def test_decompose_can_be_mapped_over_scalings():
    P, H = problem("psd"), dense("psd", "lora")
    mapped = jax.vmap(lambda s: sd.decompose(P.loss, P.base, P.adapters, s).lora.dense())(jnp.array([0.1, P.scaling]))
    assert np.allclose(mapped[1], H, rtol=0, atol=rounding(P.D, H))


def test_new_data_of_the_same_shape_reuses_the_compiled_code():
    traced = []

    def counted(Q, b, weights):
        traced.append(1)
        return quadratic_loss(Q, b, weights)

    def operator(Q):
        return sd.decompose(Partial(counted, Q, jnp.zeros(len(Q))), P.base, P.adapters, 1.0).task

    P = problem("psd")
    first, second = operator(jnp.eye(P.D)), operator(2 * jnp.eye(P.D))
    assert np.array_equal(first.dense(), np.eye(P.D))
    count = len(traced)
    assert np.array_equal(second.dense(), 2 * np.eye(P.D))
    assert len(traced) == count


def test_scaling_per_layer_equals_the_shared_one():
    P = problem("psd")
    parts = sd.decompose(P.loss, P.base, P.adapters, P.s)
    assert np.array_equal(parts.lora.dense(), dense("psd", "lora"))


BASE = {"a": jnp.ones((2, 3)), "b": jnp.ones((3, 2))}
ADAPTERS = sd.init_adapters(jax.random.key(0), BASE, 2)


def total(weights):
    return jnp.sum(jnp.stack([jnp.sum(W) for W in weights.values()]))


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf, -jnp.inf])
def test_loss_that_is_not_finite_is_named(value):
    with rejects("loss", value):
        sd.decompose(lambda weights: value * total(weights), BASE, ADAPTERS, 1.0)


@pytest.mark.parametrize(
    ("loss", "value"),
    [(lambda weights: weights["a"] @ weights["b"], "(2, 2)"), (lambda weights: total(weights)[None], "(1,)")],
    ids=["matrix", "vector of one"],
)
def test_loss_that_is_no_scalar_is_named(loss, value):
    with rejects("loss", value):
        sd.decompose(loss, BASE, ADAPTERS, 1.0)


def test_decompose_checks_its_arguments():
    with rejects("base", "{}"):
        sd.decompose(total, {}, {}, 1.0)
    with rejects("base['a']", "(3,)"):
        sd.decompose(total, {"a": jnp.ones(3)}, ADAPTERS, 1.0)
    with rejects("adapters", "'b'"):
        sd.decompose(total, BASE, {"a": ADAPTERS["a"]}, 1.0)
    with rejects("adapters['a']", "(2, 2)"):
        sd.decompose(total, BASE, {**ADAPTERS, "a": ADAPTERS["b"]}, 1.0)
    with rejects("scaling", "'typo'"):
        sd.decompose(total, BASE, ADAPTERS, {"a": 1.0, "b": 1.0, "typo": 1.0})
    with rejects("scaling", "'b'"):
        sd.decompose(total, BASE, ADAPTERS, {"a": 1.0})


@pytest.mark.parametrize("part", PARTS)
def test_product_with_a_vector_that_does_not_fit_is_named(part):
    op = getattr(decomposition("psd"), part)
    for shape in [(op.shape[1] + 1,), (op.shape[1] - 1, 2), (2, op.shape[1]), (), (op.shape[1], 1, 1)]:
        with rejects("v", shape, op.shape):
            _ = op @ jnp.ones(shape)


@pytest.mark.parametrize("part", PARTS)
def test_exact_matrix_needs_float64(part):
    base, adapters = jax.tree.map(lambda x: x.astype(jnp.float32), (BASE, ADAPTERS))
    op = getattr(sd.decompose(total, base, adapters, 1.0), part)
    assert op.dtype == jnp.float32
    with rejects("base", "float32", error=TypeError):
        op.dense()
    if part != "jacobian":
        with rejects("base", "float32", error=TypeError):
            op.diagonal()
