"""The pages of the reference run, at the paper's size: nothing on them that no page may show, and not too large."""

import json
from pathlib import Path

import pytest
from forbidden import forbidden

from experiments.claims import CLAIMS
from experiments.doors.stated import departures
from experiments.ledger import table
from experiments.ledger.ledger import rest_on_kept
from experiments.ledger.pages import Page, write_pages
from experiments.ledger.quoted.manifest import records

DOCS = Path(__file__).parents[3] / "docs"
LARGEST = 4_000_000
"""Bytes of report.html."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both pages, from the ledger that docs/ has; its figures are there as pictures only."""
    out = tmp_path_factory.mktemp("published")
    write_pages(table.read(DOCS / "ledger.json"), Page(out / "figures"), out)
    return out


def test_published_report_has_no_forbidden_number() -> None:
    assert forbidden((DOCS / "report.md").read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("name", ["report.md", "report.html"])
def test_pages_built_from_the_published_ledger_have_none(name: str, built: Path) -> None:
    assert forbidden((built / name).read_text(encoding="utf-8")) == []
    assert (built / name).stat().st_size < LARGEST


def test_published_ledger_has_a_digest_for_every_record_that_decided() -> None:
    entries = table.read(DOCS / "ledger.json")
    assert [e["id"] for e in entries] == [claim.id for claim in CLAIMS]
    for entry in entries:
        for cell in entry["problems"].values():
            decided = cell["verdict"] in ("supported", "refuted", "inconclusive")
            assert not decided or len(cell["records"]) == 16


def test_published_claims_are_those_of_the_code() -> None:
    """Whatever code wrote the ledger: each id, statement, source and home is what the claims say now."""
    assert list(departures(table.read_file(DOCS / "ledger.json")["claims"], CLAIMS)) == []


def test_no_file_of_records_that_the_published_ledger_names_is_missing_or_altered() -> None:
    assert table.read_file(DOCS / "ledger.json")["manifest"]["records"] == records()


def test_no_claim_on_the_mlp_is_open_that_more_seeds_would_decide() -> None:
    """A claim that is inconclusive there had all its stages, or says that no number of seeds would help."""
    entries = table.read(DOCS / "ledger.json")
    claims = {claim.id: claim for claim in CLAIMS}
    for entry in entries:
        cell = entry["problems"]["mlp"]
        if cell["verdict"] == "inconclusive":
            stages = claims[entry["id"]].evidence[0].plain.experiment.stages
            assert cell["seeds"] == 5 * stages[-1], entry["id"]


def test_a_ledger_rests_on_what_is_kept_after_it_was_written(tmp_path: Path) -> None:
    """`make reference` keeps records after the ledger was written; its claims and its code stay what they were."""
    whole = table.read_file(DOCS / "ledger.json")
    stale = whole | {"manifest": whole["manifest"] | {"records": {"docs/records/stability/mlp.zip": "0" * 64}}}
    (tmp_path / "ledger.json").write_text(json.dumps(stale), encoding="utf-8")
    rest_on_kept(tmp_path)
    renewed = whole | {"manifest": whole["manifest"] | {"records": records()}}
    assert table.read_file(tmp_path / "ledger.json") == renewed
