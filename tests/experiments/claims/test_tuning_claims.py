"""Claims on tuned runs, on synthetic results of which the truth is known, and on problems with fewer sweeps."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import xarray as xr

from experiments.claims import dynamics, protocol, tuning
from experiments.ledger.verdict import above, below, power, verdict
from experiments.problems import PROBLEMS
from experiments.tuning import magnitudes, protocol_comparison, rank_law
from experiments.tuning.methods import COMMON, FULL, TENFOLD, V1, V2, methods

SEEDS = 5
SWEEPS = replace(rank_law.EXPERIMENT.at(PROBLEMS["teacher64"]), ranks=(1, 8, 64), grid_ranks=(1, 64))


def swept(slope: float = 0.5, C: float = 40.0, rate_slope: float = -0.5, ratio: float = 4.0) -> xr.Dataset:
    """Sweeps in which α* = C·r^slope, η* ∝ α^rate_slope, and α's best multiplier is `ratio` times that of η at r = 1.

    The path of α reaches lower by 1 in ln loss where it goes farther; along it the purity is constant, along η it falls
    as 1/m. At the higher rank the best loss falls faster over α.
    """
    config, ranks = SWEEPS, np.array(SWEEPS.ranks, float)
    dims, noise = ("seed", "rank"), 0.002 * np.random.default_rng(0).standard_normal((SEEDS, 3, len(SWEEPS.alphas)))
    best = np.log(C * ranks**slope)
    by_alpha = 0.1 * (np.log(config.alphas) - best[:, None]) ** 2 + noise
    of_rate = best - np.log(config.alpha_0) - np.log(ratio)
    by_rate = 0.1 * (np.log(config.multipliers) - of_rate[:, None]) ** 2 + np.sign(np.log(ratio)) + noise
    alphas, rates = np.log(config.grid_alphas), np.log(config.grid_rates)
    valley = np.log(10.0) + rate_slope * (alphas - alphas[0])
    fall = np.log(ranks + 1)[:, None, None] * alphas[:, None] / 10
    by_both = 0.1 * (rates - valley[:, None]) ** 2 - fall
    pure = np.stack([np.full(len(config.alphas), 50.0), 50.0 / config.multipliers])
    return xr.Dataset(
        {
            "by_alpha": ((*dims, "alpha"), by_alpha),
            "by_rate": ((*dims, "alpha"), by_rate),
            "by_both": ((*dims, "grid_alpha", "grid_rate"), np.tile(by_both, (SEEDS, 1, 1, 1))),
            "purity": ((*dims, "path", "alpha"), np.tile(pure, (SEEDS, 3, 1, 1))),
        },
        coords={
            "seed": range(SEEDS),
            "rank": list(config.ranks),
            "alpha": list(config.alphas),
            "path": ["α", "η"],
            "grid_alpha": list(config.grid_alphas),
            "grid_rate": list(config.grid_rates),
        },
    )


@pytest.mark.parametrize(("slope", "wanted"), [(0.5, "supported"), (1.0, "refuted"), (-0.5, "refuted")])
def test_square_root(slope: float, wanted: str) -> None:
    assert verdict(tuning.root_of_rank(SWEEPS, swept(slope, C=20.0), power(0.5))) == wanted


@pytest.mark.parametrize(("C", "wanted"), [(40.0, "supported"), (2.0, "refuted")])
def test_size_of_the_coefficient(C: float, wanted: str) -> None:
    assert verdict(tuning.square_root(SWEEPS, swept(C=C))) == wanted


def test_rules_for_alpha() -> None:
    """C = 8 = 1/σ_A at d = 64: V2, and neither V1 nor σ_A on the other side."""
    claims, data = {claim.id: claim.evidence[0] for claim in protocol.CLAIMS}, swept(C=8.0)
    assert verdict(claims["V2"].plain.findings(SWEEPS, data)) == "supported"
    assert verdict(claims["V2"].control.findings(SWEEPS, data)) == "refuted"
    assert verdict(claims["V1"].plain.findings(SWEEPS, data)) == "refuted"
    assert verdict(claims["V1"].control.findings(SWEEPS, data)) == "refuted"
    other = swept(C=200.0)
    assert verdict(claims["V1"].plain.findings(SWEEPS, other)) == "supported"
    assert verdict(claims["V2"].plain.findings(SWEEPS, other)) == "refuted"


@pytest.mark.parametrize(("rate_slope", "wanted"), [(-0.5, "supported"), (0.2, "refuted")])
def test_best_rate_over_alpha(rate_slope: float, wanted: str) -> None:
    data = swept(rate_slope=rate_slope)
    assert verdict(tuning.rate_falls(SWEEPS, data, below(0.0))) == wanted
    assert verdict(tuning.rate_falls(SWEEPS, data, above(0.0))) != wanted
    assert verdict(tuning.improves(SWEEPS, data)) == "supported"
    assert verdict(tuning.gains_with_rank(SWEEPS, data)) == "supported"
    assert verdict(tuning.tenfold_rate(SWEEPS, data)) == "supported"
    assert len(tuning.coupled(SWEEPS, data)) == 2 + 2 + 1 + 2


def test_best_loss_that_rises_once_is_not_monotone() -> None:
    data = swept()
    data.by_both.loc[{"grid_alpha": 64.0}] = data.by_both.sel(grid_alpha=64.0) + 3.0
    assert verdict(tuning.improves(SWEEPS, data)) == "refuted"


@pytest.mark.parametrize(("ratio", "wanted"), [(4.0, "supported"), (0.25, "refuted")])
def test_paths(ratio: float, wanted: str) -> None:
    data = swept(ratio=ratio)
    assert verdict(tuning.alpha_path_wins(SWEEPS, data)) == wanted
    assert verdict(tuning.alpha_path_wins(SWEEPS, data, rank=64)) == wanted
    opposite = {"supported": "refuted", "refuted": "supported"}[wanted]
    assert verdict(tuning.alpha_path_wins(SWEEPS, data, swapped=True)) == opposite
    assert tuning.alpha_path_wins(SWEEPS, data, rank=16) == []


def test_purity_along_the_paths() -> None:
    assert verdict(dynamics.purer_path(SWEEPS, swept())) == "supported"
    turned = swept().isel(path=[1, 0]).purity.values
    assert verdict(dynamics.purer_path(SWEEPS, swept().assign(purity=(swept().purity.dims, turned)))) == "refuted"
    gone = swept()
    gone.purity.loc[{"path": "η", "alpha": 1024.0, "seed": 2}] = np.nan
    assert verdict(dynamics.purer_path(SWEEPS, gone)) == "inconclusive"


def test_without_a_grid_or_with_one_rank_nothing_is_decided() -> None:
    """The tuning of MiniLM: a statement and its control are both left open."""
    config = replace(SWEEPS, ranks=(64,), grid_alphas=())
    data = swept().sel(rank=[64]).drop_vars("by_both")
    for claim in [*tuning.CLAIMS, *protocol.CLAIMS]:
        if claim.id in ("F1a-coupling", "F1c-square-root", "V1", "V2"):
            (evidence,) = claim.evidence
            assert evidence.plain.findings(config, data) == []
            assert evidence.control.findings(config, data) == []
    assert len(tuning.alpha_path_wins(config, data)) == 2


COMPARED = replace(protocol_comparison.EXPERIMENT.at(PROBLEMS["digits"]), ranks=(8,))


def compared(closed: dict[str, float], gap: float = 2.0) -> xr.Dataset:
    """Runs in which each method closes a given fraction of a gap of ln ℓ, at both rates."""
    names = [*methods(8, {"a": 1 / 8}), FULL]
    share = np.array([closed.get(name, 1.0 if name == FULL else 0.0) for name in names])
    noise = 0.02 * np.random.default_rng(0).standard_normal((2, 1, SEEDS, len(names)))
    return xr.Dataset(
        {"log_loss": (("share", "rank", "seed", "method"), noise - gap * share)},
        coords={"share": [1.0, 0.1], "rank": [8], "seed": range(SEEDS), "method": names},
    )


@pytest.mark.parametrize(
    ("closed", "wanted"),
    [
        ({V1: 0.8, V2: 0.9}, "supported"),
        ({V1: 0.8, V2: 0.2}, "refuted"),
        ({V1: 0.8, V2: 0.7, TENFOLD: 0.9}, "refuted"),
    ],
)
def test_protocol(closed: dict[str, float], wanted: str) -> None:
    assert verdict(protocol.recovers(1.0, COMPARED, compared(closed))) == wanted
    assert verdict(protocol.closes(COMMON, 1.0, COMPARED, compared(closed))) == "refuted"


def test_protocol_without_a_gap_after_divergence_and_at_a_rate_that_was_not_run() -> None:
    data = compared({V1: 0.8, V2: 0.9}, gap=0.0)
    assert verdict(protocol.closes(V1, 1.0, COMPARED, data)) == "inconclusive"
    data = compared({V1: 0.8, V2: 0.9})
    data.log_loss.loc[{"method": V1, "seed": 3}] = np.inf
    (found,) = protocol.closes(V1, 1.0, COMPARED, data)
    assert found.verdict == "refuted"
    assert found.quantity.endswith("(diverged at 1 of 5 seeds)")
    once = replace(COMPARED, rate_shares=(1.0,))
    assert protocol.recovers(0.1, once, data.sel(share=[1.0])) == []


@pytest.mark.parametrize(("coefficient", "wanted"), [(255.0, "refuted"), (256.0, "supported")])
def test_printed_table_is_refuted_by_another_coefficient(coefficient: float, wanted: str) -> None:
    config = magnitudes.Config(coefficient=coefficient)
    assert verdict(protocol.magnitudes_stated(config, magnitudes.measure(config))) == wanted
    assert verdict(protocol.linear_in_rank(config, magnitudes.measure(config))) == "refuted"


def test_printed_coefficient_is_that_of_kaiming() -> None:
    config = magnitudes.Config()
    check = partial(protocol.kaiming, config)
    assert verdict(check(magnitudes.measure(config))) == "supported"
    assert verdict(check(magnitudes.measure(replace(config, d_in=4000)))) == "refuted"
