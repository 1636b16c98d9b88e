"""Claims on runs and steps on synthetic results of which the truth is known: true laws hold, false ones do not."""

import numpy as np
import pytest
import xarray as xr

from experiments.claims.lora_alpha import dynamics as trajectories
from experiments.claims.lora_alpha import steps
from experiments.dynamics import signal_descent
from experiments.dynamics.eta_against_alpha import Families
from experiments.gauge import optimizer_gauge
from experiments.ledger.verdict import Finding, decide
from experiments.problems import PROBLEMS

SEEDS = range(10)


def verdict(findings: list[Finding]) -> str:
    return decide(findings).verdict


@pytest.mark.parametrize(
    ("word", "loss"), [("stable", [4, 3, 2, 1.0]), ("oscillates", [4, 1, 2, 1.0]), ("diverges", [4, 5, 6, 7.0])]
)
def test_word_for_a_run(word: str, loss: list[float]) -> None:
    data = xr.Dataset({"loss": (("seed", "run", "time"), np.tile(np.repeat(loss, 10), (10, 1, 1)))}, {"run": ["m"]})
    for stated in ("stable", "oscillates", "diverges"):
        found = trajectories.does(data, "m", stated)
        assert verdict([found]) == ("supported" if stated == word else "refuted")
        if stated != word:
            assert "at 0 of 10 seeds; the paper says" in found.words


def test_a_word_at_five_seeds_is_not_decided() -> None:
    """0 of 5 leaves up to 52% open: more seeds are needed, and added."""
    data = xr.Dataset(
        {"loss": (("seed", "run", "time"), np.tile(np.repeat([4, 3, 2, 1.0], 10), (5, 1, 1)))}, {"run": ["m"]}
    )
    assert verdict([trajectories.does(data, "m", "diverges")]) == "inconclusive"


def test_purity_at_every_step_is_refuted_by_a_few_steps() -> None:
    """Both families at three multipliers; α is ahead on average, and behind at a tenth of the steps."""
    config = Families(PROBLEMS["mlp"], eta_multipliers=(32.0,), alpha_multipliers=(32.0,))
    steps_ = np.arange(40)
    ahead = np.where(steps_ % 10 == 5, 0.5, 5.0)
    signal = np.stack([np.ones(40), ahead])
    data = xr.Dataset(
        {"signal": (("seed", "run", "step"), np.tile(signal, (10, 1, 1))), "drift": (("run",), [1.0, 1.0])},
        {"run": ["32·η₀", "32·α₀"]},
    )
    data["signal"] = data.signal * xr.DataArray(np.exp(0.01 * np.arange(10)), dims="seed")
    assert verdict(trajectories.purer(config, data)) == "supported"
    assert verdict(trajectories.purer(config, data, swapped=True)) == "refuted"
    (found,) = trajectories.purer_at_every_step(config, data)
    assert verdict([found]) == "refuted"
    assert "at 40 of 390 steps" in found.words  # 4 of 39 at each seed: the first step has no drift
    always = data.assign(signal=data.signal.where(data.run == "32·η₀", 5.0))
    assert verdict(trajectories.purer_at_every_step(config, always)) == "supported"


@pytest.mark.parametrize(("ascending", "wanted"), [(0, "supported"), (3, "refuted")])
def test_descent_is_refuted_by_a_few_ascending_steps(ascending: int, wanted: str) -> None:
    config = signal_descent.Config(PROBLEMS["mlp"])
    alignment = np.ones((len(SEEDS), 2, 100))
    alignment[:, 0, :ascending] = -1
    data = xr.Dataset(
        {"alignment": (("seed", "momentum", "step"), alignment)}, {"momentum": list(config.momenta)}
    ).expand_dims(["family", "multiplier"])
    found: list[Finding] = steps.ascends_never(config, data, momentum=0)
    assert verdict(found) == wanted
    assert verdict(steps.ascends_never(config, data, momentum=1)) == "supported"


@pytest.mark.parametrize(("drift", "wanted"), [(1e-15, "supported"), (1e-14, "refuted")])
def test_factors_that_are_no_powers_of_two(drift: float, wanted: str) -> None:
    """The gauge pair is driven apart by `drift`, one unit of rounding in A₀ by 1e-15."""
    names = [optimizer_gauge.INEXACT, optimizer_gauge.YARDSTICK]
    far = np.array([drift, 1e-15])[None, :, None] * np.linspace(0.9, 1.1, len(SEEDS))[:, None, None]
    data = xr.Dataset({"distance": (("seed", "pair", "step"), far)}, {"pair": names})
    assert verdict(steps.to_rounding(optimizer_gauge.Config(PROBLEMS["mlp"]), data)) == wanted


@pytest.mark.parametrize(("factor", "wanted"), [(1.0, "supported"), (1.4, "refuted"), (0.7, "refuted")])
def test_ratio_that_tends_to_twice_the_steps(factor: float, wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Families(PROBLEMS["mlp"])
    noise = np.exp(0.02 * np.random.default_rng(0).standard_normal(10))
    monkeypatch.setattr(steps, "ratio_over_x14", lambda config, data: {"128·η₀": factor * noise})
    assert verdict(steps.tends_to_two_steps(config, xr.Dataset())) == wanted


def test_gauge_pairs_are_judged_at_the_worst_seed_and_false_ones_at_the_nearest() -> None:
    far = xr.Dataset(
        {"distance": (("seed", "pair", "step"), np.array([[[0.0], [0.3]], [[0.0], [0.02]]]))},
        {"pair": ["true", "false"]},
    )
    config = optimizer_gauge.Config(PROBLEMS["mlp"])
    assert verdict(steps.apart(("true",), config, far)) == "supported"
    (least,) = steps.apart(("false",), config, far, least=True)
    assert least.estimate.value == 0.02
    assert verdict([least]) == "refuted"
    far.distance[1, 0, 0] = 1e-17
    assert verdict(steps.apart(("true",), config, far)) == "refuted"
