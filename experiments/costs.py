"""The seconds that experiments took in the reference run, kept in docs/costs.json for the listing."""

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


def collect(out: Path) -> dict[str, dict[str, float]]:
    """Add up the stored seconds of every experiment on every problem in a folder of results."""
    found: dict[str, dict[str, float]] = {}
    for path in sorted(out.glob("**/*.timing/*.json")):
        experiment, *problem = str(path.parent.relative_to(out)).removesuffix(".timing").split("/")
        of = found.setdefault(experiment, {})
        name = problem[0] if problem else "mlp"
        of[name] = of.get(name, 0.0) + float(json.loads(path.read_text(encoding="utf-8")).get("seconds", 0.0))
    return {experiment: {k: round(v, 1) for k, v in of.items()} for experiment, of in sorted(found.items())}
