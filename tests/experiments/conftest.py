"""Everything reproduced once for each pytest worker, at the tiny size."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from experiments import reproduce  # not before pytest has set up its filters and type checks

    folder = tmp_path_factory.mktemp("results")
    reproduce.reproduce(reproduce.Options(quick=True, out=folder))
    return folder
