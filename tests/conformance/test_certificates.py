"""Sound frameworks get their certificate, in every precision and at every seed; each number against its own oracle."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from fake_frameworks import ALPHA, RANK, fake, said, start
from scipy import stats

from signal_drift.conformance import Factors, Layer, Observation, certify, fitted_scaling, sigma_interval
from signal_drift.conformance.certificate import FALSE_ALARM
from signal_drift.conformance.probes import observe
from signal_drift.conformance.rounding import EPSILON, dtypes, rounding_bound, underflow_bound


def rounded(dtype: Any) -> Any:
    return lambda x: np.asarray(jnp.asarray(x, dtype), float)


def tensor_float(x: np.ndarray) -> np.ndarray:
    """TensorFloat-32: eleven binary digits, and the exponents of float32."""
    mantissa, exponent = np.frexp(x)
    return np.ldexp(np.round(mantissa * 2**11) / 2**11, exponent)


DTYPES = {"float64": np.asarray, **{name: rounded(name) for name in ("float32", "float16", "bfloat16")}}


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0])
@pytest.mark.parametrize("rslora", [False, True])
def test_sound_frameworks_of_any_precision_and_scale(name: str, scale: float, rslora: bool) -> None:
    """s from a thousandth of the rest on; the dtype is the one that rounded."""
    layers = {
        k: x._replace(alpha=scale * ALPHA, rslora=rslora, dtype=name, sigma_a=math.nan) for k, x in said().items()
    }
    s = layers["up"].s
    found = certify(fake(s, layers=layers, dtype=DTYPES[name], base=True))
    assert found.holds, found.contradictions
    for x in found.layers:
        assert x.dtype == (name,)
        assert abs(x.s / s - 1) < 1.1 * EPSILON[name]
        assert x.as_one == ()
        assert "α/√r" in x.reading if rslora else "α/r" in x.reading


def test_TensorFloat32_is_taken_for_float16_and_not_for_float32() -> None:
    found = certify(fake(dtype=tensor_float, layers=said(dtype="float32")))
    assert found.contradictions[0] == "layer 'down': its product is in float16, and is said to be in float32"


@pytest.mark.parametrize("name", [name for name in DTYPES if name != "float64"])
def test_precision_is_told_at_every_seed(name: str) -> None:
    """One to seven roundings of random numbers, an oracle apart from every forward pass: 200 layers of each."""
    draws, round_ = np.random.default_rng(1), DTYPES[name]
    for k in range(200):
        a, b, x = (2.0 ** draws.uniform(0, 1, n) for n in (1, 24, 16))
        A, B = np.array([[*a]]), b[:, None]
        exact = x[:, None] * A * b
        seen = exact
        for _ in range(1 + k % 7):
            seen = round_(seen * 1.1) / 1.1
        observed = Observation(x[:, None], A, B, 0 * exact, seen)
        assert dtypes(fitted_scaling(observed).residual, observed) == (name,)


def test_the_smallest_numbers_of_float16_leave_no_more_than_their_bound() -> None:
    """s in B or after BAx, with outputs down to one spacing; the relative spacing alone is exceeded."""
    draws, round_, s, beyond = np.random.default_rng(2), DTYPES["float16"], 2.0**-12, 0
    for k in range(40):
        x, A, B = (draws.standard_normal(shape) for shape in ((16, 32), (4, 32), (24, 4)))
        B = round_(2.0 ** -(k % 10) * B)
        exact = s * x @ A.T @ B.T
        for y in (round_(exact), round_(x @ A.T @ round_(s * B).T)):
            seen = Observation(x, A, B, 0 * exact, y)
            off = abs(fitted_scaling(seen).s / s - 1), float(np.linalg.norm(y - exact) / np.linalg.norm(exact))
            relative = rounding_bound(seen, EPSILON["float16"], s)
            assert max(off) <= relative + underflow_bound(seen, "float16", s)
            assert underflow_bound(seen, "bfloat16", s) == 0
            beyond += off[1] > relative
    assert beyond > 4


def test_s_and_its_error_are_those_of_the_normal_equations() -> None:
    """Against NumPy's least squares; and the error is within what is left over, which half of it is not."""
    draws, worst = np.random.default_rng(0), 0.0
    for _ in range(200):
        x, A, B = (draws.standard_normal(shape) for shape in ((1, 2), (1, 2), (2, 1)))
        product = x @ A.T @ B.T
        noise = draws.standard_normal(product.shape) * 0.1 * np.linalg.norm(product)
        s, residual = fitted_scaling(Observation(x, A, B, 0 * product, 1.5 * product + noise))
        (wanted,), *_ = np.linalg.lstsq(product.reshape(-1, 1), (1.5 * product + noise).ravel(), rcond=None)
        assert s == pytest.approx(wanted, rel=1e-12)
        assert residual == pytest.approx(np.linalg.norm(1.5 * product + noise - s * product) / np.linalg.norm(
            1.5 * product + noise), rel=1e-12)  # fmt: skip
        worst = max(worst, abs(s - 1.5) * np.linalg.norm(product) / np.linalg.norm(noise))
    assert 0.5 < worst <= 1


@pytest.mark.parametrize("n", [8, 64])
def test_the_interval_misses_as_often_as_it_says(n: int) -> None:
    """20 000 draws at 1 %: normal entries within five standard errors of it, uniform ones less often.

    Controls: half of a normal interval σ̂(1 ± z/√(2n)), and at n = 8 the whole of it, miss otherwise.
    """
    draws, error, trials = np.random.default_rng(n), 0.01, 20_000
    normal, uniform = draws.standard_normal((trials, n)), draws.uniform(-1, 1, (trials, n)) * 3**0.5
    unit = sigma_interval(np.ones((1, n)), error)

    def misses(entries: np.ndarray, low: Any = unit.low, high: Any = unit.high) -> float:
        square = np.sqrt(np.mean(entries**2, axis=1))
        return float(np.mean((square * low > 1) | (square * high < 1)))

    five = 5 * math.sqrt(error * (1 - error) / trials)
    assert abs(misses(normal) - error) < five
    assert misses(uniform) < error / 2
    z = stats.norm.ppf(1 - error / 2) / math.sqrt(2 * n)
    assert abs(misses(normal, 1 - z / 2, 1 + z / 2) - error) > five
    if n == 8:
        assert abs(misses(normal, 1 - z, 1 + z) - error) > five


def test_a_single_array_is_enclosed_as_the_rate_says() -> None:
    A = np.random.default_rng(0).standard_normal((16, 32)) / 8
    found = sigma_interval(A, 1e-3)
    assert found.low < 1 / 8 < found.high
    assert found.measured == pytest.approx(np.linalg.norm(A) / A.size**0.5)
    shares = [stats.chi2.cdf(A.size * found.measured**2 / x**2, A.size) for x in (found.low, found.high)]
    assert shares == pytest.approx([1 - 5e-4, 5e-4], rel=1e-6)


def test_many_layers_are_refused_as_rarely_as_one() -> None:
    """Every layer has its share of the rate; 2000 certificates of 20 layers, at a hundred times it, 0.1.

    Control: at that rate for each layer by itself nearly nine in ten certificates are refused.
    """
    found = certify(fake()).layers
    for x in found:
        assert x.sigma == sigma_interval(start()[x.layer].A, FALSE_ALARM / len(found))
    square = np.sqrt(np.mean(np.random.default_rng(5).standard_normal((2000, 20, 32)) ** 2, axis=2))

    def refused(error: float) -> float:
        _, low, high = sigma_interval(np.ones((1, 32)), error)
        return float(np.mean(np.any((square * low > 1) | (square * high < 1), axis=1)))

    five = 5 * math.sqrt(0.1 * 0.9 / 2000)
    assert abs(refused(0.1 / 20) - 0.1) < five
    assert refused(0.1) > 0.5


def test_no_sound_framework_is_refused_at_any_seed() -> None:
    """B = 0, s, form and precision by 20 draws of A; the rate of σ_A is counted above."""
    for seed in range(20):
        name = list(DTYPES)[seed % 4]
        assert certify(fake(dtype=DTYPES[name], state=start(seed=seed), layers=said(dtype=name))).holds


def test_readings_that_are_one_number_are_not_told_apart() -> None:
    """α = r = 4: α/r is 1, and so is an α that is not read; at r = 1 rsLoRA is LoRA."""
    layers = {k: x._replace(alpha=float(RANK)) for k, x in said().items()}
    found = certify(fake(1.0, layers=layers))
    assert found.holds
    assert found.layers[0].reading == ("α/r", "1", "α²/r²")
    assert "α/r, 1, α²/r² are one number at this α and r, and are not told apart" in found.notes
    alone = {k: Layer(x.shape, 1, 5.0) for k, x in said().items()}
    state = {k: Factors(A[:1], B[:, :1]) for k, (A, B) in start().items()}
    assert {"α/r", "α/√r", "α"} <= set(certify(fake(5.0, layers=alone, state=state)).layers[0].reading)


def test_few_entries_tell_fewer_initialisers_apart() -> None:
    layers = {k: x._replace(r=1, alpha=3.0) for k, x in said().items()}
    state = {k: Factors(A[:1], B[:, :1]) for k, (A, B) in start().items()}
    few = certify(fake(3.0, layers=layers, state=state)).layers
    many = certify(fake()).layers
    assert sum(len(x.drawn) for x in few) > sum(len(x.drawn) for x in many) == len(many)
    assert all("kaiming_uniform, 1/√(3 d_in) (PEFT, kohya, mlx)" in x.drawn for x in (*few, *many))


def test_the_product_outweighs_the_rest_of_the_output() -> None:
    for probes in observe(fake(1e-4)).values():
        for seen in (probes.full, probes.single):
            assert 16 <= np.linalg.norm(seen.change) / np.linalg.norm(seen.without) < 32 * (1 + 1e-9)
            assert rounding_bound(seen, 1.0) <= math.sqrt(96) + 1 / 16


def test_a_certificate_shows_itself() -> None:
    text = repr(certify(fake()))
    assert text.splitlines()[0] == "fake: nothing contradicts its configuration"
    assert all(word in text for word in ("down", "16×96", "α/r", "kaiming_uniform", "float64"))
    assert certify(fake(1.0))._repr_html_().startswith("<div>fake: contradiction: layer &#x27;down&#x27;: s is 1")  # pyright: ignore[reportAttributeAccessIssue]
