"""docs/adapter_maps.md: its table is made of the docstrings and of what tests/maps/test_adapter_maps.py measures."""

import re

from adapter_cases import CASES, Case
from pages_of_docs import ROOT, read

from signal_drift import maps

HEADER = "| map | W | arXiv | H_Drift | Tr H_Drift | H_Signal in α | H_Drift in α |"
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


def test_the_table_is_what_is_computed():
    table = "\n".join([HEADER, "|---" * HEADER.count(" | ") + "|---|", *(row(*item) for item in CASES.items())])
    assert table in read(ROOT / "docs" / "adapter_maps.md"), f"put this into the page:\n{table}"


def test_every_map_has_its_row():
    written = {name for name in maps.__all__ if name.islower()} - {"decompose_map"}
    assert written == CASES.keys()
