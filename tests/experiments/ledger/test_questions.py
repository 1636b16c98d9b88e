"""What readers ask is answered from the entries."""

import copy

from sample_ledger import LEDGER

from experiments.ledger.questions import questions


def test_five_questions_with_the_entries_that_answer_them() -> None:
    refuted, better, rule, untested, again = questions(LEDGER)
    assert [e["id"] for e in refuted.entries] == ["P2-premise", "F2a-trajectories", "F1c-square-root"]
    assert refuted.words == "3 of 14 statements, each with its reason."
    assert better.words.startswith(
        "Not shown here: of 2 statements of the paper that say so, 1 refuted, 1 inconclusive."
    )
    assert "α against η is one rate against two tied ones" in better.words
    assert "could not be tested at this size" in rule.words
    assert [e["id"] for e in untested.entries] == ["P4-update", "V2"]
    assert untested.words == (
        "2 of 14 statements. Of 28 cells of the matrix 1 are blank, not run, and 1 dashed, not testable there. "
        "Nothing was run on MiniLM (minilm), a transformer (transformer)."
    )
    assert (again.question, again.command) == ("How do I rerun P3-trace?", "python -m experiments ledger P3-trace")
    assert "it took 61 s" in again.words


def test_answers_follow_the_verdicts() -> None:
    other = copy.deepcopy(LEDGER)
    for e in other:
        e["verdict"] = "supported" if e["id"] == "V2" else "inconclusive"
    refuted, better, rule, _, _ = questions(other)
    assert (refuted.words, refuted.entries) == ("Nothing.", [])
    assert "tied ones" not in better.words
    assert "Here the best α lay where V2 puts it (supported on digits). Take" in rule.words
    tuned = next(e for e in other if e["id"] == "V2")
    tuned["problems"] = {
        name: {**tuned["problems"]["mlp"], "verdict": verdict}
        for name, verdict in {"a": "supported", "b": "inconclusive", "c": "supported", "d": "not run"}.items()
    }
    assert "lay where V2 puts it (supported on a, c; inconclusive on b). Take" in questions(other)[2].words
    assert questions(LEDGER[:1])[1].words == "It was not asked."
