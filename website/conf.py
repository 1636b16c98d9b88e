"""Configures Sphinx for the site: docs/, notebooks/ and README.md as they lie there, an API reference, the ledger.

`make docs` calls it. What is read is a copy, in which the pages that come from code and from docs/ledger.json stand
beside those that are written; nothing is fetched.
"""

import shutil
import sys
from importlib import metadata
from importlib.resources import files
from pathlib import Path

from sphinx.application import Sphinx

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT)]

import api_pages
import ledger_pages

import signal_drift

project = "signal_drift"
version = release = metadata.version("signal-drift")
author = copyright = "the authors of signal_drift"

extensions = ["myst_nb", "sphinx.ext.autodoc", "house_style", "names", "mathml"]
include_patterns = ["index.md", "README.md", "papers/*.md", "docs/*.md", "notebooks/*.ipynb", "api/*.rst"]
nitpicky = True
default_role = "py:obj"
maximum_signature_line_length = 100
smartquotes = False

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
myst_update_mathjax = False
nb_execution_mode = "off"
nb_ipywidgets_js: dict[str, dict[str, str]] = {}
html_math_renderer = "mathml"

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"

html_theme = "sphinx_book_theme"
html_theme_options = {
    "navbar_persistent": [],
    "use_download_button": False,
    "use_fullscreen_button": False,
    "secondary_sidebar_items": {"**": ["page-toc"], "index": []},
}
html_title = "signal_drift"
html_context = {"default_mode": "auto"}
html_static_path = ["static", str(files("ziamath") / "fonts" / "STIXTwoMath-Regular.ttf")]
html_css_files = ["site.css"]
html_copy_source = False
html_last_updated_fmt = None

COPIED = ("README.md", "CITATION.cff", "docs", "notebooks", "tests")
"""What the pages are, show and link to."""


def stage(app: Sphinx) -> None:
    """Lay out all that is read, and nothing else: the copies, and the pages that are made."""
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.rmtree(app.srcdir / name, ignore_errors=True)
            shutil.copytree(ROOT / name, app.srcdir / name, ignore=shutil.ignore_patterns("__pycache__", "records"))
        else:
            shutil.copy2(ROOT / name, app.srcdir / name)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    made = ledger_pages.pages(ROOT / "docs", readme) | api_pages.pages(signal_drift)
    for folder in ("papers", "api"):
        (app.srcdir / folder).mkdir(exist_ok=True)
        for old in (app.srcdir / folder).iterdir():
            if f"{folder}/{old.name}" not in made:
                old.unlink()
    for name, text in made.items():
        path = app.srcdir / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> None:
    app.connect("builder-inited", stage)
