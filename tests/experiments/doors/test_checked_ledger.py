"""`python -m experiments check`: what holds of a quoted ledger in a few lines, what does not in one, with exit 2."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments.__main__ import door
from experiments.doors.check import checked
from experiments.lab.command_line import exit_on_bad_input
from experiments.ledger.quoted.manifest import code, digest_of_claims

DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture
def whole() -> dict[str, Any]:
    return json.loads((DOCS / "ledger.json").read_text(encoding="utf-8"))


def test_the_published_ledger_is_sound() -> None:
    claims, verdicts, catalogue, records, kept, code = checked(DOCS / "ledger.json")
    assert claims.startswith("signal_drift/ledger/1: ")
    assert verdicts.startswith("every verdict follows from its findings, of which there are ")
    assert catalogue.startswith("its claims are ")
    here, _, of = records.split()[:3]
    assert int(here) <= int(of)
    assert int(kept.split()[0]) > 100
    assert "; these on records of that run, which are not: " in kept
    assert "commit" in code


def refused(whole: dict[str, Any], folder: Path, capsys: pytest.CaptureFixture) -> str:
    path = folder / "ledger.json"
    path.write_text(json.dumps(whole), encoding="utf-8")
    with pytest.raises(SystemExit) as stop:
        exit_on_bad_input(lambda: door(["check", str(path)]))
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line.replace(repr(str(path)), "PATH")


def claim(whole: dict[str, Any], name: str) -> dict[str, Any]:
    return next(e for e in whole["claims"] if e["id"] == name)


def supported(whole: dict[str, Any]) -> None:
    claim(whole, "P2-premise")["verdict"] = "supported"


def supported_and_digested(whole: dict[str, Any]) -> None:
    supported(whole)
    whole["manifest"]["claims"] = digest_of_claims(whole["claims"])


def other_records(whole: dict[str, Any]) -> None:
    whole["manifest"]["records"]["docs/records/stability/mlp.zip"] = "0" * 64


def other_schema(whole: dict[str, Any]) -> None:
    whole["schema"] = "signal_drift/ledger/9"


def other_digests(whole: dict[str, Any]) -> None:
    """The digest of a record whose archive is here."""
    claim(whole, "P2-premise")["problems"]["mlp"]["records"] = "0" * 16
    whole["manifest"]["claims"] = digest_of_claims(whole["claims"])


def surrogate(whole: dict[str, Any]) -> None:
    claim(whole, "P2-premise")["sentence"] = "\ud800"


def unnamed_records(whole: dict[str, Any]) -> None:
    whole["manifest"]["records"] = {}


def removed(whole: dict[str, Any]) -> None:
    whole["claims"] = [e for e in whole["claims"] if e["id"] != "X8"]


def added(whole: dict[str, Any]) -> None:
    whole["claims"].append(claim(whole, "X8") | {"id": "X99"})


def reworded(whole: dict[str, Any]) -> None:
    claim(whole, "X8")["statement"] = "The moon is cheese."


def ours(whole: dict[str, Any]) -> None:
    claim(whole, "P3-trace")["ours"] = True


def elsewhere(whole: dict[str, Any]) -> None:
    """Decided on the transformer alone, where it is supported too, with all that follows from that."""
    entry = claim(whole, "X8")
    cell = entry["problems"]["transformer"]
    same = ("command", "findings", "verdict", "power", "predicted", "measured", "interval", "tolerance", "control")
    entry.update({key: copy.deepcopy(cell[key]) for key in same})
    for finding in entry["findings"]:
        finding["problem"] = "transformer"


def cell_reworded(whole: dict[str, Any]) -> None:
    claim(whole, "X8")["problems"]["mlp"]["statement"] = "The moon is cheese."


def without_controls(whole: dict[str, Any]) -> None:
    entry = claim(whole, "X8")
    for judged in (entry, *entry["problems"].values()):
        judged["control"] = None


@pytest.mark.parametrize(
    ("alter", "words"),
    [
        (removed, "X8 is lacking, by the claims of the code"),
        (added, "X99 is unknown, by the claims of the code"),
        (reworded, "X8: what it says of 'statement' is not that of the code"),
        (ours, "P3-trace: what it says of 'ours' is not that of the code"),
        (elsewhere, "X8: it is decided on other problems than the code says"),
        (cell_reworded, "X8: on mlp another statement or command than that of the code"),
        (without_controls, "X8: on mlp its control is lacking"),
    ],
)
def test_claims_are_those_of_the_code_where_it_is_the_same(
    alter: Callable[[dict[str, Any]], None], words: str, whole, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """And are not compared where it is another, which is said."""
    alter(whole)
    whole["manifest"] |= {"claims": digest_of_claims(whole["claims"]), "code": dict(code())}
    assert refused(whole, tmp_path, capsys) == f"error: ledger: PATH: {words}"
    del whole["manifest"]["code"]["experiments/doors/check.py"]
    path = tmp_path / "ledger.json"
    path.write_text(json.dumps(whole), encoding="utf-8")
    assert checked(path)[2] == "its claims are not compared with the code, which differs"


def test_missing_files_of_records_are_named_and_no_error(whole, tmp_path: Path) -> None:
    whole["manifest"]["records"]["docs/records/elsewhere/mlp.zip"] = "0" * 64
    path = tmp_path / "ledger.json"
    path.write_text(json.dumps(whole), encoding="utf-8")
    assert checked(path)[3].endswith("; missing: docs/records/elsewhere/mlp.zip")


@pytest.mark.parametrize(
    ("alter", "line"),
    [
        (supported, "error: ledger: PATH was altered: its claims have not the digest of its manifest"),
        (
            supported_and_digested,
            "error: ledger: PATH: P2-premise: the verdict 'supported' does not follow from its findings",
        ),
        (other_records, "error: ledger: PATH rests on other records than docs/records/stability/mlp.zip"),
        (other_digests, "error: ledger: PATH: P2-premise on mlp rests on no records that are kept of it"),
        (unnamed_records, "error: ledger: PATH: P1-update on mlp rests on no records that are kept of it"),
        (surrogate, "error: ledger: PATH has a text that is none (half of a surrogate pair)"),
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
