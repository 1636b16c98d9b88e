"""The published JSON Schema says what `table` checks: an independent validator agrees on good and on bad ledgers."""

import copy
import json
import random
from pathlib import Path

import jsonschema
import pytest

from experiments.ledger import table
from experiments.ledger.quoted.schema import schema

DOCS = Path(__file__).parents[4] / "docs"
WRONG = (None, True, -3, 0.5, "", "x y", [], {}, [[]], "supported", [0.0, None], [0.0], 10**9)


def test_published_schema_is_that_of_the_code_and_is_one() -> None:
    published = json.loads((DOCS / "ledger.schema.json").read_text(encoding="utf-8"))
    assert published == schema()
    jsonschema.Draft202012Validator.check_schema(published)


@pytest.fixture(scope="module")
def sound() -> dict:
    """The reference run cut to three claims."""
    whole = json.loads((DOCS / "ledger.json").read_text(encoding="utf-8"))
    return whole | {"claims": whole["claims"][4:7]}


def test_published_ledger_meets_its_schema(sound) -> None:
    validator = jsonschema.Draft202012Validator(schema())
    assert validator.is_valid(json.loads((DOCS / "ledger.json").read_text(encoding="utf-8")))
    assert table.is_file(sound)


def places(value, above=()):
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [above, *(place for key, x in inner for place in places(x, (*above, key)))]


@pytest.mark.parametrize("harm", ["value", "less", "more"])
def test_both_refuse_the_same(harm: str, sound) -> None:
    """A value or a type that may be wrong, a field less or a field more, anywhere."""
    validator, refused = jsonschema.Draft202012Validator(schema()), 0
    every = places(sound)[1:]
    for seed in range(150):
        draw, bad = random.Random(seed), copy.deepcopy(sound)
        *above, last = draw.choice(every)
        node = bad
        for key in above:
            node = node[key]
        if harm == "value":
            node[last] = draw.choice(WRONG)
        elif isinstance(node, dict):
            node.pop(last) if harm == "less" else node.update(another=1)
        assert table.is_file(bad) == validator.is_valid(bad), (seed, above, last)
        refused += not table.is_file(bad)
    assert refused > 50


@pytest.mark.parametrize(
    ("name", "value", "holds"),
    [
        *((name, x, x in good) for name, good in (("power", (0, 1, 0.5)), ("confidence", (0.5,))) for x in (0, 1, 0.5)),
        *((name, x, False) for name in ("power", "confidence") for x in (-0.01, 1.01, 37)),
    ],
)
def test_shares_and_levels_are_bounded(name: str, value: float, holds: bool, sound) -> None:
    bad = copy.deepcopy(sound)
    bad["claims"][0]["problems"]["mlp"]["findings"][0][name] = value
    assert table.is_file(bad) == jsonschema.Draft202012Validator(schema()).is_valid(bad) == holds


def test_another_version_is_refused(sound) -> None:
    other = sound | {"schema": "signal_drift/ledger/2"}
    assert not jsonschema.Draft202012Validator(schema()).is_valid(other)
    assert not table.is_file(other)
