"""A claim of the ledger: a statement, the stored results it is held against, and a control that must be refuted."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import xarray as xr

from experiments.claims.verdict import Finding
from experiments.lab.experiment import Experiment

Findings = Callable[[Any, xr.Dataset], list[Finding]]
"""From a configuration and what was stored under it to the quantities that decide."""


class Reading(NamedTuple):
    """One way to take a statement, and what decides it."""

    name: str
    statement: str
    experiment: Experiment
    findings: Findings


@dataclass(frozen=True)
class Claim:
    """A statement of the paper, or of our own, under the id that paper and ledger share.

    `plain` is the plainest reading and gives the verdict. `control` is wrong on purpose and goes through the same
    machinery. `readings` are other ways to take the statement, and parts of it, from the widest to the narrowest:
    the first of them that is supported stands beside a statement that is not.
    """

    id: str
    assumptions: tuple[str, ...]
    source: str
    plain: Reading
    control: Reading
    readings: tuple[Reading, ...] = ()
    figures: tuple[str, ...] = ()
