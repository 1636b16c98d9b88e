"""The site is built whole, warnings being errors: everything is there, and what is broken on purpose is noticed."""

import re
import subprocess
import sys
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING

import api_pages
import house_style
import ledger_pages
import pytest
from browsers import chrome, requests, show, skip_without_browser
from pages_of_docs import GUIDES, ROOT, read

import signal_drift
from experiments.ledger.pages import parts
from experiments.ledger.table import read as read_ledger

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

DOCS = ROOT / "docs"
LEDGER = read_ledger(DOCS / "ledger.json")
OPENED = (
    "index.html",
    "README.html",
    "papers",
    "docs/report.html",
    "docs/statements.html",
    "notebooks/01_signal_and_drift.html",
    "notebooks/04_your_own_model.html",
    "api/signal_drift.html",
    "api/signal_drift.models.html",
    "api/signal_drift.propositions.adapter_maps.html",
)
"""Pages, and a folder of pages, that are opened in a browser: each kind, and names that are long."""
pytestmark = pytest.mark.xdist_group("site")


def build(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run Sphinx as `make docs` does."""
    (folder / "pages").mkdir(exist_ok=True)
    command = [sys.executable, "-m", "sphinx", "-c", str(ROOT / "website"), "-d", str(folder / "doctrees"), *options]
    command += ["-W", "--keep-going", "-q", "--no-color", str(folder / "pages"), str(folder / "html")]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    (folder / "pages" / "papers").mkdir(parents=True)
    (folder / "pages" / "papers" / "old.md").write_text("# A source that the ledger no longer has", encoding="utf-8")
    done = build(folder)
    assert (done.returncode, done.stderr) == (0, "")
    return folder / "html"


@pytest.fixture(scope="module")
def browser() -> Iterator["Chrome"]:
    skip_without_browser("the site")
    with chrome() as found:
        yield found


def text(page: Path) -> str:
    """Return what a reader sees of a page, without tags."""
    article = read(page).partition("<article")[2].partition("</article>")[0]
    return unescape(re.sub(r"<[^>]+>", "", article))


def test_makefile_builds_as_the_test_does() -> None:
    line = next(line for line in read(ROOT / "Makefile").splitlines() if "-m sphinx" in line)
    assert "-c website -d results/site/doctrees -W --keep-going -q results/site/pages results/site/html" in line


def test_no_warning_and_every_page(site: Path) -> None:
    papers = {f"papers/{path.name}" for path in (site / "papers").iterdir()}
    assert len(papers) == len(parts(LEDGER))
    assert (site / "README.html").exists()
    for guide in [*GUIDES, DOCS / "report.md"]:
        assert (site / "docs" / f"{guide.stem}.html").exists()
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        assert "cell_output" in read(site / "notebooks" / f"{notebook.stem}.html")


def test_front_page_has_the_matrix_of_the_ledger(site: Path) -> None:
    page, marks = read(site / "index.html"), ledger_pages.MARKS
    for entry in LEDGER:
        (row,) = re.findall(
            rf'<tr[^>]*><td><p><a[^>]*href="docs/report.html#{entry["id"].lower()}".*?</tr>', page, re.S
        )
        cells = re.findall(r'<td class="text-center"><p>(.*?)</p></td>', row, re.S)
        asked = [entry["problems"].get(name, {"verdict": "not run"}) for name in ledger_pages.problems(LEDGER)]
        assert cells == [marks[x["verdict"]] for x in (entry, *asked)]


def test_pages_are_titled_as_the_report_and_the_sources_are(site: Path) -> None:
    titles = {f"papers/{part.key}.html": part.name for part in parts(LEDGER)}
    titles["index.html"] = read(DOCS / "report.md").splitlines()[0].removeprefix("# ")
    for page, title in titles.items():
        assert [unescape(x) for x in re.findall(r"<h1>(.*?)<a", read(site / page))] == [title]


def test_every_statement_is_on_the_page_of_its_source_and_leads_to_the_report(site: Path) -> None:
    report = read(site / "docs" / "report.html")
    pages = {path: read(path) for path in (site / "papers").iterdir()}
    for entry in LEDGER:
        anchor = entry["id"].lower()
        assert f'id="{anchor}"' in report
        (page,) = [path for path, page in pages.items() if f'href="../docs/report.html#{anchor}"' in page]
        assert entry["verdict"].capitalize() in text(page).partition(f"{entry['id']}#")[2][:60]


def test_reference_has_every_public_name_once(site: Path) -> None:
    pages = [read(path) for path in (site / "api").iterdir()]
    for name in signal_drift.__all__:
        assert sum(f'id="signal_drift.{name}"' in page for page in pages) == 1, name


def test_a_name_that_has_no_page_stops_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"signal_drift: nothing is not defined"):
        api_pages.definition("signal_drift", "nothing")
    monkeypatch.setattr(api_pages, "rooms", lambda library: ["signal_drift.errors"])
    with pytest.raises(ValueError, match=r"signal_drift\.Adapter is exported by no package below signal_drift"):
        api_pages.pages(signal_drift)


def test_formulas_and_indices_are_set_and_names_linked(site: Path) -> None:
    page = read(site / "api" / "signal_drift.hessians.html")
    assert "H<sub>LoRA</sub> = H<sub>Signal</sub> + H<sub>Drift</sub>" in page
    assert 'href="signal_drift.lora.html#signal_drift.lora.Weights"' in page
    assert "<mfrac>" in read(site / "papers" / "lora_alpha.html")
    assert 'href="../api/signal_drift.lora.html#signal_drift.decompose_update"' in read(
        site / "docs" / "statements.html"
    )


def test_nothing_is_fetched(site: Path) -> None:
    """No page names another host where a browser would fetch something: only links may."""
    for page in site.rglob("*.html"):
        tags = re.findall(r"<(?!a )[^>]*(?:src|href)=\"(?:https?:)?//[^>]*>", read(page))
        assert not tags, (page, tags)


@pytest.mark.parametrize("width", [390, 1440])
def test_opened_in_a_browser_nothing_is_asked_for_or_sticks_out(browser: "Chrome", site: Path, width: int) -> None:
    opened = [path for name in OPENED for path in ([site / name] if "." in name else sorted((site / name).iterdir()))]
    for page in opened:
        show(browser, page, width)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width, page
        assert [line["message"] for line in browser.get_log("browser") if line["level"] == "SEVERE"] == []
        assert all(url.startswith((site.as_uri(), "data:")) for url in requests(browser)), page


def test_formulas_stand_in_the_font_for_mathematics(browser: "Chrome", site: Path) -> None:
    show(browser, site / "notebooks" / "01_signal_and_drift.html", 1440)
    found = browser.execute_async_script("document.fonts.load('16px \"STIX Two Math\"').then(arguments[0])")
    assert len(found) == 1
    fraction, letter = browser.execute_script(
        "return ['mfrac', 'mi'].map(name => document.querySelector(`.formula ${name}`).getBoundingClientRect().height)"
    )
    assert fraction > 1.5 * letter


BROKEN = r"""# Broken

[a file](tests/nothing.py), [a page](nothing.md), [a section](whole.md#nothing), `sd.nothing`, $\nothing$

```{eval-rst}
.. py:function:: broken

   Names `signal_drift.nothing`, and does not close `this.
```
"""
WHOLE = r"""# Whole

[a file](CITATION.cff), [a section](whole.md#whole), `sd.train`, `signal_drift.lora.norms.frobenius`, `loss`, $x_1$
"""


def test_what_is_broken_is_noticed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "pages").mkdir()
    for name, words in (("broken", BROKEN), ("whole", WHOLE)):
        (tmp_path / "pages" / f"{name}.md").write_text(words, encoding="utf-8")
    found = build(tmp_path, "-D", "root_doc=broken", "-D", "include_patterns=broken.md,whole.md")
    assert found.returncode == 1
    expected = {
        "broken.md:3": {
            "'myst' cross-reference target not found: 'tests/nothing.py'",
            "'myst' cross-reference target not found: 'nothing.md'",
            "local id not found in doc 'whole': 'nothing'",
            "py:obj reference target not found: sd.nothing",
            "formula: cannot be set as MathML: \\nothing",
        },
        "broken.md:8": {
            "py:obj reference target not found: signal_drift.nothing",
            "Inline interpreted text or phrase reference start-string without end-string.",
        },
        "whole.md": {"document isn't included in any toctree"},
    }
    said = re.findall(r"pages/(\S+): (?:WARNING|ERROR): (.+?)(?: \[[\w.]+\])?$", found.stderr, re.MULTILINE)
    assert {where: {words for place, words in said if place == where} for where, _ in said} == expected


@pytest.mark.parametrize(
    ("words", "read"),
    [
        ("|s|·√⟨LᵀL⟩ and a* in `A*|`", r"\|s\|·√⟨LᵀL⟩ and a\* in `A*|`"),
        ("w_k, x_ and *args", r"w_k, x\_ and \*args"),
        (">>> a * b | c", ">>> a * b | c"),
        ("Code::\n\n    a * b\n\n    c * d\n\na * b", "Code::\n\n    a * b\n\n    c * d\n\na \\* b"),
        ("Formula:\n\n    a * b", "Formula:\n\n    a \\* b"),
    ],
)
def test_what_formulas_have_in_docstrings_means_itself(words: str, read: str) -> None:
    assert house_style.plain(words) == read


@pytest.mark.parametrize(
    ("words", "indices"),
    [
        ("H_LoRA = JᵀH_ℓJ + H_Drift", ["LoRA", "ℓ", "Drift"]),
        ("H_DriftΔθ, σ_A, d_in and ‖G_A‖_*", ["Drift", "A", "in", "A", "*"]),
        ("∇²_θ w_k, U_{r+1…2r}ᵀ", ["θ", "k", "{r+1…2r}"]),
        ("update_scaling, lora_alpha, x_, a_b_c, X20_x", []),
    ],
)
def test_indices_of_symbols_are_told_from_names(words: str, indices: list[str]) -> None:
    assert house_style.INDEX.split(words)[1::2] == indices


def test_a_report_of_other_verdicts_stops_the_build() -> None:
    report, entry = read(DOCS / "report.md"), LEDGER[0]
    ledger_pages.check_told(entry, report)
    with pytest.raises(ValueError, match=f"of {entry['id']}, ledger.json 'refuted'"):
        ledger_pages.check_told({**entry, "verdict": "refuted"}, report)
    with pytest.raises(ValueError, match="says nothing of P0"):
        ledger_pages.check_told({**entry, "id": "P0"}, report)
