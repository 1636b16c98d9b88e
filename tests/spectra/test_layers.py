"""The per-layer view against slices of the whole matrices, taken by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import AWAY_FROM_INIT, EPS, flat, problem, rejects

import signal_drift as sd
from signal_drift.jaxpr import equations
from signal_drift.spectra.layers import OPERATORS


def ends(x, name):
    """First and last index of every layer, in the order that the package declares."""
    sizes = [x.base[k].size if name == "task" else len(flat({k: x.adapters[k]})) for k in sorted(x.base)]
    return dict(zip(sorted(x.base), np.cumsum([0, *sizes]), strict=False)), dict(
        zip(sorted(x.base), sizes, strict=True)
    )


@pytest.fixture(params=AWAY_FROM_INIT, scope="module")
def x(request):
    return problem(request.param)


@pytest.mark.parametrize("name", OPERATORS)
def test_the_operators_of_one_layer_are_blocks_of_the_whole(x, name):
    whole = np.asarray(getattr(sd.decompose(x.loss, x.base, x.adapters, x.scaling), name).dense())
    start, size = ends(x, name)
    for k in x.base:
        block = getattr(sd.decompose_layer(x.loss, x.base, x.adapters, x.scaling, k), name).dense()
        rows = slice(start[k], start[k] + size[k])
        np.testing.assert_allclose(block, whole[rows, rows], rtol=0, atol=1e3 * EPS * np.max(np.abs(whole)))


def test_products_with_one_layer_build_nothing_of_its_square():
    """No array is larger than a layer of activations or weights; a dense block, the control, is."""
    P = problem("mlp")
    most = max(W.size for W in P.base.values()) + 6 * 5  # and what is computed of six inputs at the widest layer
    for layer in P.base:
        parts = sd.decompose_layer(P.loss, P.base, P.adapters, P.scaling, layer)
        for op in (parts.task, parts.signal, parts.drift, parts.lora):
            assert largest(lambda v, op=op: op @ v, jnp.ones(op.shape[1])) <= most
        assert largest(lambda _, op=parts.signal: op.dense(), 0.0) > most


def largest(f, x):
    """The size of the largest array that f computes."""
    return max(y.aval.size for equation in equations(jax.make_jaxpr(f)(x)) for y in equation.outvars)


def test_the_table_says_what_the_blocks_are(x):
    parts = sd.decompose(x.loss, x.base, x.adapters, x.scaling)
    views = sd.layer_views(parts, x.adapters)
    assert [view.layer for view in views] == sorted(x.base)
    for name in OPERATORS:
        H = np.asarray(getattr(parts, name).dense())
        start, size = ends(x, name)
        for view in views:
            rows, block = slice(start[view.layer], start[view.layer] + size[view.layer]), getattr(view, name)
            values = np.linalg.eigvalsh(H[rows, rows])
            atol = 1e3 * EPS * float(np.linalg.norm(H))
            np.testing.assert_allclose([block.smallest, block.largest], values[[0, -1]], rtol=0, atol=atol)
            assert block.trace == pytest.approx(values.sum(), abs=atol)
            assert block.norm_share == pytest.approx(np.sum(values**2) / np.sum(H**2), abs=1e-12)
        shares = [getattr(view, name).trace_share for view in views]
        assert np.all(np.isnan(shares)) if name == "drift" else sum(shares) == pytest.approx(1, rel=1e-9)
        assert sum(getattr(view, name).norm_share for view in views) <= 1 + 1e-12
    total = sum(view.drift.norm_share for view in views)
    assert total == pytest.approx(1, rel=1e-12)  # H_Drift has no blocks between layers


def test_coupled_layers_leave_a_part_of_the_norm_between_them():
    x = problem("indefinite")
    views = sd.layer_views(sd.decompose(x.loss, x.base, x.adapters, x.scaling), x.adapters)
    assert sum(view.task.norm_share for view in views) < 0.9


def test_each_layer_has_its_own_alpha():
    """V2 of N(0, 1/d_in) is √(r d_in); of 400 entries the root mean square is within 14% (four standard errors)."""
    base = {"narrow": jnp.zeros((3, 10)), "wide": jnp.zeros((2, 40))}
    adapters = sd.init_adapters(jax.random.key(0), base, {"narrow": 40, "wide": 10})
    small = {name: jnp.eye(sum(sizes)) for name, sizes in SIZES.items()}
    narrow, wide = sd.layer_views(small, adapters)
    assert (narrow.alpha_set, wide.alpha_set) == (pytest.approx(20), pytest.approx(20))
    for view in (narrow, wide):
        assert view.alpha_measured == pytest.approx(view.alpha_set, rel=0.14)
        assert view.alpha_measured != view.alpha_set
    (other, _) = sd.layer_views(small, adapters, sigma_a={"narrow": 0.5, "wide": 1.0})
    assert other.alpha_set == pytest.approx(2 * 40**0.5)
    assert (narrow.shape, narrow.rank) == ((3, 10), 40)


SIZES = {"task": (30, 80)} | dict.fromkeys(("signal", "drift", "lora"), (13 * 40, 42 * 10))


def test_unknown_layer_is_named():
    x = problem("mlp")
    with rejects("layer", "'typo'"):
        sd.decompose_layer(x.loss, x.base, x.adapters, x.scaling, "typo")
