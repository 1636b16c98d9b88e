"""The pages made from the ledger: the words are those of the ledger, and no text breaks out of its place."""

import copy
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from forbidden import forbidden
from sample_ledger import LEDGER, draw, named

from experiments.lab.experiment import Report, Row
from experiments.lab.side_by_side import Cell, SideBySide
from experiments.ledger import pages
from experiments.ledger.pages import Page as Shown
from experiments.ledger.pages import write_pages


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    write_pages(LEDGER, shown(draw(folder / "figures")), folder)
    return folder


def shown(figures: Path) -> Shown:
    row = Row("dense Hessian, d = 32", "≤ 2 s", "1.523456 s", "floor 0.71828 s")
    said = {"dynamics/mlp": ["128·η₀ ends at 0.0472345 of its start."]}
    speed = Report([row], ["Products are 0.912345 of it."], {})
    cells = {"α = r *": [Cell("-7.654321 ± 0.123456", "best")], "<b>|": [Cell("2", "second")], "FFT": [Cell("3")]}
    return Shown(
        figures, said, speed, tables=[SideBySide("on digits", ["α_c at r = 4"], {"at η": cells}, ["a_note"], "rule")]
    )


class Page(HTMLParser):
    """The tags of a page, its visible words, and tags that were opened and not closed in their turn."""

    VOID = frozenset({"meta", "link", "input", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words, self.open, self.crossed = "", [], []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.crossed.append(tag)

    def handle_data(self, data: str) -> None:
        self.words += data


def parsed(out: Path) -> Page:
    return Page((out / "report.html").read_text(encoding="utf-8"))


def test_counts_are_of_every_verdict() -> None:
    found = {"supported": 7, "refuted": 3, "inconclusive": 2, "not run": 1, "not testable here": 1}
    assert pages.counts(LEDGER) == found
    assert pages.counts([]) == dict.fromkeys(pages.VERDICTS, 0)


def test_a_decided_claim_whose_near_control_is_not_refuted_is_named() -> None:
    assert pages.unsound(LEDGER) == ["F1c-square-root"]
    weak = [e | {"verdict": "inconclusive"} for e in LEDGER]
    assert pages.unsound(weak) == []


def test_statements_stand_in_their_groups_each_source_apart() -> None:
    paper, own = pages.parts(LEDGER)
    assert (paper.key, own.key) == ("lora_alpha", "own")
    assert (paper.counts["refuted"], sum(paper.counts.values()), own.counts["supported"]) == (3, 12, 2)
    assert list(paper.groups) == ["algebra", "fixed weights", "one step", "training", "tuning"]
    assert {group: [e["id"] for e in found] for group, found in own.groups.items()} == {
        "algebra": ["X4"],
        "one step": ["X3"],
    }
    assert sum(len(found) for part in (paper, own) for found in part.groups.values()) == len(LEDGER)


def test_claims_on_one_measurement_name_each_other() -> None:
    same = pages.shared_measurements(LEDGER)
    assert (same["P3-trace"], same["K1-alignment"], same["X4"]) == (["K1-alignment"], ["P3-trace"], [])


def test_readings_of_the_same_quantities_are_one_table() -> None:
    (table,) = pages.alike(named("F2a-trajectories")["readings"])
    assert (len(table.quantities), len(table.readings)) == (2, 18)
    (alone,) = pages.alike(named("P2-premise")["readings"])
    assert (alone.quantities, len(alone.readings)) == ((), 2)
    assert pages.alike([]) == []


def test_provenance_is_shared_only_where_all_claims_agree() -> None:
    other = copy.deepcopy(LEDGER)
    other[0]["provenance"]["jax"] = "0.12.0"
    shared = pages.shared_provenance(other)
    assert (shared["numpy"], shared["jax"]) == ("2.4.6", "differs, see each claim")
    assert "created" not in shared
    assert pages.span(LEDGER) == ("2026-11-22T20:12:40Z", "2026-11-22T20:26:40Z")
    assert pages.span([e for e in LEDGER if not e["provenance"]]) is None


def test_no_page_shows_what_is_forbidden(out: Path) -> None:
    """No nan, inf or brace, four significant digits, no interval without width; the texts of the sample have them."""
    assert forbidden(str(named("P2-premise")["findings"][0]["measured"]))
    for name in ("report.md", "report.html"):
        assert forbidden((out / name).read_text(encoding="utf-8")) == []


def test_every_row_of_a_markdown_table_has_as_many_cells_as_its_head(out: Path) -> None:
    assert_tables_are_whole(out)


def assert_tables_are_whole(out: Path) -> None:
    tables = re.findall(r"(?:^\|.*\n)+", (out / "report.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(tables) >= len(LEDGER)
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1


def test_markdown_has_every_claim_with_its_numbers_and_folds_them(out: Path) -> None:
    text = (out / "report.md").read_text(encoding="utf-8")
    assert "✔ 7 supported, ✘ 3 refuted, ◇ 2 inconclusive, 1 not run (blank), – 1 not testable here." in text
    for entry in LEDGER:
        assert f"### {entry['id']}\n" in text
        assert entry["rerun"] in text
        for reading in entry["readings"]:
            assert f"| {reading['name']} |" in text
    assert text.count("](figures/two_panels.png)") == 1
    assert "not_drawn.png" not in text
    assert "$$" + named("P3-trace")["formula"] + "$$" in text
    folded = re.sub(r"<details>.*?</details>", "", text, flags=re.DOTALL)
    assert text.count("<details>") == text.count("</details>") == folded.count("### ") + 5 + 3
    assert len(folded) < len(text) / 3


def test_methods_stand_side_by_side_with_the_best_and_the_second_marked(out: Path) -> None:
    markdown, html = ((out / f"report.{kind}").read_text(encoding="utf-8") for kind in ("md", "html"))
    assert r"| α = r \* | **−7.654 ± 0.1235** |" in markdown
    assert r"| \<b>\| | <ins>2</ins> |" in markdown
    assert "| FFT | 3 |" in markdown
    assert "| at η | α_c at r = 4 |" in markdown
    assert '<th scope="col">rule</th><th scope="col">α<sub>c</sub> at r = 4</th>' in html
    assert '<th scope="row">α = r *</th><td><b>−7.654 ± 0.1235</b></td>' in html
    assert '<th scope="row">&lt;b&gt;|</th><td><u>2</u></td>' in html
    assert "<td>3</td>" in html


def test_html_is_well_formed_and_every_reference_has_one_target(out: Path) -> None:
    page = parsed(out)
    assert (page.crossed, page.open) == ([], [])
    ids = [value for _, attributes in page.tags for key, value in attributes.items() if key == "id"]
    assert len(set(ids)) == len(ids)
    text = " ".join(value or "" for _, attributes in page.tags for value in attributes.values())
    wanted = set(re.findall(r"url\(#([^)]+)\)", text)) | {
        value[1:] for _, a in page.tags for key, value in a.items() if key == "href" and value and value[0] == "#"
    }
    assert len(wanted) > 50
    assert wanted <= set(ids)


def test_html_asks_for_nothing_and_shows_text_as_text(out: Path) -> None:
    page = parsed(out)
    outside = [v for _, a in page.tags for k, v in a.items() if k in {"src", "href"} and v and "//" in v]
    assert set(outside) == {"https://arxiv.org/abs/2606.12883"}
    for words in ("<b>is</b> exactly 0 & more", '"Adam" <10⁻⁸>', "C ≫ 1 | slope"):
        assert words in page.words


def test_no_text_of_the_ledger_is_taken_for_markup(tmp_path: Path) -> None:
    """Every text of every entry is hostile, except what the pages look up: ids, verdicts, names of figures."""
    hostile = "<i id='x'>\"&amp;|`{{ 7 * 6 }}"
    kept = {"id", "group", "verdict", "figure", "created", "formula"}

    def spoil(value: Any, key: str | None = None) -> Any:
        if isinstance(value, dict):
            return {k: v if k in kept else spoil(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [spoil(v, key) for v in value]
        return hostile if isinstance(value, str) else value

    write_pages([spoil(e) for e in LEDGER], Shown(tmp_path), tmp_path)
    page = parsed(tmp_path)
    assert "i" not in {tag for tag, _ in page.tags}
    assert "x" not in {attributes.get("id") for _, attributes in page.tags}
    assert page.words.count(hostile) > 200
    assert (page.crossed, page.open) == ([], [])
    assert_tables_are_whole(tmp_path)


def test_html_has_each_figure_once_and_links_to_it_from_the_other_card(out: Path) -> None:
    page = parsed(out)
    assert [a["id"] for tag, a in page.tags if tag == "figure"] == ["figure-two_panels", "figure-one"]
    assert [a["href"] for tag, a in page.tags if tag == "a" and str(a["href"]).startswith("#figure")] == [
        "#figure-two_panels",
        "#figure-one",
    ]
    assert "Figure not drawn has not been drawn." in page.words
    assert "1.23" not in page.words


def test_letters_of_all_figures_are_outlined_once(out: Path) -> None:
    """Every <use> of a figure has its target in the page, and no two targets are the same outline."""
    page = parsed(out)
    outlines = [a["d"] for tag, a in page.tags if tag == "path" and str(a.get("transform")).startswith("scale(")]
    assert len(set(outlines)) == len(outlines) > 10
    letters = [a["href"] for tag, a in page.tags if tag == "use" and re.fullmatch(r"#g\d+", str(a["href"]))]
    assert len(letters) > 60
    assert {str(href)[1:] for href in letters} <= {a.get("id") for _, a in page.tags}


def test_a_figure_stands_on_the_first_card_that_wants_it(out: Path) -> None:
    ordered = [e for part in pages.parts(LEDGER) for group in part.groups.values() for e in group]
    places = pages.figure_places(ordered, shown(out / "figures"))
    assert places == {"two_panels": "P2-psd", "one": "P3-trace"}


def test_formulas_are_mathml_in_the_page(out: Path) -> None:
    tags = [tag for tag, _ in parsed(out).tags]
    assert tags.count("math") == sum(bool(e["formula"]) for e in LEDGER) == 2


def test_matrix_has_a_cell_for_every_statement_and_problem_asked(out: Path) -> None:
    text = (out / "report.html").read_text(encoding="utf-8")
    rows = re.findall(r'<tr data-verdict="[^"]*" data-claim="([^"]*)".*?</tr>', text, re.DOTALL)
    assert sorted(rows) == sorted(e["id"] for e in LEDGER)
    (trace,) = re.findall(r'<tr [^>]*data-claim="P3-trace".*?</tr>', text, re.DOTALL)
    assert re.findall(r'<span class="heard">([^<]*)</span></td>', trace) == ["supported"] * 3
    assert pages.problems(LEDGER).keys() == {"mlp", "digits"}


def test_same_ledger_gives_the_same_bytes_and_nothing_is_left_beside(out: Path, tmp_path: Path) -> None:
    write_pages(copy.deepcopy(LEDGER), shown(out / "figures"), tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.html", "report.md"]
    for name in ("report.html", "report.md"):
        assert (tmp_path / name).read_bytes() == (out / name).read_bytes()


def test_a_ledger_without_results_is_a_page(tmp_path: Path) -> None:
    not_run = [e for e in LEDGER if e["verdict"] == "not run"]
    write_pages(not_run, Shown(tmp_path), tmp_path)
    page = parsed(tmp_path)
    assert "update_scaling has no record of this configuration" in page.words
    assert (page.crossed, page.open) == ([], [])
    write_pages([], Shown(tmp_path), tmp_path)
    assert (parsed(tmp_path).crossed, parsed(tmp_path).open) == ([], [])
