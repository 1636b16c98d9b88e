"""X17, X18 and X19, what is special about each adapter map, against formulas, whole numbers and moved factors."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from adapter_cases import ALPHA, BASE, CASES, FROZEN, RANK, SHAPES, instance, loss, oracle
from problems import rejects, rounding

from signal_drift import maps
from signal_drift.lora.adapters import Adapter
from signal_drift.propositions import adapter_maps
from signal_drift.propositions.adapter_maps import (
    MAP_PROPOSITIONS,
    MAPS,
    MapInstance,
    drift,
    drift_has_a_closed_spectrum,
    drift_is_its_couplings,
    drift_is_zero_on_its_diagonal,
    gauge,
    gauge_is_the_null_space,
    gauge_leaves_the_weights,
    map_has_a_degree_in_alpha,
    remainder,
    remainder_is_cubic,
    remainder_is_its_terms,
    remainder_is_quartic,
)
from signal_drift.propositions.check import failures

ZERO = {"loha": 2, "lokr": 0}
"""The factor that is zero where training begins: A₂, C."""


def test_there_are_statements_about_every_map():
    assert set(MAPS) == CASES.keys()
    assert {instance(name).kind for name in CASES} == set(MAPS)


@pytest.mark.parametrize("name", CASES)
def test_every_statement_holds_where_no_factor_is_zero_and_refutes_its_control(name):
    checks = [statement(instance(name)) for statement in MAP_PROPOSITIONS]
    assert not failures(checks)
    for check in checks:
        if check.applicable and check.tolerance.value > 0:
            assert 1 < check.control_ratio <= 3, check


@pytest.mark.parametrize("name", ZERO)
def test_a_factor_at_zero_makes_pairs_of_what_has_none_elsewhere(name):
    elsewhere, check = (
        drift_has_a_closed_spectrum(instance(name)),
        drift_has_a_closed_spectrum(instance(name, ZERO[name])),
    )
    assert not elsewhere.applicable
    assert check.applicable
    assert not failures([check, drift_is_its_couplings(instance(name, ZERO[name]))])


def test_every_statement_applies_somewhere():
    roomy = [in_a_wide_layer(name) for name in ("loha", "dora", "lokr")]
    for statement in MAP_PROPOSITIONS:
        assert any(statement(x).applicable for x in (*map(instance, ("lora", "loha")), *roomy)), statement


# X17


@pytest.mark.parametrize("name", CASES)
def test_couplings_are_the_second_derivatives_of_the_formula(name):
    """Σ_k g_k ∇²w_k by jax.hessian of the formulas of PEFT, index by index."""
    H = oracle(name)["drift"]
    atol = 10 * rounding(len(H), H) + rounding(len(H), oracle(name)["jacobian"])
    np.testing.assert_allclose(drift.drift_matrix(instance(name)), H, rtol=0, atol=atol)


@pytest.mark.parametrize("name", ["lora", "rslora", "vera", "lora_fa", "mora", "ia3"])
def test_spectrum_is_that_of_the_formulas_hessian(name):
    H = oracle(name)["drift"]
    np.testing.assert_allclose(
        drift.drift_spectrum(instance(name)), np.linalg.eigvalsh(H), rtol=0, atol=10 * rounding(len(H), H)
    )


def mistaken_vera(layer):
    """B ⊙ B ⊙ (GAᵀ): one B too many."""
    return {(0, 1): layer.frozen[1] ** 2 * (layer.G @ layer.frozen[0].T)}


def mistaken_lokr(layer):
    """C and BA in the other order."""
    C, A, B = layer.factors
    G = layer.s * layer.G.reshape(len(B), len(C), A.shape[1], C.shape[1]).transpose(1, 0, 3, 2)
    return {
        (0, 1): np.einsum("mlnk,lr->mnrk", G, B).reshape(C.size, A.size),
        (0, 2): np.einsum("mlnk,rk->mnlr", G, A).reshape(C.size, B.size),
        (1, 2): np.einsum("mlnk,mn,rq->rklq", G, C, np.eye(len(A))).reshape(A.size, B.size),
    }


def mistaken_loha(layer):
    """Two LoRAs, with nothing between the two products."""
    return {k: K for k, K in RIGHT["loha"](layer).items() if k in {(0, 1), (2, 3)}}


def mistaken_dora(layer):
    """‖V_i‖ held fixed, as PEFT trains it: no curvature of the norm."""
    return {k: K for k, K in RIGHT["dora"](layer).items() if k[0] != k[1]}


RIGHT = dict(drift.FORMULAS)
WRONG = {"vera": mistaken_vera, "lokr": mistaken_lokr, "loha": mistaken_loha, "dora": mistaken_dora}


@pytest.mark.parametrize("name", WRONG)
def test_a_mistaken_formula_is_noticed(name, monkeypatch):
    monkeypatch.setattr(drift, "FORMULAS", {**RIGHT, name: WRONG[name]})
    assert not drift_is_its_couplings(instance(name)).holds
    if name == "vera":
        assert not drift_has_a_closed_spectrum(instance(name)).holds


def test_dora_is_coupled_to_itself_but_not_in_m():
    """The diagonal that is held to be zero is that of m; those of A and B are not, so that the trace is not 0."""
    x = instance("dora")
    assert drift_is_zero_on_its_diagonal(x).holds
    assert abs(np.trace(x.dense["drift"])) > 0.01


def test_direction_of_dora_is_of_degree_zero():
    """Euler: what A and B are coupled by beside T, s·Γ_o for equal ranks, is orthogonal to V_o; G_o is not.

    The coupling of A_ki and B_ol is s Γ_oi δ_kl + s² B_ok (T_oAᵀ)_il, of which the second term is read off at k ≠ l.
    """
    y = instance("dora").layers[0]
    A, B, _ = y.factors
    mixed = instance("dora").dense["drift"][: A.size, A.size : A.size + B.size].reshape(*A.shape, *B.shape)
    gamma = (mixed[0, :, :, 0] - (B[:, 0] / B[:, 1]) * mixed[1, :, :, 0]).T / y.s
    V = y.W0 + y.s * B @ A
    bound = 100 * rounding(A.size, gamma, V) * np.max(np.abs(B[:, 0] / B[:, 1]))
    assert np.max(np.abs(np.sum(gamma * V, axis=1))) <= bound < 1e-9
    assert np.min(np.abs(np.sum(y.G * V, axis=1))) > 1e-6


# X18


def in_a_wide_layer(name: str) -> MapInstance:
    """One layer of 8 × 6 with room for every rank-2 map: LoHa has 8 + 13 null directions of 56."""
    draw = np.random.default_rng(3)

    def new(*shape: int):
        return jnp.asarray(draw.standard_normal(shape))

    def pair():
        return Adapter(new(2, 6), new(8, 2))

    theta: Any = {
        "loha": lambda: maps.Loha(pair(), pair()),
        "lokr": lambda: maps.Lokr(new(2, 2), new(2, 3), new(4, 2)),
        "dora": lambda: maps.Dora(*pair(), new(8)),
    }[name]()
    W0, Y = new(8, 6), new(8, 6)
    theta, delta = {"only": theta}, {"only": jax.tree.map(jnp.ones_like, theta)}
    return MapInstance(lambda w: jnp.mean((w["only"] - Y) ** 4), {"only": W0}, theta, getattr(maps, name)(0.7), delta)


@pytest.mark.parametrize(("name", "dimension"), [("loha", 21), ("lokr", 5), ("dora", 4)])
def test_null_space_is_that_of_the_group(name, dimension, monkeypatch):
    """J's rank from NumPy; without the rows and columns of LoHa, or with one direction more, the count is wrong."""
    x = in_a_wide_layer(name)
    J = jax.jacfwd(lambda t: getattr(maps, name)(0.7)(x.base["only"], t).ravel())(x.theta["only"])
    flat = np.concatenate([np.asarray(leaf).reshape(48, -1) for leaf in jax.tree.leaves(J)], axis=1)
    assert flat.shape[1] - np.linalg.matrix_rank(flat) == dimension
    check = gauge_is_the_null_space(x)
    assert check.applicable
    assert check.holds
    assert not failures([gauge_leaves_the_weights(x)])
    monkeypatch.setattr(gauge, "DIMENSIONS", {**gauge.DIMENSIONS, name: lambda layer: dimension - 1})
    assert not gauge_is_the_null_space(x).holds


@pytest.mark.parametrize("name", ["lora", "rslora", "vera", "dora", "loha", "lokr"])
def test_curves_leave_the_weights_where_they_are(name):
    """The group itself: factors moved by exp(L) of a drawn generator, through the formulas, have the same W."""
    x, case = instance(name), CASES[name]
    draw = np.random.default_rng(0)
    for k, y in zip(sorted(SHAPES), x.layers, strict=True):
        generators = list(gauge.GENERATORS[name](y))
        assert len(generators) == gauge.dimension(name, y)
        weights = 0.3 * draw.standard_normal(len(generators))
        sizes = [f.size for f in y.factors]

        def move(v: np.ndarray, y=y, generators=generators, weights=weights, sizes=sizes) -> np.ndarray:
            parts = np.split(v, np.cumsum(sizes)[:-1])
            factors = tuple(p.reshape(f.shape) for p, f in zip(parts, y.factors, strict=True))
            moved = [L(factors) for L in generators]
            return weights @ np.stack([np.concatenate([f.ravel() for f in m]) for m in moved])

        theta = np.concatenate([f.ravel() for f in y.factors])
        L = np.stack([move(e) for e in np.eye(len(theta))], axis=1)
        moved = np.split(scipy.linalg.expm(L) @ theta, np.cumsum(sizes)[:-1])
        factors = [p.reshape(f.shape) for p, f in zip(moved, y.factors, strict=True)]
        before, after, near = (
            case.formula(np, ALPHA, y.W0, t, FROZEN[k])
            for t in (y.factors, factors, [1.000001 * factors[0], *factors[1:]])
        )
        atol = rounding(100, L, before)
        np.testing.assert_allclose(after, before, rtol=0, atol=atol)
        assert not np.allclose(near, before, rtol=0, atol=atol)


# X19


@pytest.mark.parametrize(("name", "degree"), [("lora_fa", 1), ("lora", 2), ("vera", 2), ("lokr", 3), ("loha", 4)])
def test_degree_of_the_polynomial_in_whole_numbers(name, degree):
    """Differences of W over t = 0, …, 5 along θ + tΔ, all of whole numbers: exact, whatever the arithmetic.

    The degree-th one is degree! times the highest term, those beyond are 0.
    """
    draw = np.random.default_rng(2)
    layer = instance(name).layers[0]
    theta, delta = ([draw.integers(-3, 4, f.shape) for f in layer.factors] for _ in range(2))
    A, B = (jnp.asarray(draw.integers(-3, 4, f.shape), float) for f in FROZEN["a"])
    whole = Adapter(A, B)
    W = np.stack(
        [
            CASES[name].formula(np, RANK, 0 * layer.W0, [f + t * d for f, d in zip(theta, delta, strict=True)], whole)
            for t in range(6)
        ]
    )
    assert np.any(np.diff(W, degree, axis=0))
    assert not np.any(np.diff(W, degree + 1, axis=0))
    if name in remainder.TERMS:
        at = layer._replace(factors=tuple(theta), s=1.0)
        third, fourth = remainder.TERMS[name](at, tuple(delta))
        np.testing.assert_array_equal(np.diff(W, 4, axis=0)[0], 24 * fourth)
        np.testing.assert_array_equal(np.diff(W, 3, axis=0)[0], 6 * third + 36 * fourth)


@pytest.mark.parametrize("name", ["lokr", "loha", "dora"])
def test_half_of_the_second_derivative_left_out_is_noticed(name, monkeypatch):
    """The even part is of order 2 then, and the odd one stays of order 3."""
    right = remainder.taylor

    def halved(*arguments):
        before, after, first, second = right(*arguments)
        return before, after, first, jax.tree.map(lambda t: t / 2, second)

    monkeypatch.setattr(remainder, "taylor", halved)
    x = instance(name)
    assert remainder_is_cubic(x).holds
    assert not remainder_is_its_terms(x).holds
    even, _ = remainder.exponent(x, odd=False)
    assert abs(even - 2) < 0.1
    if name != "lokr":
        assert not remainder_is_quartic(x).holds


# α


def test_a_degree_that_is_a_little_off_is_noticed(monkeypatch):
    """w moves by 1e-9 of what α multiplies."""
    right = MapInstance.rescaled
    x = instance("lora")
    assert map_has_a_degree_in_alpha(x).holds

    def near(self, factor):
        there = right(self, factor)
        return MapInstance(
            there.loss, {k: (1 + 1e-9) * W for k, W in there.base.items()}, there.theta, there.adapter_map, there.delta
        )

    monkeypatch.setattr(MapInstance, "rescaled", near)
    assert not map_has_a_degree_in_alpha(x).holds


def test_another_function_is_no_map_of_these():
    with rejects("adapter_map", "lora, rslora"):
        _ = MapInstance(loss, BASE, CASES["ia3"].theta, lambda W0, scale: scale[:, None] * W0, CASES["ia3"].theta).kind
    mixed = {"a": maps.lora(1.0), "b": maps.rslora(1.0)}
    with rejects("adapter_map"):
        _ = MapInstance(loss, BASE, CASES["lora"].theta, mixed, CASES["lora"].theta).kind


def test_what_is_exported_is_what_is_checked():
    assert {statement.__name__ for statement in MAP_PROPOSITIONS} == set(adapter_maps.__all__) - {
        "MAPS",
        "MAP_PROPOSITIONS",
        "MapInstance",
    }
