"""The powers of α at B = 0, exact whatever the model."""

import numpy as np
import pytest

from experiments.curvature import asymmetric_scaling


@pytest.mark.parametrize("problem", ["mlp", "transformer"])
def test_at_initialisation_the_powers_of_alpha_are_exact(tiny, problem):
    """The control: neither power is that of the other operator."""
    _, data = tiny(asymmetric_scaling.EXPERIMENT, problem)
    assert asymmetric_scaling.fitted(data, "signal_max", "initial").value == pytest.approx(2, abs=1e-9)
    assert asymmetric_scaling.fitted(data, "drift_min", "initial").value == pytest.approx(1, abs=1e-9)
    assert np.all(data.signal_max <= data.lora_max * (1 + 1e-9) + data.drift_min)  # Weyl
