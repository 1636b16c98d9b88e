"""Every layer's own blocks and traces, by search and by random signs, against dense matrices."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from problems import problem, rounding

import signal_drift as sd
from experiments.curvature import layers
from experiments.problems import PROBLEMS
from signal_drift.spectra.layers import Block


@pytest.fixture(scope="module")
def point():
    config = replace(layers.EXPERIMENT.at(PROBLEMS["minilm"], quick=True), probes=200)
    return config, config.problem.draw(0), config.problem.adapters(0)


@pytest.mark.parametrize("name", ["mlp", "indefinite"])
def test_block_of_a_layer_is_that_of_the_whole(name):
    """Non-square layers, B ≠ 0."""
    P, start = problem(name), 0
    whole = np.asarray(sd.decompose(P.loss, P.base, P.adapters, P.scaling).task.dense())
    for layer, W0 in sorted(P.base.items()):
        block = whole[start : start + W0.size, start : start + W0.size]
        found = sd.decompose_layer(P.loss, P.base, P.adapters, P.s, layer).task.dense()
        assert np.allclose(found, block, rtol=0, atol=rounding(P.D, whole))
        start += W0.size


def test_blocks_by_search_are_those_of_the_dense_matrices(point):
    """Task, signal and drift of every layer, to the tolerance of the search; the other fields are not known."""
    config, drawn, theta = point
    s = config.problem.scaling(config.alpha)
    dense, found = layers.dense_blocks(drawn, theta, s), layers.searched_blocks(drawn, theta, s, config.tolerance)
    fields = Block._fields
    low, high = (dense[..., fields.index(name)] for name in ("smallest", "largest"))
    size = np.maximum(high, -low)
    allowed = np.array([config.tolerance, config.tolerance, 1e-9]) * size
    assert np.all(np.abs(found[..., fields.index("largest")] - high) <= allowed)
    assert np.isnan(np.delete(found, fields.index("largest"), axis=2)).all()


def test_table_is_stored(tiny):
    """In order of the layers: V2 with σ_A as set and as in A, the sum of the shares, and s²‖G‖ for the drift."""
    config, data = tiny(layers.EXPERIMENT, "mlp")
    theta = config.problem.adapters(0)
    for k, (A, _) in sorted(theta.items()):
        here = data.sel(layer=k, state="initial", seed=0)
        assert float(here.alpha_v2.sel(sigma="set")) == pytest.approx((config.problem.rank * A.shape[1]) ** 0.5)
        measured = config.problem.rank**0.5 / float(np.sqrt(np.mean(np.asarray(A) ** 2)))
        assert float(here.alpha_v2.sel(sigma="measured")) == pytest.approx(measured)
    shares = layers.norm_shares(data.assign(block=data.block), "signal", "initial")
    traces = data.block.sel(operator="signal", field="trace_share", state="initial").sum("layer")
    assert np.allclose(traces, 1, rtol=1e-9)
    assert 0 < sum(x.value for x in shares.values()) < 1
    assert len(shares) == config.problem.depth


def test_samples_have_the_exact_traces_as_their_means(point):
    """None of 12 z-scores, H_ℓ dense, exceeds 4.5 (chance 10⁻⁴); without the rank the largest does."""
    config, drawn, theta = point
    s, rank, sigma = config.problem.scaling(config.alpha), config.problem.rank, config.problem.sigma_a()
    task, start, exact = sd.decompose(drawn.loss, drawn.base, theta, 1.0).task.dense(), 0, []
    samples = layers.trace_samples(config, drawn, theta, 0)
    for layer, W0 in sorted(drawn.base.items()):
        trace = np.trace(task[start : start + W0.size, start : start + W0.size])
        exact.append(rank * s**2 * sigma[layer] ** 2 * trace)
        start += W0.size
    error = samples.std(1, ddof=1) / np.sqrt(config.probes)
    assert np.max(np.abs(samples.mean(1) - exact) / error) < 4.5
    assert np.max(np.abs(samples.mean(1) - rank * np.array(exact)) / error) > 4.5


def test_trace_scores_refute_a_wrong_factor(point):
    """The largest z over layers and the whole, of the same samples as above; four times the law is noticed."""
    config, drawn, theta = point
    data = _traces(layers.trace_samples(config, drawn, theta, 0), sorted(drawn.base))
    assert float(abs(layers.trace_scores(data)).max()) < 4.5
    assert float(abs(layers.trace_scores(data, 4.0)).max()) > 4.5


def _traces(samples: np.ndarray, names: list[str]) -> xr.Dataset:
    coords = {"side": ["measured", "predicted"], "layer": names}
    data = xr.Dataset({"trace": (("side", "probe", "layer"), samples)}, coords)
    return data.expand_dims(state=["initial"], seed=[0])
