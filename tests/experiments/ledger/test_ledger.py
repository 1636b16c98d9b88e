"""The ledger: covers every claim, rests on records alone, and refutes every control."""

import json
import shutil
from pathlib import Path

import pytest

from experiments import reproduce
from experiments import reproduce_minilm as minilm
from experiments.claims import CLAIMS, ORDER
from experiments.claims.claim import Claim
from experiments.lab.errors import ControlError
from experiments.lab.experiment import exit_on_bad_input
from experiments.ledger import ledger
from experiments.ledger.ledger import Options, check_controls, entry, find, main, store

FIELDS = {
    *("id", "statement", "assumptions", "source", "command", "predicted", "measured", "interval", "tolerance"),
    *("verdict", "readings", "seconds", "provenance"),
}


def test_registry_has_every_claim_of_the_paper_once() -> None:
    assert [claim.id for claim in CLAIMS] == list(ORDER)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_claim_is_complete(claim: Claim, out: Path) -> None:
    known = {e.name for e in [*reproduce.EXPERIMENTS, *minilm.EXPERIMENTS]}
    assert {r.experiment.name for r in (claim.plain, claim.control, *claim.readings)} <= known
    written = entry(claim, store(out, quick=True), quick=True)
    assert set(written) >= FIELDS
    assert written["verdict"] in {"supported", "refuted", "inconclusive"}
    assert written["control"]["verdict"] != "supported"
    assert all(f["tolerance"] for f in written["findings"])
    assert all((out / "figures" / f"{name}.svg").exists() for name in written["figures"])


def test_ledger_is_valid_json_and_the_same_twice(out: Path, tmp_path: Path) -> None:
    first = json.loads((out / "ledger.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    shutil.rmtree(copy / "timing")
    second = ledger.ledger(copy, quick=True)
    assert any(e["seconds"] for e in first)
    for e in (*first, *second):
        del e["seconds"], e["provenance"]
    assert first == list(second)


def test_claim_says_when_the_last_of_its_records_was_made(out: Path) -> None:
    times = [json.loads(p.read_text())["created"] for p in (out / "timing" / "purification").glob("*.json")]
    written = entry(find("P2-premise"), store(out, quick=True), quick=True)
    assert written["provenance"]["created"] == max(times)


def test_deleted_record_turns_its_claims_to_not_run_and_nothing_else(out: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    gone = next((copy / "purification").glob("*.nc"))
    gone.unlink()
    before, after = ledger.ledger(out, quick=True), ledger.ledger(copy, quick=True)
    touched = {c.id for c in CLAIMS if c.plain.experiment.name == "purification"}
    assert touched
    for old, new in zip(before, after, strict=True):
        if new["id"] in touched:
            assert new["verdict"] == "not run"
            assert new["reason"] == f"purification/{gone.name} is absent"
        elif all("purification" not in r["command"] for r in new["readings"]):
            assert new == old
        else:
            assert new["verdict"] == old["verdict"]


def test_record_of_another_configuration_is_named_and_ignored(out: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    read = store(copy, quick=False)
    written = entry(find("T6-magnitudes"), read)
    assert written["verdict"] == "not run"
    assert written["reason"] == "magnitudes/all.nc is from another configuration or an older schema"
    assert written["findings"] == []
    assert (copy / "magnitudes" / "all.nc").exists()


def test_control_that_is_not_refuted_fails_the_run(out: Path) -> None:
    entries = ledger.ledger(out, quick=True)
    check_controls(entries, quick=True)
    entries[0]["control"]["verdict"] = "supported"
    with pytest.raises(ControlError, match=entries[0]["id"]):
        check_controls(entries, quick=True)
    entries[0]["control"]["verdict"] = "inconclusive"
    check_controls(entries, quick=True)
    with pytest.raises(ControlError, match=entries[0]["id"]):
        check_controls(entries, quick=False)


def test_unknown_claim_lists_the_known_ones(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        exit_on_bad_input(lambda: main(Options("P9-magic")))
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: claim: unknown 'P9-magic'; the claims are P1-update, ")
    assert error.count("\n") == 1
    assert all(name in error for name in ORDER)


def test_claim_is_measured_again_and_printed(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    main(Options("T6-magnitudes", quick=True, out=tmp_path))
    printed = capsys.readouterr().out
    assert printed.startswith("T6-magnitudes: supported")
    assert "control: refuted" in printed
    assert not (tmp_path / "rerun" / "T6-magnitudes").exists()
    assert not (tmp_path / "magnitudes").exists()


def test_list_shows_every_claim(out: Path, capsys: pytest.CaptureFixture) -> None:
    main(Options(list=True, quick=True, out=out))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(ORDER)
