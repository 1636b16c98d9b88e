"""Claims on runs and steps on synthetic results of which the truth is known: true laws hold, false ones do not."""

import numpy as np
import pytest
import xarray as xr

from experiments.claims import dynamics as trajectories
from experiments.claims import steps
from experiments.dynamics import optimizer_gauge, signal_descent
from experiments.dynamics.eta_against_alpha import Families
from experiments.ledger.verdict import Finding, verdict
from experiments.problems import PROBLEMS

SEEDS = range(5)


@pytest.mark.parametrize(
    ("word", "loss"), [("stable", [4, 3, 2, 1.0]), ("oscillates", [4, 1, 2, 1.0]), ("diverges", [4, 5, 6, 7.0])]
)
def test_word_for_a_run(word: str, loss: list[float]) -> None:
    data = xr.Dataset({"loss": (("seed", "run", "time"), np.tile(np.repeat(loss, 10), (5, 1, 1)))}, {"run": ["m"]})
    for stated in ("stable", "oscillates", "diverges"):
        assert trajectories.does(data, "m", stated).verdict == ("supported" if stated == word else "refuted")


def test_purity_at_every_step_is_refuted_by_a_few_steps() -> None:
    """Both families at three multipliers; α is ahead on average, and behind at a tenth of the steps."""
    config = Families(PROBLEMS["mlp"], eta_multipliers=(32.0,), alpha_multipliers=(32.0,))
    steps_ = np.arange(40)
    ahead = np.where(steps_ % 10 == 5, 0.5, 5.0)
    signal = np.stack([np.ones(40), ahead])
    data = xr.Dataset(
        {"signal": (("seed", "run", "step"), np.tile(signal, (5, 1, 1))), "drift": (("run",), [1.0, 1.0])},
        {"run": ["32·η₀", "32·α₀"]},
    )
    assert verdict(trajectories.purer(config, data)) == "supported"
    assert verdict(trajectories.purer(config, data, swapped=True)) == "refuted"
    assert verdict(trajectories.purer_at_every_step(config, data)) == "refuted"


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
