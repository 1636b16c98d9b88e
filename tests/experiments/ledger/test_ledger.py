"""The ledger: covers every claim on every problem, rests on records alone, and refutes every control."""

import json
import shutil
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import xarray as xr

from experiments import claims
from experiments.analysis.intervals import exactly_known, mean_of
from experiments.catalogue import EXPERIMENTS
from experiments.claims import CLAIMS
from experiments.doors.rerun import Options, find, show
from experiments.lab.command_line import exit_on_bad_input
from experiments.lab.errors import ControlError
from experiments.lab.experiment import Experiment, Report
from experiments.lab.problem import Problem
from experiments.lab.runner import Reader, Stored
from experiments.ledger import ledger
from experiments.ledger.claim import GROUPS, Claim, Evidence, Reading
from experiments.ledger.ledger import check_controls, entry, store
from experiments.ledger.verdict import VERDICTS, Finding, above, at_least
from experiments.problems import PROBLEMS

FIELDS = {
    *("id", "group", "ours", "statement", "formula", "assumptions", "source", "setting", "measurement", "command"),
    *("predicted", "measured", "interval", "tolerance", "verdict", "sentence", "evidence_wanted", "findings"),
    *("control", "power", "readings", "narrowest", "figure", "seconds", "provenance", "problems", "rerun"),
}
DECIDED = {"supported", "refuted", "inconclusive"}


def judged(out: Path) -> ledger.Entries:
    return ledger.ledger(CLAIMS, PROBLEMS, Reader(out), quick=True)


def test_registry_has_every_claim_that_a_module_defines_once() -> None:
    """Whatever stands in a module of a folder is in the order of its folder, or of another."""
    folder = Path(claims.__file__).parent
    names = [".".join(path.relative_to(folder).with_suffix("").parts) for path in folder.rglob("*/*.py")]
    modules = [import_module(f"experiments.claims.{name.removesuffix('.__init__')}") for name in names]
    defined = {claim.id for module in modules for claim in getattr(module, "CLAIMS", [])}
    assert sorted(claim.id for claim in CLAIMS) == sorted(defined)


def test_a_folder_is_found_and_gives_its_claims_their_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other papers stand after the paper and our own, by their date."""
    for key, published in (("new", "2026-01"), ("old", "2020-01")):
        (tmp_path / key).mkdir()
        text = (
            "from dataclasses import replace\n"
            "from experiments.claims.lora_alpha.algebra import CLAIMS as THEIRS\n"
            "from experiments.ledger.claim import Source\n"
            f"SOURCE = Source({key!r}, {key!r}, 'A title', {published!r})\n"
            f"CLAIMS = [replace(THEIRS[0], id='{key}-1')]\n"
        )
        (tmp_path / key / "__init__.py").write_text(text, encoding="utf-8")
    monkeypatch.setattr(claims, "__path__", [*claims.__path__, str(tmp_path)])
    found = claims.discovered()
    assert [c.id for c in found if c.paper.key in ("old", "new")] == ["old-1", "new-1"]
    kept = [c.id for c in found if c.paper.key not in ("old", "new")]
    assert kept == [c.id for c in CLAIMS]
    assert next(c.paper.key for c in found) == "lora_alpha"


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_claim_is_complete(claim: Claim, out: Path) -> None:
    known = {e.name for e in EXPERIMENTS}
    every = [reading for evidence in claim.evidence for reading in evidence if reading] + list(claim.readings)
    assert {reading.experiment.name for reading in every} <= known
    assert claim.group in GROUPS
    assert claim.measurement
    written = entry(claim, PROBLEMS, store(Reader(out), quick=True), quick=True)
    assert set(written) >= FIELDS
    assert set(written["problems"]) == set(PROBLEMS)
    assert written["verdict"] in VERDICTS
    assert written["sentence"]
    assert written["control"] is None or written["control"]["verdict"] != "supported"
    assert all(f["tolerance"] and 0 <= f["power"] <= 1 for f in written["findings"])
    if written["figure"]:
        assert (out / "figures" / f"{written['figure']['name']}.svg").exists()
        assert written["figure"]["caption"]
    for cell in written["problems"].values():
        assert cell["sentence"]
        assert cell["verdict"] not in DECIDED or (cell["records"] and cell["evidence_wanted"])


def test_every_card_has_a_figure_that_some_experiment_captions() -> None:
    captions = {name for experiment in EXPERIMENTS for name in experiment.captions}
    assert {claim.figure for claim in CLAIMS} <= captions


def test_ledger_is_valid_json_and_the_same_twice(out: Path, tmp_path: Path) -> None:
    first = json.loads((out / "ledger.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)["claims"]
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    for folder in copy.glob("**/*.timing"):
        shutil.rmtree(folder)
    second = judged(copy)
    assert any(e["seconds"] for e in first)
    for e in (*first, *second):
        for item in (e, *e["problems"].values()):
            del item["seconds"], item["provenance"]
    assert first == list(second)


def test_claim_says_when_the_last_of_its_records_was_made(out: Path) -> None:
    times = [json.loads(p.read_text())["created"] for p in (out / "purification" / "mlp.timing").glob("*.json")]
    written = entry(find("P2-premise"), PROBLEMS, store(Reader(out), quick=True), quick=True)
    assert written["provenance"]["created"] == max(times)


def test_deleted_record_turns_its_claims_to_not_run_and_nothing_else(out: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    gone = next((copy / "purification" / "mlp").glob("*.nc"))
    gone.unlink()
    touched = {c.id for c in CLAIMS if c.evidence[0].plain.experiment.name == "purification"}
    assert touched
    for old, new in zip(judged(out), judged(copy), strict=True):
        if new["id"] in touched:
            assert new["verdict"] == "not run"
            assert new["reason"] == f"purification/mlp/{gone.name} is absent"
            assert new["problems"]["transformer"] == old["problems"]["transformer"]
        elif all("purification" not in r["command"] for r in new["readings"]):
            assert new == old
        else:
            assert new["verdict"] == old["verdict"]


def test_record_of_another_configuration_is_named_and_ignored(out: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    written = entry(find("T6-magnitudes"), PROBLEMS, store(Reader(copy), quick=False))
    assert written["verdict"] == "not run"
    assert written["reason"] == "magnitudes/all.nc is from another configuration or an older schema"
    assert written["findings"] == []
    assert (copy / "magnitudes" / "all.nc").exists()


def test_control_that_is_not_refuted_fails_the_run(out: Path) -> None:
    entries = judged(out)
    check_controls(entries, quick=True)
    entries[0]["control"]["verdict"] = "supported"
    with pytest.raises(ControlError, match=entries[0]["id"]):
        check_controls(entries, quick=True)
    entries[0]["control"] |= {"verdict": "inconclusive", "sound": False}
    check_controls(entries, quick=True)
    with pytest.raises(ControlError, match=entries[0]["id"]):
        check_controls(entries, quick=False)


Values = dict[str, float | None]


def _claim(values: Values, homes: tuple[str, ...], refused: str = "", fails: str = "") -> tuple[Claim, ledger.Store]:
    """A claim that a number is positive, and a store in which each problem has its number (or none)."""
    experiment = Experiment(
        name="trial",
        title="A trial.",
        configure=lambda problem: problem.name,
        points=lambda config: [],
        measure=pytest.fail,
        report=lambda config, data: Report([], [], {}),
        homes=homes,
        refuses=lambda problem: "it has no number" if problem.name == refused else "",
    )

    def exceeds(bound: float, name: str, _: xr.Dataset) -> list[Finding]:
        return [Finding("x", above(bound), exactly_known(values[name] or np.nan))]

    def condition(name: str, _: xr.Dataset) -> str:
        return "the number is imaginary" if name == fails else ""

    plain = Reading("as stated", "x > 0.", experiment, partial(exceeds, 0.0), condition)
    wrong = Reading("control", "x > 1.", experiment, partial(exceeds, 1.0))

    def read(_: Experiment, problem: Problem) -> ledger.Found:
        missing = values[problem.name] is None
        stored = Stored(None, None, "absent") if missing else Stored(xr.Dataset(), 1.0, "", "0123")
        return ledger.Found(problem.name, stored)

    return Claim("T1", "algebra", (), "a test", (Evidence(plain, wrong),)), read


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({"mlp": 0.5, "digits": 0.5}, "supported"),
        ({"mlp": 0.5, "digits": -0.5}, "refuted"),
        ({"mlp": 0.5, "digits": None}, "not run"),
        ({"mlp": 0.5, "digits": float("nan")}, "inconclusive"),
    ],
)
def test_verdict_is_that_of_all_homes_together(values: Values, wanted: str) -> None:
    claim, read = _claim(values, ("mlp", "digits"))
    problems = {name: PROBLEMS[name] for name in values}
    written = entry(claim, problems, read)
    assert written["verdict"] == wanted
    assert written["problems"]["mlp"]["verdict"] == "supported"
    assert next((f["quantity"], f["problem"]) for f in written["findings"]) == ("x", "mlp")


def test_levels_are_shared_over_the_findings_of_all_homes() -> None:
    """A mean below 0 at p = 0.047 refutes "at least 0" where it is the only finding, and not where it is one of two."""
    below = -np.array([0.0, 0.5, 1.0, 1.5, 2.0])
    t = below.mean() / (below.std(ddof=1) / np.sqrt(len(below)))
    assert 0.025 < 2 * scipy.stats.t.cdf(t, len(below) - 1) < 0.05
    claim, read = _claim({"mlp": 1.0, "digits": 1.0}, ("mlp", "digits"))
    samples = {"mlp": below, "digits": -below}

    def positive(name: str, _: xr.Dataset) -> list[Finding]:
        return [Finding("x", at_least(0.0, "a test"), mean_of(samples[name]))]

    both = replace(claim, evidence=(Evidence(claim.evidence[0].plain._replace(findings=positive)),))
    assert entry(both, {"mlp": PROBLEMS["mlp"]}, read)["verdict"] == "refuted"
    assert entry(both, {name: PROBLEMS[name] for name in samples}, read)["verdict"] == "inconclusive"


def test_a_claim_whose_conditions_fail_is_not_testable_there_and_judged_elsewhere() -> None:
    claim, read = _claim({"mlp": 0.5, "digits": -0.5}, ("mlp", "digits"), fails="digits")
    problems = {name: PROBLEMS[name] for name in ("mlp", "digits")}
    written = entry(claim, problems, read)
    assert (written["verdict"], written["problems"]["digits"]["verdict"]) == ("supported", "not testable here")
    assert written["problems"]["digits"]["sentence"] == "The number is imaginary."
    assert entry(replace(claim), {"digits": PROBLEMS["digits"]}, read)["verdict"] == "not testable here"


def test_control_has_to_fall_on_every_home() -> None:
    claim, read = _claim({"mlp": 0.5, "digits": 2.0}, ("mlp", "digits"))
    written = entry(claim, {name: PROBLEMS[name] for name in ("mlp", "digits")}, read)
    assert written["verdict"] == "supported"
    assert written["control"]["verdict"] == "supported"  # x > 1 holds on digits
    with pytest.raises(ControlError, match="T1"):
        check_controls([written], quick=False)


def test_a_weaker_reading_stands_beside_a_claim_only_where_all_homes_support_it() -> None:
    claim, read = _claim({"mlp": 0.5, "digits": -0.5}, ("mlp", "digits"))
    strict = claim.evidence[0].plain
    loose = strict._replace(
        statement="x is a number.",
        findings=lambda config, data: [replace(x, band=above(-1.0)) for x in strict.findings(config, data)],
    )
    for readings, wanted in (((strict._replace(statement="x is there."), loose), "x is a number."), ((strict,), None)):
        written = entry(replace(claim, readings=readings), {n: PROBLEMS[n] for n in claim.homes}, read)
        assert (written["verdict"], written["narrowest"]) == ("refuted", wanted)


def test_a_problem_that_is_no_home_changes_no_verdict_and_has_its_own_cell() -> None:
    claim, read = _claim({"mlp": 0.5, "digits": -0.5}, ("mlp",))
    written = entry(claim, {name: PROBLEMS[name] for name in ("mlp", "digits")}, read)
    assert (written["verdict"], written["problems"]["digits"]["verdict"]) == ("supported", "refuted")


def test_a_problem_that_cannot_answer_is_not_testable_and_says_why() -> None:
    claim, read = _claim({"mlp": 0.5, "digits": -0.5}, ("mlp", "digits"), refused="digits")
    written = entry(claim, {name: PROBLEMS[name] for name in ("mlp", "digits")}, read)
    cell = written["problems"]["digits"]
    assert (cell["verdict"], cell["reason"]) == ("not testable here", "it has no number")
    assert written["verdict"] == "supported"


def test_unknown_claim_lists_the_known_ones(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        exit_on_bad_input(lambda: show(Options("P9-magic")))
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: claim: unknown 'P9-magic'; the claims are P1-update, ")
    assert error.count("\n") == 1
    assert all(claim.id in error for claim in CLAIMS)


def test_claim_is_measured_again_and_printed(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    show(Options("T6-magnitudes", quick=True, out=tmp_path))
    printed = capsys.readouterr().out
    assert printed.startswith("T6-magnitudes: supported")
    assert "control: refuted" in printed
    assert not (tmp_path / "rerun" / "T6-magnitudes").exists()
    assert not (tmp_path / "magnitudes").exists()


def test_list_shows_every_claim(out: Path, capsys: pytest.CaptureFixture) -> None:
    show(Options(list=True, quick=True, out=out))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [claim.id for claim in CLAIMS]
