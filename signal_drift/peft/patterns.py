"""Looks layers up in `rank_pattern` and `alpha_pattern`, whose expressions are of unknown origin and have to end."""

import math
import re
import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TypeVar

from signal_drift.errors import InputError
from signal_drift.errors.words import printable, shown
from signal_drift.peft.settings import CONFIG

MOST_PATTERNS = 10_000
MOST_STEPS = 1e8
"""Ways to match one layer that a pattern may have at most: it is of unknown origin, and has to end."""
SPECIAL = re.compile(r"[*+?{|]")
NESTED = re.compile(r"\)[*+{]|[*+?}][*+{]")
"""A repeated group, in an expression without escapes and classes: it may repeat what itself repeats."""

V = TypeVar("V", int, float)


def of_layer(pattern: Mapping[str, V], layer: str, default: V) -> V:
    """Look a layer up as PEFT does: the first pattern that matches its whole name or the end of it after a dot.

    Raises `InputError` for a pattern that may take too long.
    """
    for key, value in pattern.items():
        _check_steps(key, layer)
        if _compiled(key).match(layer):
            return value
    return pattern.get(layer, default)


def is_whole(expression: str, layer: str) -> bool:
    """Tell whether an expression matches a layer's whole name, as PEFT reads a `target_modules` that is no list.

    Raises `InputError` for a pattern that may take too long; `check_patterns` for one that is no expression.
    """
    _check_steps(expression, layer)
    return re.fullmatch(expression, layer) is not None


def _check_steps(key: str, layer: str) -> None:
    if _steps(key, layer) > MOST_STEPS:
        raise InputError(f"{CONFIG}: the pattern {shown(key)} may take for ever to match {shown(layer)}")


@lru_cache(maxsize=MOST_PATTERNS)
def _compiled(key: str) -> re.Pattern[str]:
    with warnings.catch_warnings(action="ignore"):
        return re.compile(rf"(.*\.)?({key})$")


def _steps(key: str, layer: str) -> float:
    """Bound the ways to match: n + 1 for each repeat, 2 for each `?`, the alternatives for each `|`."""
    if not SPECIAL.search(key):
        return 0.0
    bare = re.sub(r"\\.|\[\^?\]?[^\]]*\]", "x", key, flags=re.DOTALL)
    if NESTED.search(bare):
        return math.inf
    repeats, choices = len(re.findall(r"[*+{]", bare)), len(re.findall(r"(?<!\()\?", bare))
    groups = [1 + part.count("|") for part in bare.split("(")]
    return (len(layer) + 1.0) ** min(repeats, 30) * 2.0 ** min(choices, 60) * math.prod(map(float, groups))


def check_patterns(name: str, keys: Sequence[str]) -> None:
    """Raise `InputError` for a key that is no regular expression, and for too many."""
    if len(keys) > MOST_PATTERNS:
        raise InputError(f"{CONFIG}: {name} must have at most {MOST_PATTERNS} patterns, got {len(keys)}")
    for key in keys:
        try:
            _compiled(key)
        except (re.error, OverflowError, RecursionError) as error:
            raise InputError(
                f"{CONFIG}: {name} has the key {shown(key)}, no regular expression ({printable(str(error))})"
            ) from None
