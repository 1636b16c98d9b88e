"""Lines of sums and products: values by Python's own arithmetic, and what reasoning-gym asks where it is there."""

import sys
import zipfile
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from problems import rejects

from experiments.problems import fetch
from experiments.problems.smollm import WHEEL
from signal_drift.tasks.policy.lines import Line, chain_sums, opening, products, tokenise_lines


def letters(text: str) -> list[int]:
    return list(text.encode())


@pytest.mark.parametrize(("lines", "count"), [(chain_sums(2), 200), (chain_sums(3), 4000), (products(), 100)])
def test_every_value_is_that_of_its_expression(lines, count):
    assert len({line.expression for line in lines}) == len(lines) == count
    assert all(eval(line.expression) == line.value for line in lines)


def drawn(module: str, count: int, **sizes: int) -> list[dict[str, Any]]:
    """Draw what a generator of the package draws, run by itself with stand-ins for the rest of the package."""
    found: list[Any] = []

    class Dataset:
        def __init__(self, config: Any, seed: int, size: int) -> None:
            self.config, self.seed = config, seed

    known = {
        "coaching": SimpleNamespace(BaseCurriculum=object, RangeAttributeDefinition=object),
        "factory": SimpleNamespace(ProceduralDataset=Dataset, register_dataset=lambda *names: found.extend(names)),
        "reasoning_gym": SimpleNamespace(utils=None),
    }
    builtins = vars(__import__("builtins")) | {
        "__import__": lambda name, *rest: known[name] if name in known else __import__(name, *rest)
    }
    with zipfile.ZipFile(fetch.cache() / WHEEL) as archive:
        source = archive.read(f"reasoning_gym/arithmetic/{module}.py")
    sys.modules[module] = ModuleType(module)  # where dataclasses look for it
    try:
        exec(compile(source, module, "exec"), {"__name__": module, "__builtins__": builtins})
    finally:
        del sys.modules[module]
    _, dataset, config, _ = found
    asked = dataset(config(seed=0, size=count, **sizes))
    return [asked[i] for i in range(count)]


@pytest.mark.parametrize(
    ("module", "lines", "sizes"),
    [
        ("chain_sum", chain_sums(2), {"min_terms": 2, "max_terms": 2}),
        ("chain_sum", chain_sums(3), {"min_terms": 3, "max_terms": 3}),
        ("products", products(), {}),
    ],
)
def test_the_package_asks_these(module, lines, sizes):
    if fetch.missing(fetch.needed("smollm"), fetch.cache()):
        pytest.skip("reasoning-gym is not fetched")
    asked = [
        Line(x["metadata"]["expression"], int(x["answer"]))
        for x in drawn(module, 1000, min_digits=1, max_digits=1, **sizes)
    ]
    assert set(asked) <= set(lines)
    assert len(set(asked)) > 0.8 * min(len(lines), 1000)


def test_a_row_is_its_line_after_the_examples():
    examples = [Line("0 - 4", -4), Line("4 - 1", 3)]
    chats = tokenise_lines(letters, [Line("7 + 5", 12), Line("3 - 9", -6)], examples, 40)
    rows = [bytes(row[row > 0].tolist()).decode() for row in np.asarray(chats.tokens).astype(np.uint8)]
    assert rows == [f"0 - 4 = -4\n4 - 1 = 3\n{line}\n" for line in ("7 + 5 = 12", "3 - 9 = -6")]
    answers = [bytes(x[own].tolist()).decode() for x, own in zip(*map(np.asarray, chats), strict=True)]
    assert answers == [" 12\n", " -6\n"]
    assert opening(examples) == "0 - 4 = -4\n4 - 1 = 3\n"


def test_what_cannot_be_written_is_named():
    with rejects("terms: must be a whole number of at least 2", "1"):
        chain_sums(1)
    with rejects("lines: none to write"):
        tokenise_lines(letters, [], [], 9)
    with rejects("length: must be at least 11 for '7 + 5', got 9"):
        tokenise_lines(letters, [Line("7 + 5", 12)], [], 9)
    with rejects("encode: must be a function"):
        tokenise_lines("letters", [Line("7 + 5", 12)], [], 9)  # pyright: ignore[reportArgumentType]
