"""README: short, and everything in it is true of the code and of the reference run in docs/."""

import json
import re
import subprocess
import sys

import pytest
from pages_of_docs import GUIDES, PAGES, README, ROOT, blocks, links, prose, read
from PIL import Image

from experiments.catalogue import ALONE, EXPERIMENTS
from experiments.claims import CLAIMS
from experiments.lab import store
from experiments.ledger import ledger, table
from experiments.ledger.first_screen import first_screen
from experiments.ledger.pages import MARKS
from experiments.ledger.text import plain
from experiments.problems import PROBLEMS

MOST_LINES = 130
OF_SEVERAL = {""}
"""What a figure says of its configuration that is drawn from several experiments."""


def test_readme_is_short_and_leads_to_every_page() -> None:
    assert len(read(README).splitlines()) <= MOST_LINES
    assert {page.name for page in links(README)} >= {page.name for page in GUIDES}


def test_verdicts_of_the_readme_are_those_of_the_reference_run() -> None:
    """The whole table, of a ledger in which every claim was run and every control refuted."""
    entries = table.read(ROOT / "docs" / "ledger.json")
    assert [e["id"] for e in entries] == [claim.id for claim in CLAIMS]
    assert all(e["verdict"] != "not run" for e in entries)
    assert all(e["control"] is None or e["control"]["sound"] for e in entries)
    assert ledger.by_verdict(entries) in read(README)


def test_first_screen_of_the_readme_is_what_the_reference_run_found() -> None:
    """Line by line as the report has it, for the words are computed from the verdicts and their numbers."""
    entries = table.read(ROOT / "docs" / "ledger.json")
    lines = [f"> {MARKS[line.mark]} **{plain(line.title)}.** {plain(line.words)}." for line in first_screen(entries)]
    assert "\n>\n".join(lines) in read(README)


def test_time_that_the_readme_names_is_that_of_the_reference_run() -> None:
    (minutes,) = re.findall(r"took (\d+) minutes", read(README))
    costs = json.loads(read(ROOT / "docs" / "costs.json"))
    afforded = {name for name, problem in PROBLEMS.items() if not problem.costly}
    experiments = {experiment.name for experiment in EXPERIMENTS}
    spent = [s for name, of in costs.items() if name in experiments for where, s in of.items() if where in afforded]
    assert int(minutes) == round(sum(spent) / 60)


def test_no_other_measured_number_is_typed_into_the_readme() -> None:
    text = re.sub(r"^(>|\|).*$", "", prose(README), flags=re.MULTILINE)
    assert set(re.findall(r"\d+\.\d+", text)) <= {"2606.12883", "3.11", "2.0"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pictures_show_the_paper_configuration(page) -> None:
    """Each carries the digest of the configuration it was drawn from; `make reference` renews them."""
    asked = [(e, p) for e in (*EXPERIMENTS, *ALONE) for p in PROBLEMS.values() if not e.refuses(p)]
    current = {store.digest(e.name, e.at(p), {}) for e, p in asked}
    for path in links(page):
        if path.suffix == ".png":
            with Image.open(path) as picture:
                assert picture.info["Config"] in {*current, *OF_SEVERAL}, path.name


def test_example_of_the_readme_runs() -> None:
    (example,) = [block.text for block in blocks(README) if block.language == "python"]
    done = subprocess.run([sys.executable, "-c", example], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "ExtremeEigenvalues" in done.stdout
    assert "task" in done.stdout
