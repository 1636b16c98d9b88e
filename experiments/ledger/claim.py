"""Define a claim: a statement, the ways of holding it against a problem, and a control that must be refuted."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import xarray as xr

from experiments.lab.experiment import Experiment
from experiments.ledger.verdict import Finding

Findings = Callable[[Any, xr.Dataset], list[Finding]]
"""From a configuration and what was stored under it to the quantities that decide."""
Applies = Callable[[Any, xr.Dataset], str]
"""From the same to why the statement's own conditions fail there, in words; nothing where they hold."""
Group = Literal["algebra", "fixed weights", "one step", "training", "tuning"]
GROUPS: tuple[Group, ...] = get_args(Group)
"""What a statement is about, from what needs the least to what needs the most."""
OWN = "our own"
"""The place of a statement that is in no paper."""
DERIVED = "derived from"
"""How the place begins of what follows from a paper, but is not stated there by its authors."""


class Source(NamedTuple):
    """Hold where statements come from: the folder of `experiments.claims`, what it is called, and where to read it."""

    key: str
    name: str
    title: str
    published: str
    """Year and month: other papers stand in their order."""
    address: str = ""


SUBJECT = "lora_alpha"
"""The key of the paper that the report is about."""
OURS = Source("own", "Our own", "found and checked in this project", "")


def anywhere(config: Any, data: xr.Dataset) -> str:
    """Apply without conditions."""
    return ""


class Reading(NamedTuple):
    """State one way to take a statement, what decides it, and where it applies."""

    name: str
    statement: str
    experiment: Experiment[Any]
    findings: Findings
    applies: Applies = anywhere


class Evidence(NamedTuple):
    """Pair one experiment that can decide a statement with a control, a statement that is wrong and has to fall.

    There is none where no wrong statement of the kind is known to be wrong; the power of the findings says then what
    they would have noticed.
    """

    plain: Reading
    control: Reading | None = None


def untestable(statement: str, experiment: Experiment[Any], reason: str) -> tuple[Evidence, ...]:
    """Enter a statement that nothing here can decide, beside the experiment that comes nearest, with the reason."""
    nothing = Reading("as stated", statement, experiment, lambda config, data: [], lambda config, data: reason)
    return (Evidence(nothing),)


@dataclass(frozen=True)
class Claim:
    """Make a statement of a paper, or of our own, under the id that it has in the ledger.

    `source` is its place there (an equation, a figure) and `paper` what it is a place of, as its folder says.

    On every problem the first of `evidence` that the problem can answer decides. `readings` are other ways to take the
    statement, and parts of it, from the widest to the narrowest: the first of them that is supported stands beside a
    statement that is not. The verdict of the claim is that of the findings on all homes of its first evidence together.
    `measured_on` is where the paper saw it, in words; `formula` the statement in LaTeX; `figure` the one that shows it.
    Claims that rest on one `measurement` are no independent evidence.
    """

    id: str
    group: Group
    assumptions: tuple[str, ...]
    source: str
    evidence: tuple[Evidence, ...]
    readings: tuple[Reading, ...] = ()
    figure: str = ""
    formula: str = ""
    measured_on: str = ""
    measurement: str = ""
    paper: Source = OURS

    @property
    def statement(self) -> str:
        """Return its plainest reading, in words."""
        return self.evidence[0].plain.statement

    @property
    def homes(self) -> tuple[str, ...]:
        """Name the problems on which the statement is decided."""
        return self.evidence[0].plain.experiment.homes

    @property
    def ours(self) -> bool:
        """Tell whether the statement is our own."""
        return self.source == OWN


def in_order(ids: Sequence[str], *modules: Any) -> list[Claim]:
    """Take the claims with these ids, in this order, out of the `CLAIMS` of modules. Raises `KeyError` for others."""
    found = {claim.id: claim for module in modules for claim in module.CLAIMS}
    return [found[name] for name in ids]
