"""report.html in headless Chromium: no error, no request, nothing sticks out, filters filter, figures can be seen."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from browsers import chrome, requests, show, skip_without_browser
from sample_ledger import LEDGER, draw

from experiments.ledger.pages import Page, parts, write_pages
from experiments.ledger.verdict import VERDICTS

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

OVERFLOWING = """
return [...document.querySelectorAll("body *")].filter(e => {
  if (e.closest(".scroll *, .wide *, .formula *, .store *, caption, thead, .heard")) return false;
  if (!e.checkVisibility()) return false;
  const box = e.getBoundingClientRect();
  const scrolls = e.matches(".scroll, .wide, .formula, pre") || !(e instanceof HTMLElement) || !e.clientWidth;
  return box.right > innerWidth + 0.5 || box.left < -0.5 || (!scrolls && e.scrollWidth > e.clientWidth + 1);
}).map(e => e.outerHTML.slice(0, 200))
"""
FAINT = """
const rgb = color => { const c = color.match(/[\\d.]+/g).map(Number); return c[3] === 0 ? null : c; };
const light = c => [0.2126, 0.7152, 0.0722].reduce((sum, w, i) => {
  const v = c[i] / 255; return sum + w * (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); }, 0);
const found = [], walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walk.nextNode()) {
  const e = walk.currentNode.parentElement;
  if (!walk.currentNode.data.trim() || e.closest("script, .store, .scroll") || !e.checkVisibility()) continue;
  const style = getComputedStyle(e), ink = rgb(e.closest("svg") ? style.fill : style.color);
  let paper = null;
  for (let up = e; up && !paper; up = up.parentElement) paper = rgb(getComputedStyle(up).backgroundColor);
  const [a, b] = [light(ink), light(paper ?? [255, 255, 255])];
  if ((Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) < 4.5) found.push(walk.currentNode.data);
}
return found
"""
OPEN_ALL = "for (const part of document.querySelectorAll('details')) part.open = true"
VISIBLE = "return [...document.querySelectorAll('{}')].filter(e => e.checkVisibility()).map(e => e.{})"
ROWS, CLAIMS = VISIBLE.format(".matrix tr[data-claim]", "dataset.claim"), VISIBLE.format(".claim", "id")
SIZES = """
return [...document.querySelectorAll(arguments[0])].map(e => e.getBoundingClientRect()).map(b => [b.width, b.height])
"""
TOP = "return document.getElementById(arguments[0]).getBoundingClientRect().top"

skip_without_browser("report.html")


@pytest.fixture(scope="module")
def browser() -> Iterator["Chrome"]:
    with chrome() as found:
        yield found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    write_pages(LEDGER, Page(draw(folder / "figures")), folder)
    return folder / "report.html"


@pytest.fixture
def opened(browser: "Chrome", page: Path) -> "Chrome":
    show(browser, page, 1440)
    return browser


def ticked(browser: "Chrome", *verdicts: str) -> None:
    """Tick just these verdicts, from the keyboard."""
    for box in browser.find_elements("name", "verdict"):
        if box.is_selected() != (box.get_attribute("value") in verdicts):
            box.send_keys(" ")


def ids(**wanted: Any) -> list[str]:
    ordered = [e for part in parts(LEDGER) for group in part.groups.values() for e in group]
    return [e["id"] for e in ordered if all(e[key] == value for key, value in wanted.items())]


def test_no_error_and_no_request_but_the_file(browser: "Chrome", page: Path) -> None:
    show(browser, page, 1440)
    browser.execute_script(OPEN_ALL)
    assert {url for url in requests(browser) if not url.startswith("data:")} == {page.as_uri()}
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("width", [390, 1440])
def test_nothing_sticks_out(browser: "Chrome", page: Path, width: int) -> None:
    show(browser, page, width)
    for prepare in ("", OPEN_ALL):
        browser.execute_script(prepare)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        assert browser.execute_script(OVERFLOWING) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(browser: "Chrome", page: Path, scheme: str) -> None:
    show(browser, page, 390, scheme)
    browser.execute_script(OPEN_ALL)
    assert browser.execute_script(FAINT) == []
    assert browser.execute_script("return getComputedStyle(document.body).backgroundColor") == (
        "rgb(244, 245, 247)" if scheme == "light" else "rgb(18, 22, 27)"
    )


def test_verdicts_filter_the_table_and_the_claims(opened: "Chrome") -> None:
    everything = ids()
    for verdicts in (("refuted",), ("supported", "not run"), (), VERDICTS):
        ticked(opened, *verdicts)
        wanted = [claim for v in verdicts for claim in ids(verdict=v)]
        wanted.sort(key=everything.index)
        assert opened.execute_script(ROWS) == wanted
        assert opened.execute_script(CLAIMS) == wanted
        assert opened.find_element("css selector", "output").text == f"{len(wanted)} of {len(everything)} statements"
        assert opened.find_element("id", "none").is_displayed() == (not wanted)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("p4", ["P4-landscape", "P4-update"]),
        ("H_ℓ psd", ["P2-psd"]),
        ("Hℓ", ["P2-psd", "P2-premise", "P3-trace", "K1-alignment"]),
        ("Θ(α²)", ["P4-landscape"]),
        ("no such words", []),
    ],
)
def test_search_finds_ids_and_statements(opened: "Chrome", words: str, wanted: list[str]) -> None:
    opened.find_element("name", "text").send_keys(words)
    assert opened.execute_script(ROWS) == wanted


def test_a_source_shows_its_matrix_alone(opened: "Chrome") -> None:
    """Its statements and cards stay, and the tables of the other sources go with their heads."""
    opened.execute_script(
        "const s = document.querySelector('[name=source]'); s.value = 'own';"
        "s.dispatchEvent(new Event('input', {bubbles: true}))"
    )
    assert opened.execute_script(ROWS) == ids(ours=True)
    heads = [t.is_displayed() for t in opened.find_elements("css selector", ".matrix")]
    assert heads == [False, True]


def test_search_and_verdicts_hold_together_and_keyboard_reaches_a_claim(opened: "Chrome") -> None:
    ticked(opened, "inconclusive")
    opened.find_element("name", "text").send_keys("P4")
    assert opened.execute_script(ROWS) == ["P4-landscape"]
    opened.find_element("link text", "P4-landscape").send_keys("\ue007")  # Enter
    assert opened.current_url.endswith("#P4-landscape")
    assert 0 <= opened.execute_script(TOP, "P4-landscape") < 100


def test_figures_strips_and_formulas_can_be_seen(opened: "Chrome") -> None:
    opened.execute_script(OPEN_ALL)
    figures = opened.execute_script(SIZES, ".evidence .scroll svg")
    assert len(figures) == 2
    assert all(width > 300 and height > 150 for width, height in figures)
    letters = opened.execute_script(SIZES, ".evidence use[href^='#g']")
    assert len(letters) > 60
    assert all(width > 0 and height > 0 for width, height in letters)
    assert sum(height > 6 for _, height in letters) > len(letters) / 2  # the others are points and strokes
    points = opened.execute_script(SIZES, ".claim .strip .measured circle, .claim .strip .measured path")
    assert len(points) > 30
    assert all(width + height > 4 for width, height in points)
    fractions = opened.execute_script(SIZES, ".formula mfrac")
    assert len(fractions) == 2
    assert all(height > 1.3 * 16 for _, height in fractions)  # its two lines stand one above the other


@pytest.mark.parametrize("width", [390, 1440])
def test_first_screen_has_the_six_lines_and_marks_have_colours_of_their_own(
    browser: "Chrome", page: Path, width: int
) -> None:
    show(browser, page, width)
    lines = browser.execute_script(SIZES, ".found li")
    assert len(lines) == 6
    bottom = browser.execute_script("return document.querySelector('.found').getBoundingClientRect().bottom")
    assert bottom < (844 if width == 1440 else 2 * 844)
    grounds = browser.execute_script(
        "return arguments[0].map(v => getComputedStyle(document.querySelector('.matrix td.' + v)).backgroundColor)",
        ["supported", "refuted", "inconclusive", "not-testable-here"],
    )
    assert len(set(grounds)) == 4


def test_a_question_opens_where_it_is_asked(opened: "Chrome") -> None:
    answers = "return [...document.querySelectorAll('.question')].map(e => e.open)"
    assert opened.execute_script(answers) == [True, False, False, False, False]
    opened.find_element("link text", "Does α beat η?").click()
    assert opened.execute_script(answers)[:3] == [True, True, False]


def test_nothing_is_folded_in_print(browser: "Chrome", page: Path) -> None:
    show(browser, page, 1440)
    words = (
        "return [...document.querySelectorAll('details > :not(summary)')].filter(e => !e.checkVisibility({})).length"
    )
    seen = words.replace("{}", "{contentVisibilityAuto: true}")
    assert browser.execute_script(seen) > 50
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert browser.execute_script(seen) == 0
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_without_scripts_everything_is_shown(browser: "Chrome", page: Path) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        show(browser, page, 390)
        assert browser.execute_script(ROWS) == ids()
        assert not browser.find_element("id", "filters").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_page_prints(opened: "Chrome") -> None:
    assert base64.b64decode(opened.print_page())[:5] == b"%PDF-"


def test_the_checks_see_a_page_that_is_broken(browser: "Chrome", page: Path, tmp_path: Path) -> None:
    """An image from elsewhere, an error, something too wide and something too faint."""
    broken = tmp_path / "broken.html"
    bad = """<img src="http://localhost:9/x.png"><script>missing()</script>
        <div style="width: 400px; color: #bbb; background: #fff">faint</div>"""
    text = page.read_text(encoding="utf-8").replace("http-equiv", "name").replace("</main>", bad + "</main>")
    broken.write_text(text, encoding="utf-8")
    show(browser, broken, 390)
    assert browser.execute_script("return document.documentElement.scrollWidth") > 390
    assert [e for e in browser.execute_script(OVERFLOWING) if "400px" in e]
    assert browser.execute_script(FAINT) == ["faint"]
    assert "http://localhost:9/x.png" in requests(browser)
    assert any("missing is not defined" in line["message"] for line in browser.get_log("browser"))
