"""Ends, shares and crossovers against dense matrices, and what they are read from."""

import dataclasses

import numpy as np
import pytest
from problems import EPS

import signal_drift as sd
from experiments.analysis.ends import spectral_norms
from experiments.curvature import is_it_curvature as curvature
from experiments.lab.errors import OptionError


@pytest.fixture
def at(tiny):
    return tiny(curvature.EXPERIMENT, "mlp")


def dense(config, start, name):
    """A dense matrix at one point, and the gradient, from their definitions."""
    drawn = config.problem.draw(0)
    base, theta = curvature.begun(config, drawn, start, 0, config.alpha, "float64")
    s = config.problem.scaling(config.alpha)
    return np.asarray(getattr(sd.decompose(drawn.loss, base, theta, s), name).dense()), theta


@pytest.mark.parametrize("start", curvature.STARTS)
def test_ends_are_those_of_the_dense_matrices(at, start):
    """The whole, and the block of every layer cut out of it; the search stops at tolerance·‖H‖."""
    config, data = at
    for name in ("signal", "lora"):
        H, theta = dense(config, start, name)
        bound = (2 * config.tolerance + 1e3 * len(H) * EPS) * np.linalg.norm(H, 2)
        here = data.sel(start=start, seed=0, operator=name)
        np.testing.assert_allclose(here.whole.sel(alpha=config.alpha), np.linalg.eigvalsh(H)[[0, -1]], atol=bound)
        first = 0
        for layer in sorted(theta):
            size = sum(x.size for x in theta[layer])
            block = H[first : first + size, first : first + size]
            np.testing.assert_allclose(here.block.sel(layer=layer), np.linalg.eigvalsh(block)[-1], atol=bound)
            first += size


@pytest.mark.parametrize("start", curvature.STARTS)
def test_the_gradients_norm_is_the_drifts_largest_eigenvalue(at, start):
    config, data = at
    H, _ = dense(config, start, "drift")
    found = float(data.whole_drift.sel(start=start, seed=0, alpha=config.alpha))
    assert abs(found - np.linalg.eigvalsh(H)[-1]) <= 1e2 * len(H) * EPS * np.linalg.norm(H, 2)


def test_starts_leave_the_pretrained_weights_but_the_trained_one(at):
    config, _ = at
    drawn, s = config.problem.draw(0), config.problem.scaling(config.alpha)
    for start in curvature.STARTS:
        base, theta = curvature.begun(config, drawn, start, 0, config.alpha, "float64")
        gap = max(float(np.max(abs(W - drawn.base[k]))) for k, W in sd.effective_weights(base, theta, s).items())
        assert (gap > 1e-6) == (start == "trained")


def test_at_the_crossover_both_are_equal(at):
    """Measured again at α_c: s·σ₁(G) and λmax[H_Signal] meet there, and not at an α a tenth larger."""
    config, data = at
    _, whole = curvature.crossovers(config, data)
    drawn, theta = config.problem.draw(0), config.problem.adapters(0)
    for factor, equal in ((1.0, True), (1.1, False)):
        s = config.problem.scaling(factor * float(whole.sel(seed=0)))
        signal = sd.eigenvalues(sd.decompose(drawn.loss, drawn.base, theta, s).signal)[-1]
        drift = s * max(spectral_norms(drawn.loss, drawn.base).values())
        assert (abs(signal / drift - 1) <= 10 * config.tolerance) == equal


def test_share_is_none_where_all_is_the_gradients_and_all_where_there_is_none(at):
    _, data = at
    top = data.whole.sel(operator="lora", end="max")
    assert np.nanmax(abs(curvature.share(top, top))) == 0
    assert np.nanmin(curvature.share(0 * top, top)) == 1
    shares = curvature.whole_share(data).sel(start="LoRA")
    assert np.all(np.diff(shares.transpose("seed", "alpha").values) > 0), "the signal grows faster than the drift"


def test_chosen_layers_are_evenly_spread_by_depth():
    names = {f"layers.{k}.q": 0 for k in range(12)}
    ordered = curvature.by_depth(names)
    assert ordered[2:] == [f"layers.{k}.q" for k in range(2, 12)]
    assert curvature.evenly(ordered, 3) == ["layers.0.q", "layers.6.q", "layers.11.q"]
    assert curvature.evenly(ordered, 64) == ordered
    assert curvature.evenly(ordered[:1], 4) == ordered[:1]
    assert curvature.evenly(ordered, 0) == []


def test_alpha_must_be_one_of_those_measured(at):
    config, _ = at
    with pytest.raises(OptionError, match="alpha: must be one of alphas, got 3"):
        dataclasses.replace(config, alpha=3.0)


def test_figure_has_three_panels(at):
    config, data = at
    figure = curvature.report(config, data).figures["is_it_curvature"]()
    assert len(figure.axes) == 3
