"""Open this for the methods that are compared: what each sets, where it starts, how it trains, how they stand."""

from experiments.tuning.methods.recipes import (
    COMMON,
    DORA,
    FULL,
    PISSA,
    TENFOLD,
    V1,
    V2,
    Method,
    methods,
    namesakes,
    swept,
    tuned,
)

__all__ = [
    "COMMON",
    "DORA",
    "FULL",
    "PISSA",
    "TENFOLD",
    "V1",
    "V2",
    "Method",
    "methods",
    "namesakes",
    "swept",
    "tuned",
]
