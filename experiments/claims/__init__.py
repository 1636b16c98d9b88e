"""Open this package to see what is judged, or to add a statement: a folder for every source, found by itself.

A folder has in its `__init__` its `SOURCE` and its `CLAIMS`, in their order. Those of the paper that the report is
about come first, in the order of the theory, then of the experiments; then our own; then other sources by their date.

>>> [claim.id for claim in CLAIMS][:3]
['P1-update', 'P1-hessian', 'P2-descent']
"""

from dataclasses import replace
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

from experiments.ledger.claim import OURS, SUBJECT, Claim, Source

FIRST = (SUBJECT, OURS.key)


def discovered() -> list[Claim]:
    """Return the claims of every folder, each with its source; an identity of ours among a paper's remains ours."""
    return [
        claim if claim.ours else replace(claim, paper=folder.SOURCE) for folder in _folders() for claim in folder.CLAIMS
    ]


def _folders() -> list[ModuleType]:
    """Import every folder here, in the order in which their sources stand."""
    found = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__) if module.ispkg]
    return sorted(found, key=lambda folder: _place(folder.SOURCE))


def _place(source: Source) -> tuple[int, str, str]:
    return (FIRST.index(source.key) if source.key in FIRST else len(FIRST)), source.published, source.key


CLAIMS: list[Claim] = discovered()
SOURCES: list[Source] = list(dict.fromkeys(claim.paper for claim in CLAIMS))
