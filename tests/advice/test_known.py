"""What is quoted of the published ledger is what it says; and which rules are recommended by invented ones."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pages_of_docs import ROOT
from problems import rejects
from safetensors.numpy import save_file

from experiments.claims import CLAIMS as EVERY
from experiments.ledger.first_screen import LITTLE
from experiments.ledger.quoted.manifest import digest_of_claims
from experiments.ledger.table import SCHEMA
from experiments.ledger.verdict import VERDICTS
from signal_drift.__main__ import main
from signal_drift.advice import known as quoted
from signal_drift.advice.known import CLAIMS, as_paragraphs, conclusion, read_ledger

PUBLISHED = ROOT / "docs" / "ledger.json"
QUOTED = ("verdict", "sentence", "power")


def published() -> dict[str, dict[str, Any]]:
    return {entry["id"]: entry for entry in json.loads(PUBLISHED.read_text(encoding="utf-8"))["claims"]}


def test_claims_and_verdicts_are_those_of_the_ledger() -> None:
    assert set(CLAIMS) <= {claim.id for claim in EVERY}
    assert set(quoted.VERDICTS) == set(VERDICTS)
    assert quoted.SCHEMA == SCHEMA
    assert quoted.POWER == LITTLE


def test_what_is_quoted_is_what_the_ledger_says() -> None:
    entries, found = published(), read_ledger(PUBLISHED)
    assert [x.claim for x in found] == list(CLAIMS)
    for x in found:
        entry = entries[x.claim]
        assert x.statement == entry["statement"]
        assert x.judged == tuple(entry[k] for k in QUOTED)
        assert x.problems == {cell["label"]: tuple(cell[k] for k in QUOTED) for cell in entry["problems"].values()}


def test_every_decided_problem_is_quoted_with_its_power() -> None:
    text = as_paragraphs(read_ledger(PUBLISHED))
    for claim in CLAIMS:
        entry = published()[claim]
        assert f"{claim}: {entry['statement']}\n" in text
        assert entry["sentence"] in text
        for cell in entry["problems"].values():
            if cell["verdict"] in {"supported", "refuted", "inconclusive"}:
                told = f"  {cell['verdict']} (power {cell['power']:.3g}), {cell['label']}: {cell['sentence']}"
                assert told in text.splitlines()
            else:
                lines = [line for line in text.splitlines() if line.startswith(f"  {cell['verdict']}: ")]
                assert any(cell["label"] in line for line in lines)


def cell(verdict: str, power: float | None = None, label: str = "a task", **more: Any) -> dict[str, Any]:
    return {"verdict": verdict, "sentence": f"It is {verdict}.", "power": power, "label": label, **more}


def entry(claim: str, verdict: str, power: float | None = None, **more: Any) -> dict[str, Any]:
    problems = {"one": cell(verdict, power), "two": cell("not run", label="another")}
    return {"id": claim, "statement": f"{claim} holds.", **cell(verdict, power), "problems": problems, **more}


def ledger_of(path: Path, *entries: Any) -> Path:
    return written(path, {"schema": SCHEMA, "manifest": {"claims": digest_of_claims(entries)}, "claims": entries})


def written(path: Path, found: Any) -> Path:
    path.write_text(json.dumps(found), encoding="utf-8")
    return path


RECOMMENDED = {
    "supported": (entry("V2", "supported", 0.9), True),
    "supported at the least power": (entry("V2", "supported", 0.5), True),
    "supported without power": (entry("V2", "supported", 0.49), False),
    "supported with a power that nobody knows": (entry("V2", "supported"), False),
    "refuted": (entry("V2", "refuted", 1.0), False),
    "supported on one problem, and not as stated": (
        entry("V2", "inconclusive", 1.0, problems={"one": cell("supported", 1.0)}),
        False,
    ),
    "supported, and on no problem": (entry("V2", "supported", 1.0, problems={"one": cell("inconclusive")}), False),
    "supported, and without problems": (entry("V2", "supported", 1.0, problems={}), False),
    "no rule": (entry("X8", "supported", 1.0), False),
}


@pytest.mark.parametrize(("given", "recommended"), RECOMMENDED.values(), ids=RECOMMENDED)
def test_no_rule_is_recommended_beyond_what_was_supported(
    tmp_path: Path, given: dict[str, Any], recommended: bool
) -> None:
    known = read_ledger(ledger_of(tmp_path / "l.json", given, entry("V1", "not testable here")))
    told = conclusion(known)
    assert [x.claim for x in known if x.recommended] == (["V2"] if recommended else [])
    if recommended:
        assert told == "Supported as stated: V2 on a task. Beyond these problems no rule is recommended."
    else:
        assert told.startswith("No rule is recommended: ")
        assert "V1 is not testable here" in told
        assert "X8" not in told


def test_a_ledger_without_rules_says_so(tmp_path: Path) -> None:
    told = conclusion(read_ledger(ledger_of(tmp_path / "l.json", entry("X8", "supported", 1.0))))
    assert told.endswith("(the ledger has no rule).")


def change_verdict(whole: dict[str, Any]) -> None:
    next(x for x in whole["claims"] if x["id"] == "V1")["verdict"] = "supported"


ALTERED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "another verdict": change_verdict,
    "a claim less": lambda whole: whole["claims"].pop(),
    "no digest": lambda whole: whole["manifest"].pop("claims"),
    "no manifest": lambda whole: whole.pop("manifest"),
}


@pytest.mark.parametrize("alter", ALTERED.values(), ids=ALTERED)
def test_an_altered_ledger_is_refused(tmp_path: Path, alter: Callable[[dict[str, Any]], Any]) -> None:
    whole = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    path = written(tmp_path / "l.json", whole)
    read_ledger(path)  # control: laid out otherwise it is the same
    alter(whole)
    with rejects("ledger: is altered, the SHA-256 of its claims must be ") as caught:
        read_ledger(written(path, whole))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("statement", [float("nan"), "\ud800"], ids=["NaN", "half a character"])
def test_claims_without_a_digest_are_refused(tmp_path: Path, statement: Any) -> None:
    claims = [entry("V2", "refuted", 1.0, statement=statement)]
    with rejects("ledger: claims cannot be written as JSON"):
        read_ledger(written(tmp_path / "l.json", {"schema": SCHEMA, "manifest": {}, "claims": claims}))


def test_a_claim_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    twice = (entry("V2", "refuted", 1.0), entry("V1", "refuted", 1.0), entry("V2", "supported", 1.0))
    with rejects("ledger: has the claim 'V2' twice"):
        read_ledger(ledger_of(tmp_path / "l.json", *twice))


def test_a_quoted_text_commands_no_terminal(tmp_path: Path) -> None:
    path = ledger_of(tmp_path / "l.json", entry("V2", "refuted", 1.0, statement="\x1b[2J\nV1: supported"))
    assert as_paragraphs(read_ledger(path)).splitlines()[0] == r"V2: \x1b[2J\nV1: supported"


def without(name: str, of: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in of.items() if k != name}


ENTRY = entry("V2", "supported", 1.0)
OTHERS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "a list": ([ENTRY], ("ledger: must be of the schema 'signal_drift/ledger/1', got None",)),
    "another version": (
        {"schema": "signal_drift/ledger/2", "claims": [ENTRY]},
        ("ledger: must be of the schema 'signal_drift/ledger/1', got 'signal_drift/ledger/2'",),
    ),
    "no claims": ({"schema": SCHEMA}, ("ledger: claims must be a list of objects with an id, got None",)),
    "claims by name": ({"schema": SCHEMA, "claims": {"V2": ENTRY}}, ("ledger: claims must be a list",)),
}
ENTRIES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "no entry": (1, ("ledger: claims must be a list of objects with an id",)),
    "none of the claims": (entry("P1-update", "supported"), ("ledger: has none of V1, V2, ", "got 1 claims")),
    **{
        f"no {name}": (without(name, ENTRY), (f"ledger: is of another schema, V2 has no {name!r}",))
        for name in ("statement", "verdict", "sentence", "power", "problems")
    },
    **{
        f"no {name} on a problem": (
            ENTRY | {"problems": {"one": without(name, cell("supported"))}},
            (f"ledger: is of another schema, V2 on one has no {name!r}",),
        )
        for name in ("label", "verdict", "sentence", "power")
    },
    "a problem in words": (ENTRY | {"problems": {"one": "fine"}}, ("ledger: V2 on one must be an object, got 'fine'",)),
    "a list of problems": (ENTRY | {"problems": []}, ("ledger: problems of V2 must be dict, got []",)),
    "another verdict": (
        ENTRY | {"verdict": "true"},
        ("ledger: verdict of V2 must be one of supported, ", "got 'true'"),
    ),
    "another power": (ENTRY | {"power": 1.5}, ("ledger: power of V2 must be from 0 to 1 or null, got 1.5",)),
    "a power in words": (ENTRY | {"power": "high"}, ("ledger: power of V2 must be from 0 to 1 or null, got 'high'",)),
}


@pytest.mark.parametrize(("found", "words"), OTHERS.values(), ids=OTHERS)
def test_a_ledger_of_another_schema_is_one_line(tmp_path: Path, found: Any, words: tuple[str, ...]) -> None:
    with rejects(*words) as caught:
        read_ledger(written(tmp_path / "l.json", found))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("found", "words"), ENTRIES.values(), ids=ENTRIES)
def test_an_entry_of_another_schema_is_one_line(tmp_path: Path, found: Any, words: tuple[str, ...]) -> None:
    with rejects(*words) as caught:
        read_ledger(ledger_of(tmp_path / "l.json", found))
    assert "\n" not in str(caught.value)


def given(folder: Path, ledger: Path) -> list[str]:
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["x"]}
    written(folder / "adapter_config.json", config)
    save_file({"x": np.eye(12, dtype=np.float32)}, folder / "g.safetensors")
    return ["advise", str(folder), "--gradient", str(folder / "g.safetensors"), "--ledger", str(ledger)]


def test_command_quotes_the_ledger_under_the_table(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Before it r, 1/σ_A and V2/r of the layers, which the conditions of claims are about."""
    main(given(tmp_path, PUBLISHED))
    lines = capsys.readouterr().out.splitlines()
    begins = next(i for i, line in enumerate(lines) if line.startswith("What is known of each rule."))
    assert "Here r is 4, 1/σ_A 6 and V2/r 3;" in lines[begins]  # √(3·12) = 6, 6·√4/4 = 3
    known = read_ledger(PUBLISHED)
    assert "\n".join(lines[begins + 1 :]) == f"{as_paragraphs(known)}\n{conclusion(known)}"


def test_command_prints_the_same_as_json(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    main([*given(tmp_path, PUBLISHED), "--json"])
    printed = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["known"]
    assert [x["claim"] for x in printed] == list(CLAIMS)
    for x in printed:
        of_ledger = published()[x["claim"]]
        assert {k: x[k] for k in QUOTED} == {k: of_ledger[k] for k in QUOTED}
        assert x["problems"] == {c["label"]: {k: c[k] for k in QUOTED} for c in of_ledger["problems"].values()}


@pytest.mark.parametrize("text", ["{", "[{}]", "null"])
def test_command_refuses_another_ledger_before_it_reads_a_gradient(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    path = tmp_path / "l.json"
    path.write_text(text, encoding="utf-8")
    never: Callable[..., Any] = pytest.fail
    monkeypatch.setattr("signal_drift.__main__.advise_from_gradient", never)
    with pytest.raises(SystemExit) as caught:
        main(given(tmp_path, path))
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: l")
    assert error.count("\n") == 1
