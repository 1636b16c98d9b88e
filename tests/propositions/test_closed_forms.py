"""The predictions: exact ones against the operators, expectations by z-scores that must also refute wrong formulas.

A statistic of N draws passes if it lies within THRESHOLD standard errors of its prediction: a right formula fails with
probability 2Φ(−4) = 6·10⁻⁵ per statistic. A wrong formula whose prediction lies SHIFT = 8 or more standard errors away
passes with probability at most Φ(−4) = 3·10⁻⁵, and the tests check that every wrong one here does. The seed is fixed,
so both chances were taken once. N = 2000 draws make the statistics normal enough for that (they are means of sums of
tens of χ² variables).
"""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from problems import (
    AWAY_FROM_INIT,
    SMALL,
    decomposition,
    dense,
    explicit_drift,
    flat,
    gradient_matrices,
    mlp_loss,
    problem,
    quadratic_loss,
    rejects,
    rounding,
    unflat,
)

import signal_drift as sd
from signal_drift.propositions import closed_forms

DRAWS, THRESHOLD, SHIFT = 2000, 4.0, 8.0


# Exact statements.


@pytest.mark.parametrize("name", SMALL)
def test_drift_spectrum_is_the_gradients_singular_values(name):
    """X1: every ±s·σ_i(G_l) r times, zeros besides, by LAPACK on the matrix written out by hand (Weyl: error ‖δH‖)."""
    P, H = problem(name), explicit_drift(problem(name))
    G = {layer: jnp.asarray(matrix) for layer, matrix in gradient_matrices(P).items()}
    predicted = closed_forms.drift_eigenvalues(G, P.adapters, P.scaling)
    assert np.allclose(predicted, np.linalg.eigvalsh(H), rtol=0, atol=rounding(len(H), H))
    assert np.allclose(predicted, np.linalg.eigvalsh(dense(name, "drift")), rtol=0, atol=rounding(len(H), H))
    assert np.array_equal(predicted, np.sort(predicted))


@pytest.mark.parametrize("name", SMALL)
def test_drift_norm_and_trace(name):
    """X1: ‖H_Drift‖_F² = 2 Σ_l r_l s_l² ‖G_l‖_F² and Tr H_Drift = 0, the latter with no rounding at all."""
    P, H = problem(name), dense(name, "drift")
    total = sum(2 * len(P.adapters[k].A) * P.s[k] ** 2 * np.sum(G**2) for k, G in gradient_matrices(P).items())
    assert abs(np.sum(H**2) - total) <= rounding(P.D, H, H)
    assert sd.trace(decomposition(name).drift) == 0


@pytest.mark.parametrize("name", ["psd-at-init", "mlp-at-init"])
def test_signal_trace_at_init_is_a_quadratic_form_in_A(name):
    """X2: Tr H_Signal = s² Σ_l Tr(A_l M_l A_lᵀ), M_l summed here by loops over the entries of H_ℓ."""
    P, H = problem(name), dense(name, "task")
    grams = closed_forms.task_grams(jnp.asarray(H), P.base)
    total, start = 0.0, 0
    for layer in sorted(P.base):
        d_out, d_in = P.base[layer].shape
        rows = [slice(start + o * d_in, start + (o + 1) * d_in) for o in range(d_out)]
        M, A = sum(H[row, row] for row in rows), np.asarray(P.adapters[layer].A)
        total += P.s[layer] ** 2 * np.trace(A @ M @ A.T)
        assert np.allclose(grams[layer], M, rtol=0, atol=rounding(d_out, H))
        start += d_out * d_in
    error = rounding(P.D, dense(name, "jacobian"), H, dense(name, "jacobian"))
    assert abs(sd.trace(decomposition(name).signal) - total) <= error
    assert abs(float(closed_forms.signal_trace(grams, P.adapters, P.scaling)) - total) <= error


def test_signal_trace_takes_a_scaling_per_layer():
    """X2 with s_l: a sum over layers, each of which can be switched on alone."""
    P = problem("psd-at-init")
    grams = closed_forms.task_grams(jnp.asarray(dense("psd-at-init", "task")), P.base)
    first, second, both = (
        float(closed_forms.signal_trace(grams, P.adapters, {"first": a, "second": b}))
        for a, b in ((3.0, 0.0), (0.0, 1.0), (3.0, 1.0))
    )
    shared = float(closed_forms.signal_trace(grams, P.adapters, 1.0))
    assert both == pytest.approx(first + second, rel=1e-14)
    assert shared == pytest.approx(first / 9 + second, rel=1e-14)


@pytest.mark.parametrize("name", ["psd", "mlp"])
def test_signal_trace_formula_needs_B_to_vanish(name):
    """X2 fails at B ≠ 0, where the A-block of H_Signal is not zero (control)."""
    P = problem(name)
    grams = closed_forms.task_grams(jnp.asarray(dense(name, "task")), P.base)
    predicted = float(closed_forms.signal_trace(grams, P.adapters, P.scaling))
    assert abs(sd.trace(decomposition(name).signal) - predicted) > 1e-3 * abs(predicted)


@pytest.mark.parametrize("name", AWAY_FROM_INIT[:2])
@pytest.mark.parametrize("part", ["task", "signal", "lora"])
def test_trace_is_the_sum_of_the_diagonal(name, part):
    H = dense(name, part)
    op = getattr(decomposition(name), part)
    assert sd.trace(op) == pytest.approx(np.trace(H), abs=rounding(len(H), H))
    assert sd.trace(H) == np.trace(H)


def test_suppression_is_alpha_squared_variance_over_rank():
    """Eq. 40: α²σ_A²/r at s = α/r, in numbers: α = 6, r = 4, σ_A = ½ gives 36/16; α = √r/σ_A gives 1."""
    assert closed_forms.suppression(4, 6 / 4, 0.5) == 36 / 16
    for rank, sigma_a in [(1, 0.3), (8, 1 / 64), (256, 0.009)]:
        assert closed_forms.suppression(rank, sd.alpha_base(rank, sigma_a) / rank, sigma_a) == pytest.approx(
            1, rel=1e-15
        )


# Expectations over A. All layers have d_in = 5, so that σ_A is the same in every layer; d_out and H_ℓ differ.

SHAPES = {"quadratic": {"a": (8, 5), "b": (6, 5)}, "mlp": {"a": (5, 5), "b": (3, 5)}}
RANK, ALPHA, SIGMA_A = 4, 2.0, 5**-0.5


@cache
def setting(name):
    """(loss, W₀, H_ℓ at W₀), for a quadratic whose H_ℓ is far from isotropic over the inputs, or the SiLU MLP."""
    rng = np.random.default_rng(11)
    shapes = SHAPES[name]
    base = {k: jnp.asarray(rng.standard_normal(shape) / np.sqrt(5)) for k, shape in shapes.items()}
    D = sum(W0.size for W0 in base.values())
    if name == "quadratic":
        L = np.tile([2.0, 1.0, 1.0, 0.5, 0.5], D // 5)[:, None] * rng.standard_normal((D, D)) / np.sqrt(D)
        Q = L @ L.T
        loss = Partial(quadratic_loss, jnp.asarray(Q), jnp.zeros(D))
    else:
        loss = Partial(mlp_loss, *(jnp.asarray(rng.standard_normal((6, d))) for d in (5, 3)))
    adapters = sd.init_adapters(jax.random.key(0), base, 1)
    return loss, base, np.asarray(sd.decompose(loss, base, adapters, 1.0).task.dense())


@cache
def traces(name, scaling):
    """Tr H_Signal of the operator itself, for DRAWS independent A ~ N(0, 1/d_in) and B = 0."""
    loss, base, _ = setting(name)

    def draw(key):
        signal = sd.decompose(loss, base, sd.init_adapters(key, base, RANK), scaling).signal
        return jnp.sum(signal.diagonal())

    keys = jax.random.split(jax.random.key(5), DRAWS)
    return np.asarray(jax.jit(lambda keys: jax.lax.map(draw, keys, batch_size=50))(keys))


def deviation(name, scaling):
    """Std of Tr H_Signal by X2, from the library's closed form (tested by itself below)."""
    _, base, H = setting(name)
    return closed_forms.signal_trace_deviation(closed_forms.task_grams(jnp.asarray(H), base), RANK, scaling, SIGMA_A)


@pytest.mark.parametrize("name", ["quadratic", "mlp"])
def test_expected_signal_trace(name):
    """P3-trace: E[Tr H_Signal] = α²(σ_A²/r) Tr H_ℓ.

    Refutes α for α², a missing 1/r, s² without r, σ_A for σ_A², and 1/d_out for σ_A² (A transposed).
    """
    s = ALPHA / RANK
    _, base, H = setting(name)
    sample, error = traces(name, s), deviation(name, s) / np.sqrt(DRAWS)
    z = lambda prediction: (np.mean(sample) - prediction) / error  # noqa: E731

    right = closed_forms.suppression(RANK, s, SIGMA_A) * np.trace(H)
    assert abs(z(right)) < THRESHOLD

    blocks = np.split(np.diag(H), np.cumsum([base[k].size for k in sorted(base)])[:-1])
    by_d_out = sum(np.sum(x) / len(base[k]) for k, x in zip(sorted(base), blocks, strict=True))
    wrong = {
        "α for α²": right / ALPHA,
        "no 1/r": right * RANK,
        "s² without r": right / RANK,
        "σ_A for σ_A²": right / SIGMA_A,
        "1/d_out for σ_A²": ALPHA**2 / RANK * by_d_out,
    }
    for formula, prediction in wrong.items():
        assert abs(prediction - right) / error > SHIFT, formula
        assert abs(z(prediction)) > THRESHOLD, formula


@pytest.mark.parametrize("name", ["quadratic", "mlp"])
def test_alpha_base_preserves_the_trace_in_expectation(name):
    """K1-alignment: at α = √r/σ_A, E[Tr H_Signal] = Tr H_ℓ; at α = r (the usual default) it is not."""
    _, _, H = setting(name)
    for alpha, holds in ((sd.alpha_base(RANK, SIGMA_A), True), (float(RANK), False)):
        s = alpha / RANK
        error = deviation(name, s) / np.sqrt(DRAWS)
        # Tr H_Signal is s² times its value at s = 1, whatever A is (B = 0): one sample serves both
        z = (s**2 / (ALPHA / RANK) ** 2 * np.mean(traces(name, ALPHA / RANK)) - np.trace(H)) / error
        assert (abs(z) < THRESHOLD) == holds


def test_variance_of_signal_trace():
    """X2: Var[Tr H_Signal] = 2 r s⁴ σ_A⁴ Σ_l ‖M_l‖_F², refuting a wrong power of s, a missing r or 2, and M over d_out.

    Tr H_Signal = Σ of r independent Gaussian quadratic forms with matrices C_l = s²σ_A² M_l, whose cumulants are
    κ₂ = 2r Σ Tr C_l² and κ₄ = 48r Σ Tr C_l⁴; the sample variance of N draws then has variance κ₄/N + 2κ₂²/(N − 1).
    """
    s = ALPHA / RANK
    _, base, H = setting("quadratic")
    sample, right = traces("quadratic", s), deviation("quadratic", s) ** 2
    M, M_out, start = [], [], 0
    for layer in sorted(base):
        d_out, d_in = base[layer].shape
        block = H[start : start + d_out * d_in, start : start + d_out * d_in].reshape(d_out, d_in, d_out, d_in)
        M.append(np.trace(block, axis1=0, axis2=2))
        M_out.append(np.trace(block, axis1=1, axis2=3))
        start += d_out * d_in
    fourth = 48 * RANK * sum(np.trace(np.linalg.matrix_power(s**2 * SIGMA_A**2 * m, 4)) for m in M)
    error = np.sqrt(fourth / DRAWS + 2 * right**2 / (DRAWS - 1))
    z = lambda prediction: (np.var(sample, ddof=1) - prediction) / error  # noqa: E731

    assert abs(z(right)) < THRESHOLD
    ratio = sum(np.sum(m**2) for m in M_out) / sum(np.sum(m**2) for m in M)
    wrong = {
        "s² for s⁴": right / s**2,
        "σ_A² for σ_A⁴": right / SIGMA_A**2,
        "no r": right / RANK,
        "no 2": right / 2,
        "M summed over d_in": right * ratio,
    }
    for formula, prediction in wrong.items():
        assert abs(prediction - right) / error > SHIFT, formula
        assert abs(z(prediction)) > THRESHOLD, formula


def test_deviation_of_the_trace_takes_everything_per_layer():
    """X2's variance is a sum over layers, 2r s⁴σ⁴‖M‖_F² of each, summed here by hand."""
    P = problem("psd-at-init")
    grams = closed_forms.task_grams(jnp.asarray(dense("psd-at-init", "task")), P.base)
    r, s, sigma = {"first": 2, "second": 5}, {"first": 3.0, "second": 0.5}, {"first": 0.7, "second": 2.0}
    M = {k: np.asarray(gram) for k, gram in grams.items()}
    variance = 2 * 2 * 3.0**4 * 0.7**4 * np.sum(M["first"] ** 2) + 2 * 5 * 0.5**4 * 2.0**4 * np.sum(M["second"] ** 2)
    assert closed_forms.signal_trace_deviation(grams, r, s, sigma) == pytest.approx(np.sqrt(variance), rel=1e-14)
    shared = closed_forms.signal_trace_deviation(grams, 2, 3.0, 0.7)
    assert shared == pytest.approx(np.sqrt(4 * 3.0**4 * 0.7**4 * sum(np.sum(m**2) for m in M.values())), rel=1e-14)
    with rejects("rank", "'second'"):
        closed_forms.signal_trace_deviation(grams, {"first": 2}, 1.0, 1.0)


def test_closed_forms_name_a_layer_that_does_not_fit():
    P = problem("psd-at-init")
    grams = closed_forms.task_grams(jnp.asarray(dense("psd-at-init", "task")), P.base)
    with rejects("scaling", "'typo'"):
        closed_forms.signal_trace(grams, P.adapters, {"first": 1.0, "second": 1.0, "typo": 1.0})
    with rejects("scaling", "'second'"):
        closed_forms.drift_eigenvalues(P.base, unflat(flat(P.adapters), P.adapters), {"first": 1.0})


def test_row_grams_are_those_of_a_kronecker_product():
    """X10: for H_ℓ = N ⊗ M (row by row) Σ_i H_ℓ[(·,i), (·,i)] = Tr(M)·N, and Σ_o H_ℓ[(o,·), (o,·)] = Tr(N)·M."""
    rng = np.random.default_rng(0)
    N, M = (X + X.T for X in (rng.standard_normal((3, 3)), rng.standard_normal((4, 4))))
    task, base = jnp.asarray(np.kron(N, M)), {"only": jnp.zeros((3, 4))}
    scale = np.abs(N).max() * np.abs(M).max()
    rows, grams = closed_forms.row_grams(task, base)["only"], closed_forms.task_grams(task, base)["only"]
    assert np.allclose(rows, np.trace(M) * N, rtol=0, atol=rounding(4) * scale)
    assert np.allclose(grams, np.trace(N) * M, rtol=0, atol=rounding(4) * scale)


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_first_step_of_sign_descent_has_the_size_and_the_descent_of_X8(rank):
    """X8: against draws of A in NumPy; the near controls lack 2/π and √(2/π)'s 2, or let the rank in."""
    rng, (d_out, d_in), s, sigma = np.random.default_rng(rank), (5, 6), 1.7, 0.4
    G = rng.standard_normal((d_out, d_in))
    A = sigma * rng.standard_normal((DRAWS, rank, d_in))
    moved = -s * np.sign(np.einsum("oi,nri->nor", s * G, A)) @ A
    size, descent = np.sum(moved**2, axis=(1, 2)) / G.size, -np.einsum("noi,oi->n", moved, G)
    predicted = (
        closed_forms.first_step_size(rank, s, sigma, d_in),
        closed_forms.first_step_descent(jnp.asarray(G), s * rank, sigma),
    )
    rows = s * rank * sigma * np.sum(np.linalg.norm(G, axis=1))
    wrong = closed_forms.suppression(rank, s, sigma) * (1 + (rank - 1) / d_in), rows / np.sqrt(np.pi)
    for drawn, right, near in zip((size, descent), predicted, wrong, strict=True):
        error = drawn.std(ddof=1) / np.sqrt(DRAWS)
        assert abs(drawn.mean() - right) < THRESHOLD * error
        assert near == right or abs(right - near) > SHIFT * error
