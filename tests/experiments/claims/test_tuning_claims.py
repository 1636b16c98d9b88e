"""Claims on tuned runs, on synthetic results of which the truth is known, and on problems with fewer sweeps."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import xarray as xr

from experiments.claims.lora_alpha import dynamics, protocol, tuning
from experiments.lab.problem import Tuning
from experiments.ledger.verdict import Finding, below, decide, near, power
from experiments.problems import PROBLEMS
from experiments.tuning import magnitudes, protocol_comparison, rank_law
from experiments.tuning.methods import FULL, PISSA, TENFOLD, V1, V2, methods

OVER_V2 = Tuning.over_v2
SEEDS = 8
SWEEPS = replace(rank_law.EXPERIMENT.at(PROBLEMS["teacher64"]), ranks=(1, 8, 64), grid_ranks=(1, 64))


def verdict(findings: list[Finding]) -> str:
    return decide(findings).verdict


def swept(
    slope: float = 0.5, C: float = 40.0, rate_slope: float = -0.5, ratio: float = 4.0, cliff: bool = False
) -> xr.Dataset:
    """Sweeps in which α* = C·r^slope, η* ∝ α^rate_slope, and α's best multiplier is `ratio` times that of η.

    The path of α reaches lower by 1 in ln loss where it goes farther; along it the purity is constant, along η it falls
    as 1/m. At the higher rank the best loss falls faster over α. Full fine-tuning has a `cliff` at η_FFT, or none.
    """
    config, ranks = SWEEPS, np.array(SWEEPS.ranks, float)
    random = np.random.default_rng(0)
    dims, noise = ("seed", "rank"), 0.002 * random.standard_normal((SEEDS, 3, len(config.alphas)))
    best = np.log(C * ranks**slope)
    by_alpha = 0.1 * (np.log(config.alphas) - best[:, None]) ** 2 + noise
    m = np.log([config.multipliers(start) for start in config.starts])
    of_rate = best[:, None] - np.log(config.starts) - np.log(ratio)
    by_rate = 0.1 * (m - of_rate[:, :, None]) ** 2 + np.sign(np.log(ratio)) + noise[:, :, None]
    alphas, rates = np.log(config.grid_alphas), np.log(config.grid_rates)
    valley = np.log(10.0) + rate_slope * (alphas - np.log(config.starts[-1]))
    fall = np.log(ranks + 1)[:, None, None] * alphas[:, None] / 10
    by_both = 0.1 * (rates - valley[:, None]) ** 2 - fall
    steps = 1e-4 * random.standard_normal((SEEDS, 1, 1, 1))
    full = (np.log(config.fft_rates) - np.log(1e-3)) ** 2
    return xr.Dataset(
        {
            "by_alpha": ((*dims, "alpha"), by_alpha),
            "by_rate": ((*dims, "start", "alpha"), by_rate),
            "by_both": ((*dims, "grid_alpha", "grid_rate"), np.tile(by_both, (SEEDS, 1, 1, 1)) * (1 + steps)),
            "purity_by_alpha": ((*dims, "alpha"), np.exp(np.log(50.0) + noise)),
            "purity_by_rate": ((*dims, "start", "alpha"), np.broadcast_to(50.0 / np.exp(m), by_rate.shape)),
            "fft": ("fft_rate", np.where(cliff & (np.array(config.fft_rates) > 1.1e-3), 90.0, full)),
            "eta_fft": 1e-3,
        },
        coords={
            "seed": range(SEEDS),
            "rank": list(config.ranks),
            "alpha": list(config.alphas),
            "start": list(config.starts),
            "grid_alpha": list(config.grid_alphas),
            "grid_rate": list(config.grid_rates),
        },
    )


@pytest.mark.parametrize(
    ("slope", "wanted"), [(0.5, "supported"), (0.7, "refuted"), (1.0, "refuted"), (-0.5, "refuted")]
)
def test_square_root(slope: float, wanted: str) -> None:
    assert verdict(tuning.root_of_rank(SWEEPS, swept(slope, C=20.0), power(0.5))) == wanted


@pytest.mark.parametrize(("C", "wanted"), [(40.0, "supported"), (5.0, "refuted")])
def test_size_of_the_coefficient_where_v2_has_it_large(C: float, wanted: str) -> None:
    """1/σ_A is 16 at d = 256, and 8 at d = 64, where nothing large is to be expected."""
    wide = replace(SWEEPS, problem=PROBLEMS["teacher256"])
    assert verdict(tuning.square_root(wide, swept(C=C))) == wanted
    assert len(tuning.square_root(wide, swept(C=C))) == 1 + len(tuning.square_root(SWEEPS, swept(C=C)))


def test_rules_for_alpha() -> None:
    """C = 8 = 1/σ_A at d = 64: V2, and neither V1 nor ten times V2."""
    claims, data = {claim.id: claim.evidence[0] for claim in protocol.CLAIMS}, swept(C=8.0)
    literal = {claim.id: claim.readings for claim in protocol.CLAIMS}["V1"][0]
    control = claims["V2"].control
    assert control is not None
    assert verdict(claims["V2"].plain.findings(SWEEPS, data)) == "supported"
    assert verdict(control.findings(SWEEPS, data)) == "refuted"
    assert verdict(literal.findings(SWEEPS, data)) == "refuted"
    other = swept(C=200.0)
    assert verdict(literal.findings(SWEEPS, other)) == "supported"
    assert verdict(claims["V2"].plain.findings(SWEEPS, other)) == "refuted"


def test_v1_is_not_testable_where_it_was_not_made_for() -> None:
    """1/σ_A is 8 at d = 64, where V1 is 32 times V2; for PEFT's A at d_in = 4096 it is 111."""
    plain = {claim.id: claim.evidence[0].plain for claim in protocol.CLAIMS}["V1"]
    assert "V1 is 32 times V2" in plain.applies(SWEEPS, swept())
    wide = replace(SWEEPS, problem=PROBLEMS["teacher64"].resized(64))
    assert protocol.fitted_elsewhere(wide, swept())


def test_nothing_is_tested_at_a_cliff_of_full_fine_tuning() -> None:
    for claim in [*tuning.CLAIMS, *protocol.CLAIMS]:
        if claim.id in ("F1c-square-root", "V2"):
            plain = claim.evidence[0].plain
            assert "at its cliff" in plain.applies(SWEEPS, swept(cliff=True))
            assert plain.applies(SWEEPS, swept()) == ""
    assert "at its cliff" in tuning.tenfold_applies(SWEEPS, swept(cliff=True))
    names = [f.quantity for f in tuning.coupled(SWEEPS, swept(cliff=True))]
    assert not any(name.startswith("η*/η_FFT") for name in names)


@pytest.mark.parametrize(("rate_slope", "wanted"), [(-0.5, "supported"), (0.2, "refuted")])
def test_best_rate_over_alpha(rate_slope: float, wanted: str) -> None:
    data = swept(rate_slope=rate_slope)
    assert verdict(tuning.rate_falls(SWEEPS, data, below(0.0))) == wanted
    assert verdict(tuning.rate_falls(SWEEPS, data, near(0.0, 0.1, "flat"))) == "refuted"
    assert verdict(tuning.improves(SWEEPS, data)) == "supported"
    assert verdict(tuning.gains_with_rank(SWEEPS, data)) == "supported"
    assert verdict(tuning.tenfold_rate(SWEEPS, data)) == "supported"


def test_a_best_loss_that_rises_once_is_not_monotone_and_noise_on_a_fall_is_no_rise() -> None:
    data = swept()
    place = SWEEPS.grid_alphas[3]
    data.by_both.loc[{"grid_alpha": place}] = data.by_both.sel(grid_alpha=place) + 3.0
    assert verdict(tuning.improves(SWEEPS, data)) == "refuted"
    noisy = swept()
    noise = 0.1 * np.random.default_rng(3).standard_normal((SEEDS, 1, len(SWEEPS.grid_alphas), 1))
    noisy["by_both"] = noisy.by_both + xr.DataArray(noise, dims=noisy.by_both.dims).values
    assert verdict(tuning.improves(SWEEPS, noisy)) != "refuted"


@pytest.mark.parametrize(("ratio", "wanted"), [(4.0, "supported"), (0.25, "refuted")])
def test_paths(ratio: float, wanted: str) -> None:
    data = swept(ratio=ratio)
    assert verdict(tuning.alpha_path_wins(SWEEPS, data)) == wanted
    assert verdict(tuning.alpha_path_wins(SWEEPS, data, rank=64)) == wanted
    opposite = {"supported": "refuted", "refuted": "supported"}[wanted]
    assert verdict(tuning.alpha_path_wins(SWEEPS, data, swapped=True)) == opposite
    assert tuning.alpha_path_wins(SWEEPS, data, rank=16) == []


def test_a_path_that_starts_past_the_best_alpha_is_not_tested() -> None:
    """C = 1.9: the best α is 1.9 at r = 1 and 15.2 at r = 64; α₀ = 16 lies past both and α₀ = 1.6 does not."""
    data = swept(C=1.9)
    assert tuning.ranks_with_room(SWEEPS, data, 16.0) == []
    assert tuning.ranks_with_room(SWEEPS, data, 1.6) == [1, 64]
    assert "α₀ = 16 is past the best α" in tuning.paths_apply(SWEEPS, data, literal=True, rank=1)
    assert tuning.paths_apply(SWEEPS, data) == ""
    assert "was not run" in tuning.paths_apply(SWEEPS, data, rank=16)


def test_purity_along_the_paths() -> None:
    assert verdict(dynamics.purer_path(SWEEPS, swept())) == "supported"
    turned = swept()
    turned["purity_by_rate"] = 2500.0 / turned.purity_by_rate
    assert verdict(dynamics.purer_path(SWEEPS, turned)) == "refuted"
    gone = swept()
    gone["purity_by_rate"] = gone.purity_by_rate.where(gone.seed != 2)
    assert verdict(dynamics.purer_path(SWEEPS, gone)) == "inconclusive"


def test_without_a_grid_or_with_one_rank_the_claims_say_why_they_are_not_tested() -> None:
    """The tuning of MiniLM."""
    config = replace(SWEEPS, ranks=(64,), grid_alphas=())
    data = swept().sel(rank=[64]).drop_vars("by_both")
    reasons = {c.id: c.evidence[0].plain.applies(config, data) for c in [*tuning.CLAIMS, *protocol.CLAIMS][:5]}
    assert reasons["F1a-coupling"] == "the (α, η) grid was not run"
    assert all("one rank" in reasons[name] for name in ("F1c-square-root", "V1", "V2"))
    assert reasons["F1b-paths"] == ""
    assert len(tuning.alpha_path_wins(config, data)) == 2


COMPARED = replace(protocol_comparison.EXPERIMENT.at(PROBLEMS["teacher256"]), ranks=(4,))


def compared(closed: dict[str, float], gap: float = 2.0) -> xr.Dataset:
    """Runs in which each method closes a given fraction of a gap of ln ℓ, at both rates; some α closes all of it."""
    names = [*methods(4, {"a": 1 / 8}), FULL]
    share = np.array([closed.get(name, 1.0 if name == FULL else 0.0) for name in names])
    noise = 0.02 * np.random.default_rng(0).standard_normal((2, 1, SEEDS, len(names)))
    alphas = np.broadcast_to(-gap * (1 - 0.1 * np.log2(OVER_V2) ** 2), (2, 1, SEEDS, len(OVER_V2)))
    return xr.Dataset(
        {
            "log_loss": (("share", "rank", "seed", "method"), noise - gap * share),
            "by_alpha": (("share", "rank", "seed", "over_v2"), alphas),
            "fft": ("fft_rate", (np.log(COMPARED.fft_rates) - np.log(1e-3)) ** 2),
            "learning_rate": ("share", [1e-3, 1e-4]),
        },
        coords={"share": [1.0, 0.1], "rank": [4], "seed": range(SEEDS), "method": names, "over_v2": list(OVER_V2)},
    )


@pytest.mark.parametrize(
    ("closed", "wanted"),
    [
        ({V2: 0.9}, "supported"),
        ({V2: 0.55}, "supported"),
        ({V2: 0.45}, "refuted"),
        ({V2: 0.7, TENFOLD: 0.9}, "refuted"),
    ],
)
def test_protocol(closed: dict[str, float], wanted: str) -> None:
    assert protocol.applies(1.0, COMPARED, compared(closed)) == ""
    assert verdict(protocol.recovers(1.0, COMPARED, compared(closed))) == wanted


@pytest.mark.parametrize(
    ("closed", "wanted"),
    [
        ({V2: 0.9}, "supported"),
        ({V2: 0.9, PISSA: 0.9}, "supported"),  # a match
        ({V2: 0.9, PISSA: 0.95}, "refuted"),  # by 0.1 in ln loss, where 5% are 0.049
        ({V2: 0.9, V1: 0.99, FULL: 1.0}, "supported"),  # LoRA-α itself, and no baseline
    ],
)
def test_against_every_baseline(closed: dict[str, float], wanted: str) -> None:
    found = protocol.matches_every_baseline(1.0, COMPARED, compared(closed))
    assert verdict(found) == wanted
    assert len(found) == 7


def test_what_is_v2_under_another_name_is_no_baseline() -> None:
    """At r = 16 and d = 256 rsLoRA is V2."""
    wide = replace(COMPARED, ranks=(16,))
    found = protocol.matches_every_baseline(1.0, wide, compared({V2: 0.9}).assign_coords(rank=[16]))
    assert len(found) == 6
    assert not any("rsLoRA" in f.quantity for f in found)


def test_protocol_without_a_gap_after_divergence_and_at_a_rate_that_was_not_run() -> None:
    flat = compared({V2: 0.9}, gap=0.0)
    assert "no gap" in protocol.applies(1.0, COMPARED, flat)
    assert protocol.closes(V2, 1.0, COMPARED, flat) == []
    data = compared({V2: 0.9})
    data.log_loss.loc[{"method": V2, "seed": [0, 1, 2]}] = np.inf
    (found,) = protocol.closes(V2, 1.0, COMPARED, data)
    assert "it diverged at 3 of 8 seeds" in found.words
    assert found.estimate.value == pytest.approx(0.8, abs=0.1)  # the median: most seeds are well
    assert verdict([found]) == "inconclusive"
    once = replace(COMPARED, rate_shares=(1.0,))
    assert protocol.applies(0.1, once, data) == "0.1 η_FFT was not run"


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
