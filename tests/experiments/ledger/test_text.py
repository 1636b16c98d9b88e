"""Numbers, words and formulas as a page has them."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_ledger import finding

from experiments.ledger import text

POWERS = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹−", "-0123456789-")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (math.nan, "–"),
        (math.inf, "–"),
        (0.0, "0"),
        (-0.0, "0"),
        (1.0, "1"),
        (1 / 3, "0.3333"),
        (-0.228762800435105, "−0.2288"),
        (12345.6, "12350"),
        (9999.6, "10000"),
        (99999.0, "10⁵"),
        (1e-13, "10⁻¹³"),
        (-1e-13, "−10⁻¹³"),
        (2.2204e-16, "2.22·10⁻¹⁶"),
        (0.00012346, "0.0001235"),
        (6.02214e23, "6.022·10²³"),
    ],
)
def test_a_number_has_four_significant_digits_at_most(value: float | None, shown: str) -> None:
    assert text.number(value) == shown


@given(st.floats(1e-300, 1e300), st.sampled_from([1, -1]))
def test_a_number_read_back_is_near_the_number(size: float, sign: int) -> None:
    """Four digits are off by half a unit of the fourth at most, 5e-4 of a number that starts with 1.000."""
    shown = text.number(sign * size).translate(POWERS)
    plain = shown.replace("·10", "e") if "·" in shown else re.sub(r"^(-?)10(?=[-\d])(?!0*$)", r"\g<1>1e", shown)
    read = plain if size >= 1e5 or size < 1e-4 else shown
    assert float(read) == pytest.approx(sign * size, rel=5.001e-4, abs=0)


@pytest.mark.parametrize(
    ("pair", "shown"),
    [
        ([0.99, 1.01], "[0.99, 1.01]"),
        ([None, 1], "(−∞, 1]"),
        ([-1e-13, None], "[−10⁻¹³, ∞)"),
        ([1 - 1e-7, 1 + 3e-7], "± 2·10⁻⁷"),
        ([0.5, 0.5], ""),
        ([None, None], ""),
        (None, ""),
    ],
)
def test_interval_shows_which_end_is_bounded_and_nothing_without_a_width(pair: list | None, shown: str) -> None:
    assert text.interval(pair) == shown


def test_a_band_too_narrow_for_four_digits_is_told_by_its_half_width() -> None:
    assert text.allowed(finding("x", "0.999999 to 1.000001", [1 - 1e-6, 1 + 1e-6], 1, None)) == "1 ± 10⁻⁶"
    assert text.allowed(finding("x", "≥ -1.13686e-12", [-1.13686e-12, None], 1, None)) == "≥ −1.137·10⁻¹²"
    assert text.allowed(finding("x", "", [None, 1], 1, None)) == "–"


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("is 0.1428571 of -1.5e-07", "is 0.1429 of −1.5·10⁻⁷"),
        ("is 1.0000001 [0.9999999, 1.0000002]; 2 [2, 2]", "is 1; 2"),
        ("Eq. 34–40, r = 16, H_12345, α²", "Eq. 34–40, r = 16, H_12345, α²"),
        ("jax 0.10.25431 of 2026-11-25T19:41:42Z", "jax 0.10.25431 of 2026-11-25T19:41:42Z"),
        ("8c4bb864771138261 and 12345x", "8c4bb864771138261 and 12345x"),
    ],
)
def test_numbers_within_words_are_shortened_and_nothing_else(words: str, shown: str) -> None:
    assert text.short(words) == shown


def test_an_interval_says_its_method_and_its_confidence() -> None:
    made = finding("x", "1", [0, 1], 0.5, [0.4, 0.6])
    assert text.method(made) == "98.33% Student's t over 5"
    assert text.method(made | {"confidence": None}) == "Student's t over 5"
    assert text.method(made | {"method": ""}) == ""


def test_durations_have_a_unit_a_reader_can_picture() -> None:
    seconds = (None, 0.123, 61.2, 600.0, 7400.0)
    assert [text.duration(s) for s in seconds] == ["–", "0.12 s", "61 s", "10 min", "2.1 h"]


def test_indices_of_symbols_stand_low_and_text_is_escaped() -> None:
    low = "JᵀH<sub>ℓ</sub>J, ΔW<sub>Signal</sub>, σ<sub>A</sub>², ‖W‖<sub>F</sub>, ∇<sub>θ</sub> ℓ, ‖G‖<sub>*</sub>"
    assert text.subscripts("JᵀH_ℓJ, ΔW_Signal, σ_A², ‖W‖_F, ∇_θ ℓ, ‖G‖_*") == low
    assert text.subscripts("update_scaling, a_b_c <b>x_1</b> & y") == (
        "update_scaling, a_b_c &lt;b&gt;x<sub>1</sub>&lt;/b&gt; &amp; y"
    )


def test_markdown_text_cannot_end_a_cell_or_start_a_tag() -> None:
    assert text.plain("|λ|\n `a` <b> < 1 [x](y) *z* ‖·‖_F H_ℓ") == (r"\|λ\| \`a\` \<b> < 1 [x]\(y) \*z\* ‖·‖\_F H_ℓ")


def test_a_formula_is_set_as_mathml() -> None:
    shown = text.mathematics(r"\frac{\sigma_A^2}{r} < 1")
    assert shown.startswith("<math ")
    assert "<mfrac>" in shown
    assert "<mi>&#x003C3;</mi>" in shown
    assert "<mo>&#x0003C;</mo>" in shown
    assert "{" not in shown
