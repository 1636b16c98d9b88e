"""A headless Chromium for tests of pages, and what it says of them."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")


def skip_without_browser(page: str) -> None:
    """Skip the module or the test that calls this where there is no browser."""
    if not (PROGRAM and DRIVER and find_spec("selenium")):
        missing = "chromium, chromedriver and the Python package selenium are needed"
        pytest.skip(f"{page} is not opened in a browser: {missing}", allow_module_level=True)


@contextmanager
def chrome() -> Iterator["Chrome"]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(PROGRAM)
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(executable_path=DRIVER))
    try:
        yield browser
    finally:
        browser.quit()


def show(browser: "Chrome", page: Path, width: int, scheme: str = "light") -> None:
    """Open the page afresh, with the logs emptied, in a window of this width."""
    size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    browser.get("about:blank")
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get(page.as_uri())
    assert browser.execute_script("return innerWidth") == width


def requests(browser: "Chrome") -> set[str]:
    """Return the addresses of everything that was asked for since the page was opened."""
    events = [json.loads(line["message"])["message"] for line in browser.get_log("performance")]
    return {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}
