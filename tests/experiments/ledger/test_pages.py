"""The pages made from the ledger: the words are those of the ledger, and no text breaks out of its place."""

import copy
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from sample_ledger import LEDGER, draw, finding

from experiments.ledger import pages, text
from experiments.ledger.pages import Page as Shown
from experiments.ledger.pages import write_pages


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    write_pages(LEDGER, Shown(draw(folder / "figures")), folder)
    return folder


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


def test_numbers_that_differ_are_written_differently() -> None:
    near = finding("x", "1", [1 - 1e-6, 1 + 1e-6], 1 + 2e-7, [1 - 1e-7, 1 + 4e-7])
    n = text.digits(near)
    assert [text.number(x, n) for x in (*near["band"], near["measured"])] == ["0.999999", "1.000001", "1.0000002"]
    assert text.digits(finding("x", "1", [0.95, 1.05], 1.00031234, [0.99, 1.01])) == 5
    assert text.digits(finding("x", "⅓", [0, 1], 1 / 3, [0.333331, 0.333336])) == 6
    assert text.digits(finding("x", "2", [2, 2], 2.0, [2.0, 2 + 4e-16])) == 10


@pytest.mark.parametrize(
    ("pair", "shown"),
    [([0.99, 1.01], "[0.99, 1.01]"), ([None, 1], "(−∞, 1]"), ([-1e-13, None], "[-1e-13, ∞)"), (None, "–")],
)
def test_interval_shows_which_end_is_bounded(pair: list | None, shown: str) -> None:
    assert text.interval(pair) == shown


def test_durations_have_a_unit_a_reader_can_picture() -> None:
    seconds = (None, 0.123, 61.2, 600.0, 7400.0)
    assert [text.duration(s) for s in seconds] == ["–", "0.12 s", "61 s", "10 min", "2.1 h"]


def test_counts_are_of_every_verdict() -> None:
    found = {"supported": 6, "refuted": 3, "inconclusive": 2, "not run": 1, "not testable here": 0}
    assert pages.counts(LEDGER) == found
    assert pages.counts([]) == dict.fromkeys(pages.VERDICTS, 0)


def test_a_control_that_is_not_refuted_is_named() -> None:
    assert pages.unsound(LEDGER) == ["F1c-square-root"]
    assert "must be" in pages.control_words("refuted")
    assert "means nothing" in pages.control_words("supported")
    assert pages.control_words("not run") == "not run"


def test_headline_is_the_finding_that_is_quoted() -> None:
    entry = next(e for e in LEDGER if e["id"] == "P4-landscape")
    assert pages.headline(entry) == entry["findings"][1]
    assert pages.headline(entry["control"]) == entry["control"]["findings"][0]
    assert pages.headline(entry | {"findings": []}) is None


def test_provenance_is_shared_only_where_all_claims_agree() -> None:
    other = copy.deepcopy(LEDGER)
    other[0]["provenance"]["jax"] = "0.12.0"
    shared = pages.shared_provenance(other)
    assert (shared["numpy"], shared["jax"]) == ("2.4.6", "differs, see each claim")
    assert "created" not in shared
    assert pages.span(LEDGER) == ("2026-11-22T20:12:40Z", "2026-11-22T20:26:40Z")
    assert pages.span([e for e in LEDGER if not e["provenance"]]) is None


def test_indices_of_symbols_stand_low_and_text_is_escaped() -> None:
    low = "JᵀH<sub>ℓ</sub>J, ΔW<sub>Signal</sub>, σ<sub>A</sub>², ‖W‖<sub>F</sub>"
    assert text.subscripts("JᵀH_ℓJ, ΔW_Signal, σ_A², ‖W‖_F") == low
    assert text.subscripts("update_scaling, a_b_c <b>x_1</b> & y") == (
        "update_scaling, a_b_c &lt;b&gt;x<sub>1</sub>&lt;/b&gt; &amp; y"
    )


def test_markdown_text_cannot_end_a_cell_or_start_a_tag() -> None:
    assert text.plain("|λ|\n `a` <b> < 1 [x](y) *z* ‖·‖_F H_ℓ") == (r"\|λ\| \`a\` \<b> < 1 [x]\(y) \*z\* ‖·‖\_F H_ℓ")


def test_every_row_of_a_markdown_table_has_as_many_cells_as_its_head(out: Path) -> None:
    assert_tables_are_whole(out)


def assert_tables_are_whole(out: Path) -> None:
    tables = re.findall(r"(?:^\|.*\n)+", (out / "report.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(tables) >= len(LEDGER)
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1


def test_markdown_has_every_claim_with_its_numbers(out: Path) -> None:
    text = (out / "report.md").read_text(encoding="utf-8")
    assert "**6 supported**, **3 refuted**, **2 inconclusive**, **1 not run**, **0 not testable here**." in text
    for entry in LEDGER:
        assert f"## {entry['id']}\n" in text
        assert entry["rerun"] in text
        for reading in entry["readings"]:
            assert f"| {reading['name']} |" in text
    assert "![two_panels](figures/two_panels.png)" in text
    assert "not_drawn.png" not in text


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
    assert "b" not in {tag for tag, _ in page.tags}
    for words in ("<b>is</b> exactly 0 & more", '"Adam" <1e-8>', "C ≫ 1 | slope"):
        assert words in page.words


def test_no_text_of_the_ledger_is_taken_for_markup(tmp_path: Path) -> None:
    """Every text of every entry is hostile, except what the pages look up: ids, verdicts, names of figures."""
    hostile = "<i id='x'>\"&amp;|`{{ 7 * 6 }}"

    def spoil(value: Any, key: str | None = None) -> Any:
        if isinstance(value, dict):
            return {k: spoil(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [spoil(v, key) for v in value]
        return hostile if isinstance(value, str) and key not in {"id", "verdict", "figures", "created"} else value

    write_pages([spoil(e) for e in LEDGER], Shown(tmp_path), tmp_path)
    page = parsed(tmp_path)
    assert "i" not in {tag for tag, _ in page.tags}
    assert "x" not in {attributes.get("id") for _, attributes in page.tags}
    assert page.words.count(hostile) > 200
    assert (page.crossed, page.open) == ([], [])
    assert_tables_are_whole(tmp_path)


def test_html_has_each_figure_once_and_names_the_one_not_drawn(out: Path) -> None:
    page = parsed(out)
    symbols = [a["id"] for tag, a in page.tags if tag == "symbol" and str(a["id"]).startswith("figure-")]
    assert symbols == ["figure-two_panels", "figure-one"]
    assert "Figure not drawn has not been drawn." in page.words
    assert "1.23" not in page.words


def test_same_ledger_gives_the_same_bytes_and_nothing_is_left_beside(out: Path, tmp_path: Path) -> None:
    write_pages(copy.deepcopy(LEDGER), Shown(out / "figures"), tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.html", "report.md"]
    for name in ("report.html", "report.md"):
        assert (tmp_path / name).read_bytes() == (out / name).read_bytes()


def test_a_ledger_without_results_is_a_page(tmp_path: Path) -> None:
    not_run = [e for e in LEDGER if e["verdict"] == "not run"]
    write_pages(not_run, Shown(tmp_path), tmp_path)
    page = parsed(tmp_path)
    assert "Why not run:" in page.words
    assert (page.crossed, page.open) == ([], [])
