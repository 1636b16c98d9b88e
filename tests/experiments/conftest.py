"""Everything reproduced once, at the tiny size: the tests that look at it run in one pytest worker."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reproduce everything at the tiny size. Nothing is added to the folder: its ledger tells what is there."""
    from experiments.doors import reproduce  # not before pytest has set up its filters and type checks

    folder = tmp_path_factory.mktemp("results")
    reproduce.reproduce(reproduce.Options(quick=True, out=folder))
    return folder


@pytest.fixture(scope="session")
def stored(out: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of it, in which tests store what else they ask."""
    return Path(shutil.copytree(out, tmp_path_factory.mktemp("stored") / "results"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "out" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("reproduced"))
