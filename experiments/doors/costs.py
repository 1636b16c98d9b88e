"""Read from docs/costs.json the seconds that experiments took in the reference run, for the listing."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from experiments.lab import json_files
from experiments.lab.json_files import by_name, is_number

FILE = Path(__file__).parents[2] / "docs" / "costs.json"


def spent(experiment: str) -> Mapping[str, float]:
    """Return the seconds of one experiment by problem, as far as the reference run knows them."""
    return _costs().get(experiment, {})


@cache
def _costs() -> dict[str, dict[str, float]]:
    try:
        return json_files.read(FILE, by_name(by_name(is_number)))
    except (OSError, ValueError):
        return {}
