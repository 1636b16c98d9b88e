"""Spectra, traces, densities and their certificates do not depend on the unit of the loss, from 1e-300 to 1e300.

A factor c only multiplies H, so that the exact spectrum at c = 1, times c, is the oracle: the points of LoRA where
spectra are degenerate. Multiplying the loss by c rounds each entry, which Weyl bounds by n·ε·‖H‖.
"""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from problems import EPS, matrix_operator, problem, rejects

import signal_drift as sd

FACTORS = [1e-300, 1e-160, 1e154, 1e300]
POINTS = {  # H_Signal has an exact null space, eigenvalues of H_Drift are ±λ, each r times
    "signal": "mlp-at-init",
    "drift": "large",
    "lora": "indefinite",
}


def times(loss, c, weights):
    return c * loss(weights)


def operator(part, c):
    P = problem(POINTS[part])
    scaled = Partial(times, P.loss, jnp.asarray(c))
    return getattr(sd.decompose(scaled, P.base, P.adapters, P.scaling), part)


@cache
def spectrum(part):
    """Return all eigenvalues of the part at c = 1, of its dense matrix by NumPy."""
    P = problem(POINTS[part])
    H = np.asarray(getattr(sd.decompose(P.loss, P.base, P.adapters, P.scaling), part).dense())
    return np.linalg.eigvalsh((H + H.T) / 2)


def bound(part):
    """40·n·ε·‖H‖ at c = 1: building H, the factor, and a backward stable solver."""
    exact = spectrum(part)
    return 40 * len(exact) * EPS * np.max(np.abs(exact))


@pytest.mark.parametrize("c", FACTORS)
@pytest.mark.parametrize("part", POINTS)
def test_certificates_hold_at_every_scale(part, c):
    exact = spectrum(part)
    found = sd.extreme_eigenvalues(operator(part, c), 2, "both")
    assert found.converged
    error = np.abs(found.values / c - exact[[0, 1, -2, -1]])
    assert np.all(error <= found.residuals / c + bound(part))
    assert np.all(error <= 100 * len(exact) ** 0.5 * EPS * np.max(np.abs(exact)) + bound(part))
    assert np.all(np.isfinite(found.residuals))
    assert found.missed / c <= 100 * len(exact) ** 0.5 * EPS * np.max(np.abs(exact))


@pytest.mark.parametrize("c", FACTORS)
@pytest.mark.parametrize("part", POINTS)
def test_all_eigenvalues_at_every_scale(part, c):
    assert np.max(np.abs(sd.eigenvalues(operator(part, c)) / c - spectrum(part))) <= bound(part)


@pytest.mark.parametrize("c", FACTORS)
@pytest.mark.parametrize("part", ["signal", "lora"])
def test_traces_and_densities_at_every_scale(part, c):
    """At the same key they are those at c = 1 to rounding, with their errors."""
    (one, other), size = (operator(part, x) for x in (1.0, c)), np.max(np.abs(spectrum(part)))
    n = len(spectrum(part))
    assert abs(sd.trace(other) / c - np.sum(spectrum(part))) <= n * bound(part)
    here, there = (sd.estimate_trace(op, probes=12) for op in (one, other))
    assert np.allclose(np.array(there) / c, here, rtol=0, atol=100 * n * bound(part))
    assert here.error > 1e-6 * size or here.error < 100 * n * bound(part)
    near, far = (sd.spectral_density(op, probes=3, steps=4) for op in (one, other))
    assert np.allclose(far.nodes / c, near.nodes, rtol=0, atol=1e-9 * size)
    for mean, other_mean in zip(near.mean(lambda x: x), far.mean(lambda x: x), strict=True):
        assert other_mean / c == pytest.approx(mean, rel=1e-9)


@pytest.mark.parametrize("c", FACTORS)
def test_layers_at_every_scale(c):
    P = problem("mlp-at-init")
    here, there = (
        sd.layer_views(sd.decompose(Partial(times, P.loss, jnp.asarray(x)), P.base, P.adapters, P.scaling), P.adapters)
        for x in (1.0, c)
    )
    for one, other in zip(here, there, strict=True):
        assert np.allclose(np.array(other.signal)[:3] / c, np.array(one.signal)[:3], rtol=0, atol=bound("signal"))
        assert other.signal.norm_share == pytest.approx(one.signal.norm_share, rel=1e-9)


@pytest.mark.parametrize("c", [1e-30, 1e30])
def test_certificates_hold_in_float32(c):
    """Squares of 1e±30 leave the range of float32."""
    values = np.array([-3.0, *np.linspace(-1, 1, 28), 5.0])
    R = np.linalg.qr(np.random.default_rng(0).standard_normal((30, 30)))[0]
    H = ((R * values) @ R.T * c).astype(np.float32)
    found = sd.extreme_eigenvalues(matrix_operator((H + H.T) / 2), 1, "both")
    assert found.converged
    assert np.allclose(found.values / c, [-3, 5], rtol=0, atol=1e3 * float(np.finfo(np.float32).eps) * 5)


@pytest.mark.parametrize("H", [np.eye(30) * 1.5e308, np.eye(2) * 1.5e308])
def test_size_out_of_range_is_named(H):
    """‖H‖ of 3e308, of a matrix whose entries are all finite."""
    H = H + np.eye(len(H))[::-1] * 1.5e308
    with rejects("op", "1e308", "float64"):
        sd.extreme_eigenvalues(matrix_operator(H))
    with rejects("op", "1e308", "float64"):
        sd.eigenvalues(H)


def test_size_below_the_range_is_named():
    with rejects("op", "float64"):
        sd.eigenvalues(np.eye(3) * 1e-310)


def test_one_float32_weight_or_factor_is_named():
    """The products have no more digits than the least precise of W₀, A and B."""
    P = problem("psd")
    short = jax.tree.map(lambda x: x.astype(jnp.float32), P.base["second"])
    parts = sd.decompose(P.loss, {**P.base, "second": short}, P.adapters, P.scaling)
    for call in (sd.eigenvalues, sd.trace, lambda op: op.dense()):
        with rejects("base['second']", "float32", error=TypeError):
            call(parts.lora)
    pair = P.adapters["first"]._replace(B=P.adapters["first"].B.astype(jnp.float32))
    parts = sd.decompose(P.loss, P.base, {**P.adapters, "first": pair}, P.scaling)
    with rejects("adapters['first']['B']", "float32", error=TypeError):
        sd.eigenvalues(parts.task)
    assert np.all(sd.extreme_eigenvalues(parts.task).residuals > float(np.finfo(np.float32).eps))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_multiplies_and_its_eigenvalues_are_refused(dtype):
    """Σ w² has H = 2I: a product is exact in any dtype; what to do is said."""
    base = {"w": jnp.ones((3, 3), dtype)}
    parts = sd.decompose(lambda w: jnp.sum(w["w"] ** 2), base, sd.init_adapters(jax.random.key(0), base, 1), 1.0)
    image = parts.task @ jnp.arange(9, dtype=dtype)
    assert image.dtype == dtype
    assert image.tolist() == (2.0 * np.arange(9)).tolist()
    for call in (sd.extreme_eigenvalues, sd.estimate_trace, sd.spectral_density):
        with rejects("base['w']", str(jnp.dtype(dtype)), "float32", "astype", error=TypeError):
            call(parts.task)
    for call in (sd.eigenvalues, sd.trace):
        with rejects("base['w']", str(jnp.dtype(dtype)), "float64", error=TypeError):
            call(parts.task)


@pytest.mark.parametrize(
    ("low", "high", "factors"), [("base", "adapters", jnp.float32), ("adapters", "base", jnp.bfloat16)]
)
def test_products_of_mixed_precision_are_those_of_the_same_point(low, high, factors):
    """bfloat16 numbers are float32 numbers: each product is that in float32, to the rounding of BA in its own dtype."""
    P = problem("mlp")
    point = {"base": P.base, "adapters": P.adapters}
    short = jax.tree.map(lambda x: x.astype(jnp.bfloat16), point[low])
    mixed = {low: short, high: jax.tree.map(lambda x: x.astype(jnp.float32), point[high])}
    single = jax.tree.map(lambda x: x.astype(jnp.float32), mixed)
    for here, there in zip(*(sd.decompose(P.loss, **x, scaling=0.7) for x in (mixed, single)), strict=True):
        v = jnp.linspace(-1, 1, here.shape[1], dtype=jnp.float32)
        found, expected = here @ v, there @ v
        assert found.dtype == here.dtype == jnp.float32
        bound = 10 * here.shape[1] * float(jnp.finfo(factors).eps) * float(jnp.linalg.norm(expected))
        assert np.max(np.abs(found - expected)) <= bound
        with rejects(low, "bfloat16", error=TypeError):
            here.dense()


@pytest.mark.parametrize("place", ["base", "adapters"])
def test_a_dtype_that_jax_does_not_compute_in_is_named(place):
    P = problem("psd")
    point = {"base": P.base, "adapters": P.adapters}
    point[place] = jax.tree.map(lambda x: x.astype(jnp.float8_e4m3fn), point[place])
    with rejects(f"{place}['first']", "float8_e4m3fn", "astype"):
        sd.decompose(P.loss, **point, scaling=1.0)
