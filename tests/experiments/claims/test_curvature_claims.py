"""Claims on curvature on synthetic results of which the truth is known: true laws are supported, false ones refuted."""

import numpy as np
import pytest
import xarray as xr

from experiments.claims import curvature as hessians
from experiments.claims import traces
from experiments.curvature import asymmetric_scaling, purification, suppression
from experiments.ledger.verdict import verdict
from experiments.problems import PROBLEMS

SEEDS = range(5)
MLP = PROBLEMS["mlp"]


def _powers(signal: float, drift: float, limit: float, noise: float) -> xr.Dataset:
    """Extremes with known exponents and log-normal noise over seeds."""
    alpha, rng = np.array(asymmetric_scaling.Config(MLP).alphas), np.random.default_rng(0)

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
    assert verdict(hessians.asymmetric(asymmetric_scaling.Config(MLP), _powers(*truth))) == wanted


def _draws(config: suppression.Config, law: np.ndarray, bias: float, deviation: np.ndarray) -> xr.Dataset:
    """Normal draws around `bias` times the law, of the deviation that is stored beside them, at any α."""
    noise = np.random.default_rng(1).standard_normal((*law.shape, config.draws))
    draws, dims = bias * law[..., None] + deviation[..., None] * noise, ("seed", "rank")
    shrinks = _law(config)  # at α = √r/σ_A the trace is not shrunk
    return xr.Dataset(
        {
            "draws": ((*dims, "draw"), draws),
            "predicted": (dims, law),
            "deviation": (dims, deviation),
            "aligned": ((*dims, "draw"), draws / shrinks[..., None]),
            "aligned_deviation": (dims, deviation / shrinks),
            "task": (("seed", "task_index"), np.full((len(SEEDS), 2), 0.5)),
        },
        {"rank": list(config.ranks)},
    )


def _law(config: suppression.Config) -> np.ndarray:
    """The trace of H_ℓ is 1, α²σ_A² is 50."""
    return np.tile(50 / np.array(config.ranks), (len(SEEDS), 1))


@pytest.mark.parametrize(("bias", "wanted"), [(1.0, "supported"), (1.1, "refuted"), (0.5, "refuted")])
def test_trace_law(bias: float, wanted: str) -> None:
    """The deviation of a draw is a tenth of the law: every rank has a ratio."""
    config = suppression.Config(MLP)
    law = _law(config)
    data = _draws(config, law, bias, 0.1 * law)
    assert len(traces.trace_law(config, data)) == 1 + len(config.ranks)
    assert verdict(traces.trace_law(config, data)) == wanted
    assert verdict(traces.trace_law(config, data, traces.without_rank)) == "refuted"
    assert verdict(traces.traces_follow(config, data)) == wanted
    assert verdict(traces.traces_follow(config, data, traces.reversed_ranks)) == "refuted"
    assert verdict(traces.preserved(config, data)) == wanted
    assert verdict(traces.preserved_at_rank(config, data)) == "refuted"


@pytest.mark.parametrize(("sign", "wrong"), [(1.0, "refuted"), (-1.0, "refuted"), (0.0, "supported")])
def test_trace_law_where_the_trace_is_near_zero_is_judged_in_standard_errors_alone(sign: float, wrong: str) -> None:
    """A law of 1% to 60% of a draw's deviation at 200 draws: no ratio, and only a law of exactly 0 has no rank."""
    config = suppression.Config(MLP)
    law = _law(config)
    data = _draws(config, sign * law, 1.0, np.full_like(law, 80.0))
    (score,) = traces.trace_law(config, data)
    assert score.verdict == "supported"
    assert "no ratio at r = 1, 2, 4, 8, 16, 32, 64" in score.quantity
    assert verdict(traces.traces_follow(config, data)) == "supported"
    assert verdict(traces.trace_law(config, data, traces.without_rank)) == wrong
    far = _draws(config, sign * law, 1.0, np.full_like(law, 80.0))
    far = far.assign(draws=far.draws + 80.0)
    assert verdict(traces.trace_law(config, far)) == "refuted"


@pytest.mark.parametrize(
    ("top", "trace", "wanted"), [(1.2, 1.02, "supported"), (4.0, 1.02, "refuted"), (1.2, 1.5, "refuted")]
)
def test_suppression(top: float, trace: float, wanted: str) -> None:
    """λmax and the trace of H_Signal at so many times their predictions; the trace is asked only if away from 0."""
    config = suppression.Config(MLP)
    task = np.tile([3.0, 1.0, -1.0], (len(SEEDS), 1)) * (1 + 0.01 * np.arange(5))[:, None]
    signal = task * np.array([top, 1.0, 1.0])
    signal[:, 1] += trace * task.sum(1) - signal.sum(1)
    data = xr.Dataset(
        {
            "compressed": (("seed", "task_index"), task),
            "signal": (("seed", "theta_index"), signal),
            "own_deviation": ("seed", 0.3 * task.sum(1)),
        }
    )
    assert verdict(traces.suppressed(config, data)) == wanted
    assert verdict(traces.suppressed(config, data, rank=16)) == "refuted"
    noisy = data.assign(own_deviation=2 * data.own_deviation)
    assert [finding.quantity[:4] for finding in traces.suppressed(config, noisy)] == ["λmax"]


@pytest.mark.parametrize(
    ("lowest", "approach", "wanted"), [(-0.1, -1.0, "refuted"), (0.0, -1.0, "supported"), (0.0, 0.5, "refuted")]
)
def test_purification(lowest: float, approach: float, wanted: str) -> None:
    """λ[H_LoRA] = λ[H_Signal] ∓ c·α^approach at both ends, relative to the largest."""
    config, rng = purification.Config(MLP), np.random.default_rng(2)
    alpha = np.array(config.alphas)
    limit = np.linspace(lowest, 1.0, 9)
    signal = np.tile(limit, (len(SEEDS), len(alpha), 1))
    gap = (0.2 + 0.01 * rng.random((len(SEEDS), 1))) * alpha**approach
    lora = signal - gap[..., None] * np.linspace(1, -1, 9)
    dims = ("seed", "alpha", "theta_index")
    data = xr.Dataset({"signal": (dims, signal), "lora": (dims, lora), "drift_max": (dims[:2], gap)}, {"alpha": alpha})
    assert verdict(hessians.purified(config, data)) == wanted


@pytest.mark.parametrize(("lowest", "wanted"), [(-0.3, "refuted"), (0.0, "supported"), (-2.0, "refuted")])
def test_premise_and_its_control(lowest: float, wanted: str) -> None:
    """λmin at so many times λmax at every seed: only as far below 0 as above is the control supported."""
    config, tops = purification.Config(MLP), 1.0 + np.arange(5.0)
    ends = np.stack([lowest * tops, tops], 1)[:, None]
    dims = ("seed", "alpha", "end")
    data = xr.Dataset({"task_extremes": (dims, ends), "lora": ("theta_index", np.zeros(9))})
    (found,) = hessians.premise(config, data)
    assert found.estimate.mean == pytest.approx(lowest)
    assert found.verdict == wanted
    assert verdict(hessians.mostly_negative(config, data)) == ("supported" if lowest <= -1 else "refuted")


@pytest.mark.parametrize("claim", [*traces.CLAIMS, *hessians.CLAIMS], ids=lambda claim: claim.id)
def test_a_problem_without_matrices_is_decided_by_its_own_evidence(claim) -> None:
    """P3, F8a, F8c, F8d and the premise of P2 are, K1 and F8b need the traces of the matrices."""

    def decided_by(problem: str) -> str | None:
        experiments = [evidence.plain.experiment for evidence in claim.evidence]
        return next((x.name for x in experiments if not x.refuses(PROBLEMS[problem])), None)

    wanted = {"P3-trace": "layers", "F8a-suppression": "layers", "K1-alignment": None, "F8b-trace-by-rank": None}
    assert decided_by("minilm") == wanted.get(claim.id, "spectra_at_scale")
    assert decided_by("mlp") == decided_by("transformer") == claim.evidence[0].plain.experiment.name
