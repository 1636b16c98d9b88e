"""Symbols are explained where they stand, by the entry where it does, and no word is taken for a symbol."""

import pytest
from sample_ledger import LEDGER, entry, named

from experiments.ledger.glossary import GLOSSARY, symbols


@pytest.mark.parametrize(
    ("statement", "wanted"),
    [
        ("E[Tr H_Signal] = α²(σ_A²/r)·Tr H_ℓ", {"E", "Tr", "H_Signal", "α", "σ_A", "r", "H_ℓ"}),
        ("64·η₀ oscillates, 256·α₀ is stable", {"η₀", "α₀", "oscillates", "stable"}),
        ("Gradient descent is stable iff η ≤ 2/λmax(H)", {"η", "λmax, λmin"}),
        ("A start that isn’t the run’s, as others have it: forget a rate", set()),
        ("at η_FFT the best α* of V2", {"η_FFT", "α*", "V2"}),
    ],
)
def test_symbols_of_a_statement(statement: str, wanted: set[str]) -> None:
    assert symbols(entry("P0", "algebra", statement, evidence_wanted="")).keys() == wanted


def test_what_the_entry_says_comes_first_and_once() -> None:
    found = symbols(named("P3-trace"))
    assert found["σ_A"] == "the standard deviation that A is drawn with"
    assert next(iter(found)) == "σ_A"
    told = symbols(entry("P0", "algebra", "A = B", symbols={"A": "one", "B": "two"}))
    assert "A, B" not in told


def test_nothing_is_explained_by_a_symbol_that_is_not() -> None:
    for e in LEDGER:
        assert symbols(e).keys() <= GLOSSARY.keys() | e.get("symbols", {}).keys()
