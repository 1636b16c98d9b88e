"""The first screen says what the verdicts say: with another verdict a line is another, or gone."""

import copy
from typing import Any

import pytest
from sample_ledger import LEDGER, named

from experiments.ledger.first_screen import Line, first_screen


def lines(**changes: Any) -> list[Line]:
    """The lines with some fields of one entry replaced, `claim=` naming it; without it, if there is nothing else."""
    ledger = copy.deepcopy(LEDGER)
    claim = changes.pop("claim", None)
    if claim and not changes:
        ledger = [e for e in ledger if e["id"] != claim]
    for e in ledger:
        if e["id"] == claim:
            e.update(changes)
    return first_screen(ledger)


def titled(found: list[Line], words: str) -> list[Line]:
    return [line for line in found if words in line.title]


def test_six_lines_with_the_numbers_of_the_entries() -> None:
    assert [(line.mark, line.title) for line in lines()] == [
        ("supported", "The algebra is exact"),
        ("inconclusive", "At fixed weights the scaling laws are not all decided"),
        ("refuted", "The premise of positive curvature fails"),
        ("refuted", "128·η₀ does not diverge under any reading"),
        ("inconclusive", "Best α, √r and the protocol"),
        ("new", "New: under Adam from B = 0, α is the learning rate of B"),
    ]
    words = [line.words for line in lines()]
    assert words[0] == "All 3 statements hold, 2 of them the paper’s and 1 our own"
    assert words[1].startswith("2 of 3 laws hold; Tr H_Signal / prediction, r = 1: 1.004 [0.97, 1.03] over 5 samples")
    assert words[1].endswith("; inconclusive: P4-landscape")
    assert words[2].startswith("λ_min[H_ℓ] / λ_max[H_ℓ]: −0.2288 [−0.3215, −0.136] over 5 samples; refuted on 1 of 2 ")
    assert words[3] == (
        "It diverged at 0 of 5 seeds, a share within [0, 0.4345], and under 0 of 18 other readings of the setting"
    )
    assert words[4] == (
        "Of 3 statements: 1 refuted, 1 inconclusive, 1 not testable here. "
        "Not testable at this size: V2 (at r = 64 and d = 64 V2 is α = r, the baseline)"
    )
    assert words[5] == "All 2 statements of our own hold"


@pytest.mark.parametrize(
    ("changes", "gone", "come", "mark"),
    [
        ({"claim": "P1-update", "verdict": "refuted"}, "is exact", "The algebra does not hold as stated", "refuted"),
        ({"claim": "P4-landscape", "verdict": "supported"}, "not all", "the scaling laws hold", "supported"),
        ({"claim": "P3-trace", "verdict": "refuted"}, "not all decided", "not all scaling laws hold", "refuted"),
        ({"claim": "P2-premise", "verdict": "supported"}, "fails", "positive curvature holds", "supported"),
        ({"claim": "P2-premise", "verdict": "inconclusive"}, "fails", "is undecided", "inconclusive"),
        ({"claim": "P2-premise"}, "curvature", "", ""),
        ({"claim": "P2-premise", "verdict": "not run"}, "curvature", "", ""),
        ({"claim": "F2a-trajectories"}, "128·η₀", "", ""),
        ({"claim": "F2a-trajectories", "findings": []}, "128·η₀", "", ""),
        ({"claim": "X4", "verdict": "inconclusive"}, "New", "The algebra is exact as far as", "inconclusive"),
    ],
)
def test_another_verdict_is_another_line(changes: dict, gone: str, come: str, mark: str) -> None:
    found = lines(**changes)
    assert titled(lines(), gone)
    assert titled(found, gone) == [] or come.startswith(gone)
    if come:
        assert [line.mark for line in titled(found, come)] == [mark]


def test_divergence_under_some_reading_or_at_most_seeds_is_said() -> None:
    entry = copy.deepcopy(named("F2a-trajectories"))
    entry["readings"][3]["findings"][0] = entry["findings"][0] | {"verdict": "supported"}
    (line,) = first_screen([entry])
    assert (line.title, line.words.split(", ")[-1]) == (
        "128·η₀ does not diverge",
        "and under 1 of 18 other readings of the setting",
    )
    entry["findings"][0] |= {"verdict": "supported", "measured": 0.8, "interval": [0.55, 0.98]}
    (line,) = first_screen([entry | {"readings": None}])
    assert (line.mark, line.title) == ("supported", "128·η₀ diverges, as Fig. 2a has it")
    assert line.words == "It diverged at 4 of 5 seeds, a share within [0.55, 0.98]"


def test_a_statement_of_our_own_is_none_of_the_papers_on_tuning() -> None:
    (line,) = titled(lines(claim="F1c-square-root", ours=True), "Best α")
    assert line.words.startswith("Of 2 statements: 1 inconclusive, 1 not testable here.")


def test_nothing_is_said_of_nothing() -> None:
    assert first_screen([]) == []
    assert first_screen([e | {"verdict": "not run", "findings": []} for e in LEDGER]) == []


@pytest.mark.parametrize(
    ("verdicts", "mark", "title"),
    [
        (("refuted", "refuted"), "refuted", "The drift is not what troubles a large η"),
        (("inconclusive", "refuted"), "refuted", "The drift is not what troubles a large η"),
        (("supported", "refuted"), "refuted", "The drift is not shown to be what troubles a large η"),
        (("supported", "supported"), "supported", "The drift is what troubles a large η"),
        (("inconclusive", "inconclusive"), "inconclusive", "Whether the drift is what troubles a large η is undecided"),
        (("not run", "not run"), "", ""),
    ],
)
def test_the_culprit_is_named_by_what_removing_it_does(verdicts, mark, title) -> None:
    entry = named("P2-premise")
    finding = entry["findings"][0]
    entries = [
        copy.deepcopy(entry) | {"id": name, "verdict": verdict, "findings": [finding | {"verdict": verdict}]}
        for name, verdict in zip(("C1", "C2"), verdicts, strict=True)
    ]
    found = titled(first_screen([*LEDGER, *entries]), "troubles")
    assert [(line.mark, line.title) for line in found] == ([(mark, title)] if mark else [])
    for line in found:
        assert line.words.startswith("λ_min[H_ℓ] / λ_max[H_ℓ]: −0.2288")
        assert f"of {len(entries)} statements" in line.words or line.words.count("All 2 statements")


def of_another_paper(name: str, verdict: str, **changes: Any) -> dict[str, Any]:
    entry = copy.deepcopy(named("P1-update")) | {"id": name, "verdict": verdict, "power": 1.0, "setting": ""}
    return entry | {"paper": entry["paper"] | {"key": "another"}} | changes


def test_what_another_paper_states_is_told_from_what_follows_from_it_and_where_it_was_asked() -> None:
    entries = [
        of_another_paper("held", "supported"),
        of_another_paper("weak", "supported", power=0.49),
        of_another_paper("enough", "supported", power=0.5),
        of_another_paper("algebra", "refuted"),
        of_another_paper("elsewhere", "refuted", setting="The paper: Llama. Here: digits."),
        of_another_paper("open", "inconclusive", setting="The paper: Llama. Here: digits."),
        of_another_paper("ours of it", "supported", source="derived from the algorithm"),
        of_another_paper("untested", "not testable here", power=None),
    ]
    (line,) = first_screen(entries)
    assert line.title == "What 1 other paper states"
    assert line.words == (
        "2 of 6 statements hold; supported with little power: weak; refuted: algebra; refuted here, on other tasks "
        "than theirs: elsewhere; inconclusive here, on other tasks than theirs: open; 1 of 1 derived from them hold; "
        "1 not testable here"
    )


def test_little_power_alone_does_not_make_the_line_green() -> None:
    (line,) = first_screen([of_another_paper("weak", "supported", power=0.1)])
    assert (line.mark, line.words) == ("inconclusive", "0 of 1 statements hold; supported with little power: weak")


def test_little_power_counts_as_little_among_the_laws_and_causes_too() -> None:
    """It is named and linked to, and no line stands on it."""
    weak = lines(claim="P4-landscape", verdict="supported", power=0.2)
    (line,) = titled(weak, "At fixed weights")
    assert (line.mark, line.title) == ("inconclusive", "At fixed weights the scaling laws are not all decided")
    assert line.words.startswith("2 of 3 laws hold; ")
    assert line.words.endswith("; supported with little power: P4-landscape")
    assert line.ids == ("P4-landscape",)
    causes = [
        copy.deepcopy(named("P2-premise")) | {"id": c, "verdict": "supported", "power": 0.2} for c in ("C1", "C2")
    ]
    (line,) = titled(first_screen(causes), "troubles")
    assert (line.mark, line.title) == ("inconclusive", "Whether the drift is what troubles a large η is undecided")
    assert line.words.endswith("0 of 2 statements on it as a cause hold; supported with little power: C1, C2")
