"""A ledger read back is the ledger written, and its table names every claim."""

from pathlib import Path

import pytest

from experiments.claims import CLAIMS
from experiments.lab.errors import RecordError
from experiments.lab.runner import Reader
from experiments.ledger import ledger, table
from experiments.problems import PROBLEMS


def test_entries_read_back_are_those_written(tmp_path: Path) -> None:
    written = ledger.ledger(CLAIMS, PROBLEMS, Reader(tmp_path))
    ledger.write(written, tmp_path)
    assert table.read(tmp_path / "ledger.json") == written
    assert repr(written).splitlines()[0] == f"{len(CLAIMS)} claims: {len(CLAIMS)} not run"
    assert [line.split()[0] for line in repr(written).splitlines()[2:]] == [claim.id for claim in CLAIMS]


def test_entries_of_some_claims(tmp_path: Path) -> None:
    some = ledger.ledger(CLAIMS, PROBLEMS, Reader(tmp_path)).of({"X3", "V1"})
    assert [entry["id"] for entry in some] == ["V1", "X3"]
    assert repr(some).startswith("2 claims: 2 not run")


@pytest.mark.parametrize("text", [None, "", "{", "3", '{"a": 1}', '[{"id": "X1"}]', '{"schema": 3}'])
def test_what_is_no_ledger_is_refused(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "ledger.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(RecordError, match=r"ledger: '.*' is no ledger.json"):
        table.read(path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[]", "a list without a schema, as before signal_drift/ledger/1"),
        ('{"schema": "other/2"}', "its schema is 'other/2', known is 'signal_drift/ledger/1'"),
        ('{"schema": "\\u001b[31m"}', r"its schema is '\x1b[31m', known is 'signal_drift/ledger/1'"),
    ],
)
def test_a_ledger_of_another_schema_is_refused_and_says_which(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "ledger.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecordError) as error:
        table.read(path)
    assert str(error.value) == f"ledger: {str(path)!r} is no ledger.json ({reason})"
