"""Spectra of H_LoRA over α from one assembly a seed, against those assembled at every α."""

import numpy as np
import pytest

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
