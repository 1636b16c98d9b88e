"""Everything reproduced once for each pytest worker, at the tiny size."""

from pathlib import Path

import pytest

from experiments import reproduce


@pytest.fixture(scope="session")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    reproduce.reproduce(reproduce.Options(quick=True, out=folder))
    return folder
