"""One folder of results for all tests of runs and steps: what one of them measured is there for the others."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dynamics")
