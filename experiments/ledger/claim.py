"""Define a claim: a statement, the ways of holding it against a problem, and a control that must be refuted."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import xarray as xr

from experiments.lab.experiment import Experiment
from experiments.ledger.verdict import Finding

Findings = Callable[[Any, xr.Dataset], list[Finding]]
"""From a configuration and what was stored under it to the quantities that decide."""


class Reading(NamedTuple):
    """State one way to take a statement, and what decides it."""

    name: str
    statement: str
    experiment: Experiment[Any]
    findings: Findings


class Evidence(NamedTuple):
    """Pair one experiment that can decide a statement with a control that is wrong on purpose."""

    plain: Reading
    control: Reading


@dataclass(frozen=True)
class Claim:
    """Make a statement of the paper, or of our own, under the id that paper and ledger share.

    On every problem the first of `evidence` that the problem can answer decides. `readings` are other ways to take the
    statement, and parts of it, from the widest to the narrowest: the first of them that is supported stands beside a
    statement that is not. The verdict of the claim is that of the findings on all homes of its first evidence together.
    """

    id: str
    assumptions: tuple[str, ...]
    source: str
    evidence: tuple[Evidence, ...]
    readings: tuple[Reading, ...] = ()
    figures: tuple[str, ...] = ()

    @property
    def statement(self) -> str:
        """Return its plainest reading, in words."""
        return self.evidence[0].plain.statement

    @property
    def homes(self) -> tuple[str, ...]:
        """Name the problems on which the statement is decided."""
        return self.evidence[0].plain.experiment.homes
