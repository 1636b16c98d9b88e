"""The update over the rank: against closed forms of the first step, at ranks below and above the inputs of a layer."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from experiments.claims import rslora, without_regret
from experiments.gauge import rank_stability
from experiments.gauge.rank_stability import ADAM, Config, exponent, predicted
from experiments.ledger.verdict import decide
from experiments.problems import PROBLEMS

CONFIG = Config(PROBLEMS["mlp"].resized(4), seeds=1, powers=(0.5, 1.0), low=(1, 4), high=(64, 256), draws=96, steps=2)


@pytest.fixture(scope="module")
def data() -> xr.Dataset:
    return rank_stability.measure(CONFIG, 0).expand_dims(seed=[0])


def first(data: xr.Dataset, family: str, moment: str) -> np.ndarray:
    return data["size"].sel(family=family, moment=moment, way="forward", step="first", seed=0).values


@pytest.mark.parametrize("way", rank_stability.WAYS)
def test_the_mean_first_step_is_s_squared_r_sigma_squared_eta(data, way) -> None:
    """E[s·BA] = −s² r σ_A² η G; a relative draw has the variance 2/r at most, so that 96 draws know it to √(2/96r)."""
    sigma = CONFIG.problem.typical_sigma()
    drawn = CONFIG.problem.draw(0)
    import jax

    G = jax.grad(drawn.loss)(drawn.base)
    size = np.sqrt(sum(float((W**2).sum()) for W in drawn.base.values()) / sum(float((g**2).sum()) for g in G.values()))
    eta = CONFIG.rate * size / sigma**2
    for p in CONFIG.powers:
        here = data["size"].sel(family=f"{p:g}", moment="mean", way=way, step="first", seed=0)
        for r in CONFIG.ranks:
            stated = r ** (1 - 2 * p) * sigma**2 * eta
            assert abs(float(here.sel(rank=r)) / stated - 1) < 5 * np.sqrt(2 / 96 / r), (p, r)


def test_what_one_draw_has_falls_below_the_inputs_and_is_kept_above(data) -> None:
    """rms² over mean² of ‖GAᵀA‖² is 1 + (d + 1)/r: 6 at r = 1 and 1 at r ≫ 4, here for s = 1/√r."""
    ratio = first(data, "0.5", "rms") / first(data, "0.5", "mean")
    expected = np.sqrt(1 + 5 / np.array(CONFIG.ranks))
    np.testing.assert_allclose(ratio[2:], expected[2:], rtol=0.05)
    assert ratio[0] > 1.8


def test_exponents_are_read_off() -> None:
    ranks = np.array([1.0, 4.0])
    values = np.stack([3 * ranks**0.25, ranks**-1.0])
    made = xr.Dataset(
        {"size": (("seed", "rank", "family", "step", "moment", "way"), values[:, :, None, None, None, None])},
        {"rank": [1, 4], "family": ["0.5"], "step": ["first"], "moment": ["mean"], "way": ["forward"]},
    )
    np.testing.assert_allclose(exponent(made, "0.5", (1, 4), "first", "mean", "forward"), [0.25, -1.0])


def made(exponents: dict[str, float], seeds: int = 5) -> tuple[Config, xr.Dataset]:
    """Records in which every moment of a family goes as r to a power, but for a little noise."""
    config = replace(rank_stability.configure(PROBLEMS["mlp"]), seeds=seeds)
    ranks, rng = np.array(config.ranks, float), np.random.default_rng(0)
    families = [[np.log(ranks) * exponents[f] for f in config.families]]
    size = np.exp(np.array(families) + rng.normal(0, 0.005, (seeds, len(config.families), len(ranks))))
    dims = ("seed", "family", "rank", "step", "moment", "way")
    data = xr.DataArray(size, dims=dims[:3]).expand_dims(
        step=["first", "last"], moment=["mean", "rms"], way=["forward", "backward"]
    )
    return config, xr.Dataset({"size": data}, {"family": list(config.families), "rank": list(config.ranks)})


TRUE = {"0.25": 0.5, "0.5": 0.0, "0.6": -0.2, "1": -1.0, ADAM: 0.0}


def test_the_claims_on_records_of_known_truth() -> None:
    """The theorem and its near control, s = r^(−0.6); if the exponent at ½ were −0.3, or that at ¼ were 0, it falls."""
    assert decide(rslora.is_kept_by_the_root_alone(*made(TRUE))).verdict == "supported"
    assert decide(rslora.is_kept(*made(TRUE), family="0.6", steps=("first",))).verdict == "refuted"
    for family, wrong in (("0.5", -0.3), ("0.25", 0.0), ("1", 0.0)):
        assert decide(rslora.is_kept_by_the_root_alone(*made(TRUE | {family: wrong}))).verdict == "refuted"
    assert decide(without_regret.first_update(*made(TRUE))).verdict == "supported"
    assert decide(without_regret.first_update(*made(TRUE | {ADAM: 0.2}))).verdict == "refuted"
    assert decide(without_regret.first_update(*made(TRUE | {ADAM: 0.4}))).verdict == "refuted"


@pytest.mark.parametrize("moment", ["mean", "rms"])
def test_what_is_drawn_as_theory_is_what_draws_have(moment: str) -> None:
    """‖GAᵀA‖ over many Gaussian A at two ranks, d_in = 3; another d_in, or a power of r a little off, is told."""
    d, draws, found, spread = 3, 20_000, [], []
    random = np.random.default_rng(0)
    G = random.standard_normal((2, d))
    for r in (1, 4):
        A = random.standard_normal((draws, r, d))
        moved = G @ A.transpose(0, 2, 1) @ A
        each = np.sum(moved * G, (1, 2)) if moment == "mean" else np.sum(moved**2, (1, 2))
        found.append(each.mean())
        spread.append(each.std() / draws**0.5 / each.mean())
    power = 1 if moment == "mean" else 2
    ratio, error = found[1] / found[0], 4 * float(np.hypot(*spread))

    def stated(d_in: float, p: float = 0.0) -> float:
        low, high = predicted(moment, np.array([1.0, 4.0]), p, d_in) ** power
        return high / low

    assert abs(ratio / stated(d) - 1) < error
    assert abs(ratio / (stated(d - 1) if moment == "rms" else stated(d, 0.05)) - 1) > error
