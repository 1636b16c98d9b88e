"""X17, X18 and X19 on invented records of known truth: one map at which one check fails is enough."""

import numpy as np
import pytest
import xarray as xr

from experiments.claims.own import atlas as claims
from experiments.curvature import adapter_atlas
from experiments.curvature.adapter_atlas import NAMES, PLACES, STATES, STRUCTURE
from experiments.ledger.verdict import decide
from experiments.problems import PROBLEMS

CONFIG = adapter_atlas.Config(PROBLEMS["mlp"])
X17, X18, X19 = claims.CLAIMS


def records(error: float = 0.1, control: float = 2.0, vera: str = "paired") -> xr.Dataset:
    """One check of each claim on every map, two seeds, both places; the last of them with this error and control."""
    dims = ("map", "seed", "place", "check")
    shape = (len(NAMES), 2, len(PLACES), 3)
    errors, controls = np.full(shape, 0.1), np.full(shape, 2.0)
    errors[-1, -1, -1], controls[-1, -1, -1] = error, control
    structures = [[[STRUCTURE[name] if name != "vera" else vera] * len(STATES)] * 2 for name in NAMES]
    words = {name: ("check", ["a", "b", "c"]) for name in ("statement", "rule", "control")}
    return xr.Dataset(
        {
            "error": (dims, errors),
            "tolerance": (dims, np.ones(shape)),
            "control_error": (dims, controls),
            "applicable": (dims, np.ones(shape)),
            "structure": (("map", "seed", "state"), structures),
        },
        {"map": list(NAMES), "state": list(STATES), "claim": ("check", ["X17", "X18", "X19"]), **words},
    )


def verdict(claim: claims.Claim, data: xr.Dataset, control: bool = False) -> str:
    evidence = claim.evidence[0]
    reading = evidence.control if control else evidence.plain
    assert reading is not None
    assert reading.applies(CONFIG, data) == ""
    return decide(reading.findings(CONFIG, data)).verdict


@pytest.mark.parametrize("claim", claims.CLAIMS, ids=lambda claim: claim.id)
def test_one_map_at_one_place_refutes(claim):
    assert verdict(claim, records()) == "supported"
    assert verdict(claim, records(error=1.1)) == "refuted"
    assert verdict(claim, records(error=np.nan)) == "refuted"


@pytest.mark.parametrize("claim", claims.CLAIMS, ids=lambda claim: claim.id)
def test_the_control_falls_where_it_is_noticed_everywhere(claim):
    assert verdict(claim, records(), control=True) == "refuted"
    assert verdict(claim, records(control=0.9), control=True) == "supported"


def test_a_structure_that_is_not_the_one_stated_refutes():
    assert verdict(X17, records(vera="neither")) == "refuted"
    assert {verdict(x, records(vera="neither")) for x in (X18, X19)} == {"supported"}


def test_not_every_map_has_the_pairs_of_lora():
    (every,) = X17.readings
    assert decide(every.findings(CONFIG, records())).verdict == "refuted"
    paired = records().assign(structure=xr.full_like(records().structure, "paired"))
    assert decide(every.findings(CONFIG, paired)).verdict == "supported"


def test_without_matrices_nothing_is_judged():
    none = records().isel(check=[])
    assert X18.evidence[0].plain.applies(CONFIG, none) == "its matrices are not affordable"
    never = records().assign(applicable=0 * records().applicable)
    assert X19.evidence[0].plain.applies(CONFIG, never) == "none of 36 instances meets its assumptions"
