"""Sort the names of layers by depth, and tell their kinds."""

import re
from collections.abc import Iterable


def by_depth(names: Iterable[str]) -> list[str]:
    """Sort names by the numbers in them, as numbers: "layers.2" before "layers.10"."""
    return sorted(names, key=lambda name: [int(x) if x.isdigit() else x for x in re.split(r"(\d+)", name)])


def kind_of(name: str) -> str:
    """Return what layers of one kind have in common: the name without its numbers.

    >>> kind_of("layers.11.attention.query")
    'attention.query'
    """
    return ".".join(part for part in name.split(".")[1:] if not part.isdigit()) or name.split(".", maxsplit=1)[0]
