"""Everything reproduced once, at the tiny size: the tests that look at it run in one pytest worker."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from experiments import reproduce  # not before pytest has set up its filters and type checks

    folder = tmp_path_factory.mktemp("results")
    reproduce.reproduce(reproduce.Options(quick=True, out=folder))
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "out" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("reproduced"))
