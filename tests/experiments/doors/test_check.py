"""`python -m experiments check`: what holds of a quoted ledger in a few lines, what does not in one, with exit 2."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments.__main__ import door
from experiments.doors.check import checked
from experiments.lab.command_line import exit_on_bad_input
from experiments.ledger.quoted.manifest import digest_of_claims

DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture
def whole() -> dict[str, Any]:
    return json.loads((DOCS / "ledger.json").read_text(encoding="utf-8"))


def test_the_published_ledger_is_sound() -> None:
    claims, verdicts, records, kept, code = checked(DOCS / "ledger.json")
    assert claims.startswith("signal_drift/ledger/1: ")
    assert verdicts.startswith("every verdict follows from its findings, of which there are ")
    here, _, of = records.split()[:3]
    assert int(here) <= int(of)
    assert int(kept.split()[0]) > 100
    assert "commit" in code


def refused(whole: dict[str, Any], folder: Path, capsys: pytest.CaptureFixture) -> str:
    path = folder / "ledger.json"
    path.write_text(json.dumps(whole), encoding="utf-8")
    with pytest.raises(SystemExit) as stop:
        exit_on_bad_input(lambda: door(["check", str(path)]))
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line.replace(repr(str(path)), "PATH")


def supported(whole: dict[str, Any]) -> None:
    next(e for e in whole["claims"] if e["id"] == "P2-premise")["verdict"] = "supported"


def supported_and_digested(whole: dict[str, Any]) -> None:
    supported(whole)
    whole["manifest"]["claims"] = digest_of_claims(whole["claims"])


def other_records(whole: dict[str, Any]) -> None:
    whole["manifest"]["records"]["docs/records/stability/mlp.zip"] = "0" * 64


def other_schema(whole: dict[str, Any]) -> None:
    whole["schema"] = "signal_drift/ledger/9"


@pytest.mark.parametrize(
    ("alter", "line"),
    [
        (supported, "error: ledger: PATH was altered: its claims have not the digest of its manifest"),
        (
            supported_and_digested,
            "error: ledger: PATH: P2-premise: the verdict 'supported' does not follow from its findings",
        ),
        (other_records, "error: ledger: PATH rests on other records than docs/records/stability/mlp.zip"),
        (
            other_schema,
            "error: ledger: PATH is no ledger.json (its schema is 'signal_drift/ledger/9', known is "
            "'signal_drift/ledger/1')",
        ),
    ],
)
def test_what_does_not_hold_is_one_line(
    alter: Callable[[dict[str, Any]], None], line: str, whole, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    alter(whole)
    assert refused(whole, tmp_path, capsys) == line


def test_a_ledger_laid_out_otherwise_is_the_same(whole, tmp_path: Path) -> None:
    """Keys in another order, no blanks, every character escaped."""
    path = tmp_path / "ledger.json"
    path.write_text(json.dumps(whole, sort_keys=True, separators=(",", ":"), ensure_ascii=True), encoding="utf-8")
    assert checked(path) == checked(DOCS / "ledger.json")
