"""Verdicts against the findings beside them: what was altered is named, what the ledger itself computes is not."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.analysis.intervals import certified_between, exactly_known, mean_of
from experiments.ledger import table
from experiments.ledger.ledger import Judged, _findings
from experiments.ledger.quoted.follows import can_be, doubts, lies_apart
from experiments.ledger.verdict import VERDICTS, Band, Finding, above, at_least, below, exactly, power

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
    assert any("'not testable here' does not follow" in line for line in doubts(altered))


def one(published: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return copy.deepcopy(next(e for e in published if e["id"] == name))


@pytest.mark.parametrize("name", ["V2", "X8", "P2-premise", "V1", "LWR-tenfold"])
def test_every_other_verdict_of_a_claim_is_doubted(name: str, published) -> None:
    """All four of them; only Holm's level over several homes leaves one that is not seen: open for refuted."""
    entry = one(published, name)
    said, homes = entry["verdict"], len({f["problem"] for f in entry["findings"]})
    for verdict in VERDICTS:
        unseen = homes > 1 and {verdict, said} == {"refuted", "inconclusive"} and "refuted" in _verdicts(entry)
        assert bool(list(doubts([entry | {"verdict": verdict}]))) == (verdict != said and not unseen), verdict


def _verdicts(entry: dict[str, Any]) -> set[str]:
    return {f["verdict"] for f in entry["findings"]}


def every(**changes: Any) -> Callable[[dict[str, Any]], None]:
    """Change the findings of a claim alone, not those of its problems."""

    def alter(entry: dict[str, Any]) -> None:
        entry["findings"] = [f | changes for f in entry["findings"]]
        entry["verdict"] = "supported"

    return alter


def emptied(entry: dict[str, Any]) -> None:
    entry.update(findings=[], verdict="not testable here")


def chosen(entry: dict[str, Any]) -> None:
    entry["findings"] = [f for f in entry["findings"] if f["verdict"] == "supported"]
    entry["verdict"] = "supported"


def one_home_less(entry: dict[str, Any]) -> None:
    del entry["problems"]["digits"]


def forgotten_control(entry: dict[str, Any]) -> None:
    entry["control"] = None


def without_record(entry: dict[str, Any]) -> None:
    entry["problems"]["digits"]["records"] = None


@pytest.mark.parametrize(
    "alter",
    [
        every(band=[0.001, 1000.0], predicted="0.001 to 1000", verdict="supported"),
        every(measured=1.0, interval=[1.0, 1.0], verdict="supported"),
        every(measured=None, interval=None, verdict="supported"),
        every(power=1.0, problem="mlp"),
        emptied,
        chosen,
        one_home_less,
        forgotten_control,
        without_record,
        lambda entry: entry.update(power=0.999),
        lambda entry: entry.update(measured=1.0),
        lambda entry: entry["problems"]["digits"].update(power=0.999),
        lambda entry: entry["problems"]["digits"]["control"].update(sound=False),
        lambda entry: entry.update(command="python -m experiments stability"),
        lambda entry: entry["readings"].append(entry["problems"]["digits"]["control"]),
    ],
)
def test_what_a_claim_says_of_its_homes_is_what_they_say(alter: Callable[[dict[str, Any]], None], published) -> None:
    entry = one(published, "V2")
    assert list(doubts([entry])) == []
    alter(entry)
    assert list(doubts([entry]))


WRITTEN = {"seeds": 5, "confidence": 0.95}


def test_an_interval_contains_what_was_measured_and_a_band_is_as_it_is_written() -> None:
    found = WRITTEN | {"predicted": "0.9 to 1.1", "band": [0.9, 1.1], "interval": [0.95, 1.05], "verdict": "supported"}
    assert can_be(found | {"measured": 1.0})
    assert not can_be(found | {"measured": 0.94})
    assert not can_be(found | {"measured": 1.0, "interval": [1.05, 0.95]})
    assert not can_be(found | {"measured": 1.0, "predicted": "0.9 to 1.2"})


def test_what_lies_apart_alone_is_refuted_and_beside_others_may_be_open() -> None:
    found = WRITTEN | {"predicted": "≤ 1", "band": [None, 1.0], "interval": [1.1, 1.3], "verdict": "inconclusive"}
    assert can_be(found | {"measured": 1.2})
    assert not can_be(found | {"measured": 1.2}, alone=True)


@pytest.mark.parametrize(
    ("band", "predicted", "interval", "possible"),
    [
        ([0.9, 1.1], "0.9 to 1.1", None, {"refuted", "inconclusive"}),
        ([0.9, 1.1], "0.9 to 1.1", [1.0, None], {"inconclusive"}),
        ([None, 1.0], "≤ 1", [2.0, None], {"refuted", "inconclusive"}),
        ([None, 1.0], "≤ 1", [0.5, None], {"supported", "inconclusive"}),
    ],
)
def test_what_is_no_number_has_not_any_verdict(band, predicted, interval, possible: set[str]) -> None:
    found = WRITTEN | {"measured": None, "band": band, "predicted": predicted, "interval": interval}
    assert {v for v in VERDICTS if can_be(found | {"verdict": v})} == possible


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
