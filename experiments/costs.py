"""Read from docs/costs.json the seconds that experiments took in the reference run, for the listing."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

FILE = Path(__file__).parents[1] / "docs" / "costs.json"


def spent(experiment: str) -> Mapping[str, float]:
    """Return the seconds of one experiment by problem, as far as the reference run knows them."""
    return _costs().get(experiment, {})


@cache
def _costs() -> dict[str, dict[str, float]]:
    return json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
