"""Verdicts against the findings beside them: what was altered is named, what the ledger itself computes is not."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.analysis.intervals import certified_between, exactly_known, mean_of
from experiments.ledger import table
from experiments.ledger.ledger import Judged, _findings
from experiments.ledger.quoted.follows import can_be, doubts, lies_apart
from experiments.ledger.verdict import Band, Finding, above, at_least, below, exactly, power

DOCS = Path(__file__).parents[4] / "docs"


@pytest.fixture(scope="module")
def published() -> list[dict[str, Any]]:
    return table.read_file(DOCS / "ledger.json")["claims"]


def test_every_verdict_of_the_reference_run_follows(published) -> None:
    assert list(doubts(published)) == []


@pytest.mark.parametrize("where", ["claim", "cell", "finding", "reading", "control", "finding of a cell"])
def test_an_altered_verdict_is_doubted(where: str, published) -> None:
    """P2-premise is refuted with numbers far from its band; said to be supported, in any place, it is noticed."""
    altered = copy.deepcopy(published)
    entry = next(e for e in altered if e["id"] == "P2-premise")
    cell = entry["problems"]["mlp"]
    places = {
        "claim": entry,
        "cell": cell,
        "finding": next(f for f in entry["findings"] if f["verdict"] == "refuted"),
        "reading": next(r for r in cell["readings"] if r["verdict"] == "refuted"),
        "control": next(e for e in altered if e["id"] == "P3-trace")["problems"]["mlp"]["control"],
        "finding of a cell": next(f for f in cell["findings"] if f["verdict"] == "refuted"),
    }
    places[where]["verdict"] = "supported"
    assert list(doubts(altered))


def test_a_claim_that_says_that_it_was_not_tested_although_it_was_is_doubted(published) -> None:
    altered = copy.deepcopy(published)
    entry = next(e for e in altered if e["id"] == "P2-premise")
    entry["problems"]["mlp"]["verdict"] = "not testable here"
    entry["verdict"] = "not testable here"
    assert len(list(doubts(altered))) == 2


RNG = np.random.default_rng(0)
ESTIMATES = [
    *(mean_of(RNG.normal(mean, 0.1, 5)) for mean in (-1.0, -0.1, 0.0, 0.1, 1.0)),
    *(exactly_known(x) for x in (-1.0, 0.0, 1.0, np.inf, np.nan)),
    certified_between(0.0, -0.1, 0.1),
]
BANDS = [above(0.0), below(0.0), at_least(0.0, ""), exactly(0.0), power(0.0), Band(-np.inf, np.inf, "")]


@pytest.mark.parametrize("looks", [1, 3])
@pytest.mark.parametrize("count", [1, 3])
def test_what_the_ledger_decides_follows_and_its_opposite_does_not(looks: int, count: int) -> None:
    """Every kind of estimate against every kind of band, decided by the ledger's own functions, alone and in threes."""
    for band in BANDS:
        for i in range(len(ESTIMATES) - count + 1):
            findings = [Finding("x", band, x) for x in ESTIMATES[i : i + count]]
            for found in _findings(Judged("supported", findings, looks=looks)):
                assert can_be(found), found
                if found["measured"] is not None:
                    opposite = {"supported": "refuted", "refuted": "supported", "inconclusive": "supported"}
                    assert not can_be(found | {"verdict": opposite[found["verdict"]]}), found


def test_the_end_of_an_open_band_does_not_belong_to_it() -> None:
    zero = {"measured": 0.0, "interval": None, "confidence": 0.95}
    assert lies_apart(zero | {"band": [0.0, None], "predicted": "> 0"})
    assert not lies_apart(zero | {"band": [0.0, None], "predicted": "≥ 0"})
    assert lies_apart(zero | {"band": [None, 0.0], "predicted": "< 0"})
