"""The statements on the transformer at tiny size: what follows by algebra holds, and a wrong formula does not."""

import numpy as np
import pytest

from experiments.curvature import transformer_curvature, transformer_scaling
from experiments.dynamics import transformer_dynamics, transformer_updates
from experiments.dynamics.update_scaling import FAMILIES, FORGETFUL
from experiments.lab.experiment import results


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("transformer")


def stored(module, folder):
    return results(module.EXPERIMENT, module.EXPERIMENT.quick, folder)


def test_trace_follows_the_law_and_refutes_it_without_the_rank(folder):
    """Of six z-scores none exceeds 4 (chance 4·10⁻⁴); without 1/r those at r = 8 are tens of standard errors off."""
    data = stored(transformer_curvature, folder)
    assert abs(transformer_curvature.estimates(data)["z of Tr H_Signal"].mean) < 4 / 6**0.5
    assert np.max(np.abs(transformer_curvature.z_scores(data))) < 4
    wrong = data.assign(predicted=data.predicted * data["rank"])
    assert np.min(np.abs(transformer_curvature.z_scores(wrong)[:, -1])) > 4


def test_estimates_of_the_curvature_follow_the_store(folder):
    data = stored(transformer_curvature, folder)
    measured = transformer_curvature.estimates(data)
    ends = [data[name].sel(state="initial").values for name in ("task_min", "task_max")]
    assert measured["λmin/‖H_ℓ‖, initial"].mean == pytest.approx(
        np.mean([low / max(-low, high) for low, high in zip(*ends, strict=True)])
    )
    definite = transformer_curvature.estimates(data.assign(task_min=0 * data.task_min))
    assert definite["λmin/‖H_ℓ‖, initial"].mean == 0
    shares = transformer_curvature.layer_estimates(data, "signal", "trace_share", "initial")
    assert sum(share.mean for share in shares.values()) == pytest.approx(1, rel=1e-9)
    assert len(shares) == 6


def test_at_initialisation_the_powers_of_alpha_are_exact(folder):
    """The control: neither power is that of the other operator."""
    data = stored(transformer_scaling, folder)
    measured = transformer_scaling.estimates(data)
    assert measured["signal_max", "initial"].mean == pytest.approx(2, abs=1e-9)
    assert measured["drift_min", "initial"].mean == pytest.approx(1, abs=1e-9)
    assert np.all(data.signal_max <= data.lora_max * (1 + 1e-9) + data.drift_min)  # Weyl


def test_at_the_second_step_the_ratio_falls_with_eta_and_not_with_alpha(folder):
    config, data = transformer_dynamics.EXPERIMENT.quick, stored(transformer_dynamics, folder)
    second = (data.signal / data.drift).drop_sel(run="FFT").isel(step=1)
    eta, alpha = (transformer_dynamics.slope(config, second, family).mean for family in FAMILIES)
    assert abs(eta + 1) < 0.15 < abs(alpha + 1)
    assert abs(alpha) < 0.15 < abs(eta)
    assert {"exponent of η", "exponent of α", "128·α₀ over 64·η₀"} <= set(transformer_dynamics.estimates(config, data))


def test_away_from_zero_the_exponents_of_adam_are_those_stated_and_those_of_gradient_descent_are_not(folder):
    data = stored(transformer_updates, folder)

    def distance(optimizer):
        measured = transformer_updates.estimates(data, optimizer)
        return max(abs(measured[k, f].mean - e[i]) for k, e in FORGETFUL.items() for i, f in enumerate(FAMILIES))

    assert distance("Adam") < 1e-9
    assert distance("GD") > 0.9
