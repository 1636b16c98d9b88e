"""Spectra of H_LoRA over α from one assembly a seed, against those assembled at every α."""

import numpy as np
import pytest
import xarray as xr

import signal_drift as sd
from experiments.curvature import purification


@pytest.mark.parametrize("problem", ["mlp", "transformer"])
def test_spectra_are_those_assembled_at_every_alpha(tiny, problem):
    """Error of an eigenvalue and of the assembly: 4·n·ε·‖H‖. The control: the wrong power of α."""
    config, data = tiny(purification.EXPERIMENT, problem)
    drawn, theta = config.problem.draw(0), config.problem.adapters(0)
    for alpha in config.alphas:
        parts = sd.decompose(drawn.loss, drawn.base, theta, config.problem.scaling(alpha))
        here = data.sel(seed=0, alpha=alpha)
        for name, op in (("lora", parts.lora), ("signal", parts.signal)):
            wanted = sd.eigenvalues(op)
            allowed = 4 * len(wanted) * np.finfo(float).eps * np.max(np.abs(wanted))
            assert np.allclose(here[name], wanted, rtol=0, atol=allowed)
        assert float(here.assembly_error) <= 1e-12
        drift = sd.eigenvalues(parts.drift)
        assert float(here.drift_max) == pytest.approx(drift[-1], rel=1e-10)
        assert int(here.pairs) == np.sum(drift > len(drift) * np.finfo(float).eps * drift[-1])
    first, last = data.sel(seed=0).isel(alpha=0), data.sel(seed=0).isel(alpha=-1)
    assert not np.allclose(config.alphas[-1] * first.signal, last.signal, rtol=1e-3, atol=0)


def _spectra(power: float) -> xr.Dataset:
    """λ[H_Signal] = α²·{1, 2} at two seeds, and H_LoRA's c·α^`power` above it, c of each seed."""
    alpha = np.array([1.0, 4.0, 16.0])
    signal = np.tile(alpha[:, None] ** 2 * np.array([1.0, 2.0]), (2, 1, 1))
    lora = signal + np.array([0.1, 0.3])[:, None, None] * alpha[:, None] ** power
    dims = ("seed", "alpha", "theta_index")
    bound = ("alpha", alpha)
    return xr.Dataset({"signal": (dims, signal), "lora": (dims, lora), "drift_max": bound}, {"alpha": alpha})


@pytest.mark.parametrize("power", [0.5, 2.1])
def test_distance_by_itself_has_two_powers_of_alpha_more_than_over_the_largest(power):
    """The control: a distance that grows faster than α² grows over λmax too."""
    data = _spectra(power)
    assert np.allclose(purification.distance_exponents(data, "absolute"), power, rtol=0, atol=1e-12)
    assert np.allclose(purification.distance_exponents(data, "mean"), power - 2, rtol=0, atol=1e-12)


def test_only_what_is_beyond_rounding_has_a_sign():
    """n·ε·‖H‖ = 6·2.2e-16·2 = 2.7e-15: two of the six values are negative, one positive."""
    spectrum = xr.DataArray([-1.0, -3e-15, -2e-15, 0.0, 2e-15, 2.0], dims="theta_index")
    counted = purification.signs(xr.Dataset({"lora": spectrum, "pairs": 1}))
    assert (int(counted.negative), int(counted.positive)) == (2, 1)
