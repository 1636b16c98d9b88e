"""Claims of other papers, on invented records of known truth, true and false, and where they say that they cannot."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from experiments.claims import CLAIMS, SOURCES, edge_of_stability, lora_plus, rate_matters, without_regret
from experiments.dynamics import spectra_along_training
from experiments.dynamics.spectra_along_training import EDGE
from experiments.gauge import gauge_breaking
from experiments.ledger.claim import OURS, SUBJECT
from experiments.ledger.verdict import decide, equal, magnitude
from experiments.problems import PROBLEMS
from experiments.tuning import protocol_comparison, rank_law

GRID = rank_law.EXPERIMENT.at(PROBLEMS["digits"])


def verdict(findings) -> str:
    return decide(findings).verdict


def test_every_source_says_where_it_can_be_read() -> None:
    others = [source for source in SOURCES if source.key not in (SUBJECT, OURS.key)]
    assert len(others) == 11
    assert [s.published for s in others] == sorted(s.published for s in others)
    assert all(source.address.startswith("https://") for source in SOURCES if source is not OURS)
    for claim in CLAIMS:
        assert (claim.paper is OURS) == claim.ours
        assert claim.source


def grid(ratio: float, of_alpha: float, of_rank: float, spread: float = 0.03, seeds: int = 5) -> xr.Dataset:
    """Parabolas of ln loss over ln η with their bottom at η_FFT·ratio·(α/α₀)^a·r^b, α₀ where the report's α is."""
    rng = np.random.default_rng(0)
    alpha, rate = np.log(GRID.grid_alphas), np.log(GRID.grid_rates)
    place = np.log(without_regret.place_of(GRID, literal=False))
    rank = np.log(np.array(GRID.path_ranks, float))
    best = np.log(ratio) + of_alpha * (alpha - place) + of_rank * rank[:, None]
    best = best + rng.normal(0, spread, (seeds, 1, 1))
    losses = (rate - best[..., None]) ** 2 / 10
    dims = ("seed", "rank", "grid_alpha", "grid_rate")
    return xr.Dataset(
        {
            "by_both": (dims, losses),
            "eta_fft": 1e-3,
            "fft": ("fft_rate", (np.log(np.array(GRID.fft_rates)) + 6.9) ** 2 / 9),
        },
        {"rank": list(GRID.path_ranks), "grid_alpha": list(GRID.grid_alphas), "grid_rate": list(GRID.grid_rates)},
    )


@pytest.mark.parametrize(("ratio", "wanted"), [(10.0, "supported"), (1.2, "refuted"), (3.16, "inconclusive")])
def test_the_tenfold_rate(ratio: float, wanted: str) -> None:
    data = grid(ratio, -0.5, 0.0)
    assert without_regret.inside(GRID, data) == ""
    assert verdict(without_regret.tenfold(GRID, data)) == wanted


def test_best_rates_between_the_values_of_the_grid() -> None:
    """A power law is met exactly by interpolation in logarithms, if parabolas give the bottom exactly."""
    data = grid(3.0, -0.5, 0.25, spread=0.0)
    place = without_regret.place_of(GRID, literal=False)
    found = without_regret.best_rates(GRID, data, 1.7 * place)[0]
    np.testing.assert_allclose(found, 3.0 * 1.7**-0.5 * np.array(GRID.path_ranks) ** 0.25, rtol=1e-6)


@pytest.mark.parametrize(("slope", "wanted"), [(0.0, "supported"), (0.3, "refuted"), (-0.3, "refuted")])
def test_a_best_rate_without_rank(slope: float, wanted: str) -> None:
    assert verdict(without_regret.without_rank(GRID, grid(3.0, -0.5, slope))) == wanted


def test_a_best_rate_on_the_edge_is_not_judged() -> None:
    assert "on the edge of the sweep at" in without_regret.inside(GRID, grid(1e5, 0.0, 0.0))
    one = replace(GRID, ranks=(8,))
    assert without_regret.several_ranks(one, grid(3.0, -0.5, 0.0)) == "the grid was run at one rank"


def breaking(largest: float) -> tuple[gauge_breaking.Config, xr.Dataset]:
    """Distances that grow from nothing to `largest` with each of the three."""
    config = gauge_breaking.EXPERIMENT.at(PROBLEMS["mlp"])
    rng = np.random.default_rng(0)
    far = {
        kind: (("seed", f"{kind}_value"), np.geomspace(1e-9, largest, len(values)) * rng.uniform(0.9, 1.1, (5, 1)))
        for kind, values in config.values().items()
    }
    return config, xr.Dataset(far, {f"{kind}_value": list(v) for kind, v in config.values().items()})


def test_what_breaks_the_equality_of_ratio_and_alpha() -> None:
    assert verdict(lora_plus.breaks(*breaking(0.3))) == "supported"
    assert verdict(lora_plus.breaks(*breaking(0.3), everywhere=True)) == "refuted"
    assert verdict(lora_plus.breaks(*breaking(1e-4))) == "refuted"


def edge(level: float) -> tuple[spectra_along_training.Config, xr.Dataset]:
    config = spectra_along_training.EXPERIMENT.at(PROBLEMS["mlp"])
    rng, steps = np.random.default_rng(0), 20
    shape = np.where(np.arange(steps) == 5, 2.5, 1.0) * level * rng.uniform(0.97, 1.03, (3, 5, 1))
    eta = np.array([rates[0] for rates in config.runs().values()])
    data = xr.Dataset(
        {"preconditioned": (("run", "seed", "step"), EDGE * shape / eta[:, None, None]), "eta": ("run", eta)},
        {"run": list(config.runs())},
    )
    return config, data


def test_the_edge_of_adam() -> None:
    """At 38/η it is there, and not at 2/η, 19 times below; at a fiftieth it is neither reached nor near."""
    assert verdict(edge_of_stability.at_the_edge(*edge(1.0), band=magnitude(1.0))) == "supported"
    assert verdict(edge_of_stability.at_the_edge(*edge(1.0), band=equal(1.0))) == "supported"
    assert verdict(edge_of_stability.at_the_edge(*edge(1.0), band=magnitude(1.0), unit=2.0)) == "refuted"
    assert verdict(edge_of_stability.at_the_edge(*edge(0.02), band=magnitude(1.0))) == "refuted"
    removed = edge_of_stability.at_the_edge(*edge(1.0), band=magnitude(1.0), removed=True)
    assert all("drift removed" in finding.quantity for finding in removed)


def scored(gap: float, edge_of: str = "") -> tuple[protocol_comparison.Config, xr.Dataset]:
    """Accuracies over η of LoRA and its variants, best in the middle, the variants behind by a gap."""
    config = protocol_comparison.EXPERIMENT.at(PROBLEMS["digits"])
    names = [rate_matters.LORA, *rate_matters.VARIANTS]
    rng, n = np.random.default_rng(0), len(config.own_rates)
    hill = 0.9 - 0.02 * (np.arange(n) - n // 2) ** 2
    scores = np.array(
        [np.linspace(0.5, 0.9, n) if m == edge_of else hill - gap * (m != rate_matters.LORA) for m in names]
    )
    values = scores[None, :, :, None, None] + rng.normal(0, 0.002, (len(config.ranks), 1, 1, 5, 1))
    dims = ("rank", "tuned", "multiple", "seed", "judge")
    data = xr.Dataset(
        {"score_by_rate": (dims, values)}, {"rank": list(config.ranks), "tuned": names, "judge": ["held-out accuracy"]}
    )
    return config, data


def test_similar_peaks() -> None:
    assert verdict(rate_matters.similar(*scored(0.005))) == "supported"
    assert verdict(rate_matters.similar(*scored(0.005), ahead=0.05)) == "refuted"
    assert verdict(rate_matters.similar(*scored(0.06))) == "refuted"
    assert all("DoRA" not in f.quantity for f in rate_matters.similar(*scored(0.0, edge_of="DoRA")))
    assert rate_matters.has_peaks(*scored(0.0)) == ""
    assert rate_matters.has_peaks(*scored(0.0, edge_of=rate_matters.LORA)) == "no best η lies inside the sweep"
    config, data = scored(0.0)
    assert rate_matters.has_peaks(config, data.drop_vars("score_by_rate")) == "nothing is scored by an accuracy"


@pytest.mark.parametrize("name", ["LWR-batch", "BBS-batch", "LRM-sharpness", "Papyan-outliers"])
def test_what_cannot_be_decided_here_says_why(name: str) -> None:
    claim = next(claim for claim in CLAIMS if claim.id == name)
    plain = claim.evidence[0].plain
    assert plain.findings(None, xr.Dataset()) == []
    assert len(plain.applies(None, xr.Dataset())) > 30
