"""The map θ ↦ w = W₀ + s·BA, its Jacobian and its adjoint, against explicit Kronecker products and differences."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.nn.initializers import ones
from problems import (
    AWAY_FROM_INIT,
    SMALL,
    central_difference,
    flat,
    flat_loss,
    flat_weights,
    kronecker_jacobian,
    problem,
    rejects,
    rounding,
    weight_gradient,
)

import signal_drift as sd

KEY = jax.random.key(0)
BASE = {"b": jnp.ones((3, 4)), "a": jnp.ones((2, 3))}
ADAPTERS = sd.init_adapters(KEY, BASE, 2)


def random_like(tree, seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(rng.standard_normal(x.shape)), tree)


@pytest.mark.parametrize("rank", [1, 7, {"a": 5, "b": 2}])
def test_init_gives_each_layer_its_rank_and_zero_B(rank):
    adapters = sd.init_adapters(KEY, BASE, rank)
    assert adapters.keys() == BASE.keys()
    for layer, (A, B) in adapters.items():
        r = rank[layer] if isinstance(rank, dict) else rank
        d_out, d_in = BASE[layer].shape
        assert A.shape == (r, d_in)
        assert B.shape == (d_out, r)
        assert not B.any()


def test_init_starts_at_the_base_weights_whatever_the_scaling():
    start = sd.effective_weights(BASE, ADAPTERS, 1e6)
    assert all(np.array_equal(start[layer], BASE[layer]) for layer in BASE)


def test_init_depends_on_key_and_layer_but_not_on_insertion_order():
    square = {"a": jnp.ones((3, 3)), "b": jnp.ones((3, 3))}
    first = sd.init_adapters(KEY, square, 2)
    again = sd.init_adapters(KEY, dict(reversed(square.items())), 2)
    other = sd.init_adapters(jax.random.key(1), square, 2)
    assert all(np.array_equal(first[layer].A, again[layer].A) for layer in square)
    assert not np.any(np.asarray(first["a"].A) == np.asarray(first["b"].A))
    assert not np.any(np.asarray(first["a"].A) == np.asarray(other["a"].A))


def test_init_takes_the_dtype_of_the_base_and_the_given_initializer():
    base = {layer: W0.astype(jnp.float32) for layer, W0 in BASE.items()}
    adapters = sd.init_adapters(KEY, base, 2, init_A=ones)
    assert all(factor.dtype == jnp.float32 for pair in adapters.values() for factor in pair)
    assert all(np.all(np.asarray(A) == 1) for A, _ in adapters.values())


@pytest.mark.parametrize("scaling", [0.625, {"a": -0.5, "b": 3.0}])
def test_effective_weights_are_exact_in_rationals(scaling):
    """Entries are integers over 8, so no sum or product of W₀ + s·BA needs more than 53 bits: equal bit for bit."""
    rng = np.random.default_rng(0)
    eighths = lambda x: jnp.asarray(rng.integers(-64, 65, x.shape) / 8)  # noqa: E731
    base, adapters = jax.tree.map(eighths, BASE), jax.tree.map(eighths, ADAPTERS)
    rational = np.vectorize(lambda x: Fraction(float(x)), otypes=[object])
    for layer, W in sd.effective_weights(base, adapters, scaling).items():
        s = Fraction(scaling[layer] if isinstance(scaling, dict) else scaling)
        W0, A, B = (rational(x) for x in (base[layer], *adapters[layer]))
        assert np.array_equal(rational(W), W0 + s * (B @ A))


@pytest.mark.parametrize("name", SMALL)
def test_jacobian_product_is_the_kronecker_matrix(name):
    """Tolerance: inner lengths at most p."""
    P = problem(name)
    delta = random_like(P.adapters, 1)
    J = kronecker_jacobian(P.adapters, P.s)
    moved = flat(sd.jacobian_product(P.adapters, delta, P.scaling))
    assert np.allclose(moved, J @ flat(delta), rtol=0, atol=rounding(P.p, J, flat(delta)))


@pytest.mark.parametrize("name", SMALL)
def test_jacobian_product_is_the_difference_quotient_of_the_map(name):
    """w(θ) is quadratic along a line, so a central difference with any step has no truncation error; take h = 1."""
    P = problem(name)
    theta, delta = flat(P.adapters), random_like(P.adapters, 2)
    quotient = (flat_weights(P, theta + flat(delta)) - flat_weights(P, theta - flat(delta))) / 2
    error = rounding(P.p, abs(theta) + abs(flat(delta)), abs(theta) + abs(flat(delta)), max(P.s.values()))
    assert np.allclose(flat(sd.jacobian_product(P.adapters, delta, P.scaling)), quotient, rtol=0, atol=error)


@pytest.mark.parametrize("name", SMALL)
def test_adjoint_identity(name):
    """⟨Ju, V⟩ = ⟨u, JᵀV⟩ up to the rounding of D + p products."""
    P = problem(name)
    u, V = random_like(P.adapters, 3), random_like(P.base, 4)
    left = flat(sd.jacobian_product(P.adapters, u, P.scaling)) @ flat(V)
    right = flat(u) @ flat(sd.adjoint_product(P.adapters, V, P.scaling))
    J = kronecker_jacobian(P.adapters, P.s)
    assert abs(left - right) <= rounding(P.D + P.p, J, flat(u), flat(V))


@pytest.mark.parametrize("name", ["mlp-at-init", *AWAY_FROM_INIT])
def test_adjoint_of_the_gradient_is_the_gradient_of_the_composition(name):
    """Eq. 22: Jᵀg = ∇_θ ℓ(w(θ)), the latter by central differences of the loss itself."""
    P = problem(name)
    difference, error = central_difference(lambda theta: flat_loss(P, flat_weights(P, theta))[None], flat(P.adapters))
    G = unflat_weights(weight_gradient(P), P.base)
    pulled = flat(sd.adjoint_product(P.adapters, G, P.scaling))
    assert np.allclose(pulled, difference[0], rtol=0, atol=error)


def unflat_weights(g, base):
    ends = np.cumsum([base[layer].size for layer in sorted(base)])
    return {
        layer: jnp.asarray(part.reshape(base[layer].shape))
        for layer, part in zip(sorted(base), np.split(g, ends[:-1]), strict=True)
    }


def wrong(layer, **shapes):
    """ADAPTERS with one factor of one layer replaced by zeros of another shape."""
    zeros = {factor: jnp.zeros(shape) for factor, shape in shapes.items()}
    return {**ADAPTERS, layer: ADAPTERS[layer]._replace(**zeros)}


MISFITS = {
    "A of another width": (wrong("b", A=(2, 3)), "adapters['b']", "(2, 3)"),
    "B of another height": (wrong("a", B=(3, 2)), "adapters['a']", "(3, 2)"),
    "A and B of different ranks": (wrong("a", A=(5, 3)), "adapters['a']", "(5, 3)"),
    "A not a matrix": (wrong("a", A=(3,)), "adapters['a']", "(3,)"),
    "B not a matrix": (wrong("a", B=(2, 2, 2)), "adapters['a']", "(2, 2, 2)"),
    "missing layer": ({"a": ADAPTERS["a"]}, "adapters", "'b'"),
    "extra layer": ({**ADAPTERS, "typo": ADAPTERS["a"]}, "adapters", "'typo'"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_adapters_that_do_not_fit_are_named(case):
    adapters, argument, value = MISFITS[case]
    with rejects(argument, value):
        sd.effective_weights(BASE, adapters, 1.0)


@pytest.mark.parametrize(
    ("rank", "value"), [(0, "0"), (-3, "-3"), (1.5, "1.5"), ({"a": 2, "b": 0}, "0 for layer 'b'")], ids=str
)
def test_rank_below_one_is_named(rank, value):
    with rejects("rank", value):
        sd.init_adapters(KEY, BASE, rank)


@pytest.mark.parametrize("base", [{"ok": jnp.ones((2, 2)), "W": jnp.ones(3)}, {"W": jnp.ones((2, 3, 4))}], ids=[1, 3])
def test_weight_that_is_no_matrix_is_named(base):
    with rejects("base['W']", base["W"].shape):
        sd.init_adapters(KEY, base, 2)
    with rejects("base['W']", base["W"].shape):
        sd.effective_weights(base, {}, 1.0)


def test_empty_base_is_named():
    with rejects("base", "{}"):
        sd.init_adapters(KEY, {}, 2)
    with rejects("base", "{}"):
        sd.effective_weights({}, {}, 1.0)


@pytest.mark.parametrize(
    ("value", "layer"), [({"a": 1, "b": 1, "typo": 1}, "'typo'"), ({"a": 1}, "'b'"), ({}, "'a'")], ids=str
)
def test_per_layer_argument_with_other_layers_is_named(value, layer):
    with rejects("rank", layer):
        sd.init_adapters(KEY, BASE, value)
    with rejects("scaling", layer):
        sd.effective_weights(BASE, ADAPTERS, value)
    with rejects("scaling", layer):
        sd.jacobian_product(ADAPTERS, ADAPTERS, value)
    with rejects("scaling", layer):
        sd.adjoint_product(ADAPTERS, BASE, value)


def test_delta_that_does_not_fit_is_named():
    with rejects("delta['a']", "(5, 3)"):
        sd.jacobian_product(ADAPTERS, wrong("a", A=(5, 3)), 1.0)
    with rejects("delta", "'b'"):
        sd.jacobian_product(ADAPTERS, {"a": ADAPTERS["a"]}, 1.0)


def test_adjoint_argument_that_does_not_fit_is_named():
    with rejects("V", "'b'"):
        sd.adjoint_product(ADAPTERS, {"a": BASE["a"]}, 1.0)
    with rejects("V", "(4, 3)"):
        sd.adjoint_product(ADAPTERS, {**BASE, "b": jnp.ones((4, 3))}, 1.0)
