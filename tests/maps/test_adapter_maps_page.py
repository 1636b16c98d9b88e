"""docs/adapter_maps.md: its tables are made of the docstrings, of what tests/maps/test_adapter_maps.py measures, of
the formulas that tests/propositions/test_map_propositions.py holds, and of the orders that are fitted here.
"""

import re

import pytest
from adapter_cases import CASES, Case, instance
from pages_of_docs import ROOT, read

from signal_drift import maps
from signal_drift.propositions.adapter_maps import (
    gauge,
    remainder_is_cubic,
    remainder_is_its_terms,
    remainder_is_quartic,
)

HEADER = "| map | W | arXiv | H_Drift | Tr H_Drift | H_Signal in α | H_Drift in α |"
ATLAS = "| map | eigenvalues of H_Drift but 0 | null directions of J, a layer | remainder of P1-update, orders |"
POWERS = {None: "–", 1: "α", 2: "α²"}


def row(name: str, case: Case) -> str:
    text = " ".join((getattr(maps, name).__doc__ or "").split())
    formula = re.search(r"W(?:_oi)? = .+?(?=\. | \(arXiv)", text)
    paper = re.search(r"arXiv ([\d., ]*\d)", text)
    assert formula, name
    assert paper, name
    degrees = [POWERS[k] for k in case.degrees or (None, None)]
    trace = "0" if case.traceless else "not 0"
    return f"| {' | '.join([name, formula[0].replace('|', '∣'), paper[1], case.drift, trace, *degrees])} |"


def atlas(name: str, case: Case) -> str:
    return f"| {' | '.join([name, case.spectrum, case.gauge, orders(name)])} |"


def orders(name: str) -> str:
    """The exponents that are fitted, and whether the series ends with them."""
    fitted = [check(instance(name)) for check in (remainder_is_cubic, remainder_is_quartic)]
    assert all(check.holds for check in fitted if check.applicable)
    found = [f"{check.measured:.0f}" for check in fitted if check.applicable]
    ends = remainder_is_its_terms(instance(name))
    assert ends.holds or not ends.applicable
    return ", ".join([*found, *([] if ends.applicable else ["…"])]) or "none"


def table(header: str, rows: list[str]) -> str:
    return "\n".join([header, "|---" * header.count(" | ") + "|---|", *rows])


@pytest.mark.parametrize(("header", "row"), [(HEADER, row), (ATLAS, atlas)], ids=["drift", "atlas"])
def test_the_table_is_what_is_computed(header, row):
    made = table(header, [row(*item) for item in CASES.items()])
    assert made in read(ROOT / "docs" / "adapter_maps.md"), f"put this into the page:\n{made}"


@pytest.mark.parametrize("name", CASES)
def test_the_count_of_null_directions_is_the_one_that_is_held(name):
    """The words as arithmetic, at the sizes of a layer."""
    words = CASES[name].gauge.replace("2r²", "2*r**2").replace("²", "**2").replace("−", "-")
    for y in instance(name).layers:
        d_out, d_in = y.W0.shape
        pairs = gauge.FACTORED.get(name, [(0, 0)])
        sizes = {"r": len(y.factors[pairs[0][0]]), "d_out": d_out, "d_in": d_in}
        assert gauge.dimension(name, y) == eval(words, sizes)


def test_every_map_has_its_row():
    written = {name for name in maps.__all__ if name.islower()} - {"decompose_map"}
    assert written == CASES.keys()
