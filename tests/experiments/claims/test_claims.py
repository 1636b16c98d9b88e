"""Claims on synthetic results of which the truth is known: true laws are supported, false ones refuted."""

from functools import partial

import numpy as np
import pytest
import xarray as xr
from problems import matrix_operator

import signal_drift as sd
from experiments.analysis.intervals import mean_interval
from experiments.claims import curvature as hessians
from experiments.claims import traces
from experiments.claims.verdict import Band, Finding, verdict
from experiments.curvature import asymmetric_scaling, purification
from experiments.curvature import suppression as spectral_suppression
from experiments.tuning import magnitudes

SEEDS = range(5)


def _powers(signal: float, drift: float, limit: float, noise: float) -> xr.Dataset:
    """Extremes with known exponents and log-normal noise over seeds."""
    alpha, rng = np.array(asymmetric_scaling.Config().alphas), np.random.default_rng(0)

    def law(exponent: float) -> tuple[tuple[str, ...], np.ndarray]:
        wiggle = np.exp(noise * rng.standard_normal((1, len(SEEDS), len(alpha))))
        return ("state", "seed", "alpha"), alpha**exponent * wiggle

    coords = {"alpha": alpha, "seed": SEEDS, "state": ["initial"]}
    data = xr.Dataset({"signal_max": law(signal), "drift_min": law(drift)}, coords)
    return data.assign(lora_max=limit * data.signal_max)


@pytest.mark.parametrize(
    ("truth", "wanted"),
    [
        ((2.0, 1.0, 1.0, 0.01), "supported"),
        ((1.0, 1.0, 1.0, 0.01), "refuted"),
        ((2.0, 2.0, 1.0, 0.01), "refuted"),
        ((2.0, 1.0, 1.2, 0.01), "refuted"),
        ((2.0, 1.0, 1.0, 2.0), "inconclusive"),
    ],
)
def test_asymmetry(truth: tuple[float, ...], wanted: str) -> None:
    assert verdict(hessians.asymmetric(asymmetric_scaling.Config(), _powers(*truth))) == wanted


@pytest.mark.parametrize(("bias", "wanted"), [(1.0, "supported"), (1.1, "refuted"), (0.5, "refuted")])
def test_trace_law(bias: float, wanted: str) -> None:
    """Normal draws around `bias` times the law, of the deviation that is stored beside them."""
    config, rng = spectral_suppression.Config(), np.random.default_rng(1)
    data = xr.Dataset({"task": (("seed", "task_index"), np.tile(np.linspace(-1, 3, 50), (len(SEEDS), 1)))})
    mean = spectral_suppression.predicted_traces(config, data)
    deviation = 0.1 * mean
    noise = rng.standard_normal((*mean.shape, config.draws))
    data = data.assign(
        draws=(("seed", "rank", "draw"), bias * mean[..., None] + deviation[..., None] * noise),
        deviation=(("seed", "rank"), deviation),
    )
    assert verdict(traces.trace_law(config, data)) == wanted
    assert verdict(traces.trace_law(config, data, traces.without_rank)) == "refuted"


@pytest.mark.parametrize(
    ("lowest", "approach", "wanted"), [(-0.1, -1.0, "refuted"), (0.0, -1.0, "supported"), (0.0, 0.5, "refuted")]
)
def test_purification(lowest: float, approach: float, wanted: str) -> None:
    """λ[H_LoRA] = λ[H_Signal] ∓ c·α^approach at both ends, relative to the largest."""
    config, rng = purification.Config(), np.random.default_rng(2)
    alpha = np.array(config.alphas)
    limit = np.linspace(lowest, 1.0, 9)
    signal = np.tile(limit, (len(SEEDS), len(alpha), 1))
    gap = (0.2 + 0.01 * rng.random((len(SEEDS), 1))) * alpha**approach
    lora = signal - gap[..., None] * np.linspace(1, -1, 9)
    dims = ("seed", "alpha", "theta_index")
    data = xr.Dataset({"signal": (dims, signal), "lora": (dims, lora), "drift_max": (dims[:2], gap)}, {"alpha": alpha})
    assert verdict(hessians.purified(config, data)) == wanted


def test_eigenvalue_without_a_certificate_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search that was stopped gives NaN, whatever it found so far, and NaN is inconclusive."""
    op = matrix_operator(np.diag(np.linspace(-1.0, 2.0, 40)))
    full = asymmetric_scaling.certified(op, which="both", tolerance=1e-8)
    assert np.allclose(full.values, [-1.0, 2.0], rtol=0, atol=4e-8)
    monkeypatch.setattr(sd, "extreme_eigenvalues", partial(sd.extreme_eigenvalues, max_products=4))
    stopped = asymmetric_scaling.certified(op, which="both", tolerance=1e-8)
    assert np.isnan(stopped.values).all()
    assert Finding("x", Band(-np.inf, np.inf, ""), mean_interval(stopped.values)).verdict != "refuted"
    assert Finding("x", Band(0.0, np.inf, ""), mean_interval(stopped.values)).verdict == "inconclusive"


def test_printed_table_is_refuted_by_another_coefficient() -> None:
    config = magnitudes.Config(coefficient=255.0)
    assert verdict(hessians.magnitudes_stated(config, magnitudes.measure(config))) == "refuted"
    config = magnitudes.Config()
    assert verdict(hessians.magnitudes_stated(config, magnitudes.measure(config))) == "supported"
