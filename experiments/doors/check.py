"""Check a ledger.json that someone quotes: its schema, its digests, and that its verdicts follow from its findings."""

import hashlib
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import tyro

from experiments.catalogue import ALONE, EXPERIMENTS
from experiments.lab.errors import RecordError
from experiments.lab.reference import UNREADABLE, archive
from experiments.lab.store import path_of
from experiments.ledger.quoted.follows import doubts
from experiments.ledger.quoted.manifest import ROOT, code, digest_of_claims, records
from experiments.ledger.table import Entry, read_file
from experiments.problems import PROBLEMS
from signal_drift.errors.words import printable


@dataclass(frozen=True)
class Options:
    """Check the schema, the digests and the verdicts of a ledger.json; one line and exit 2 for what does not hold."""

    ledger: tyro.conf.Positional[Path]
    """Its path."""


def check(options: Options) -> None:
    """Print what was checked. Raises `RecordError` for the first thing that does not hold."""
    print("\n".join(checked(options.ledger)))


def checked(path: Path) -> list[str]:
    """Say what holds of a ledger and what cannot be checked here, one line for each."""
    whole = read_file(path)
    claims, manifest = whole["claims"], whole["manifest"]
    if digest_of_claims(claims) != manifest["claims"]:
        raise RecordError(f"ledger: {str(path)!r} was altered: its claims have not the digest of its manifest")
    found = list(islice(doubts(claims), 1))
    if found:
        raise RecordError(f"ledger: {str(path)!r}: {printable(found[0])}")
    altered = [name for name, mark in manifest["records"].items() if records().get(name, mark) != mark]
    if altered:
        raise RecordError(f"ledger: {str(path)!r} rests on other records than {printable(altered[0])}")
    cells = [cell for entry in claims for cell in entry["problems"].values() if cell["records"]]
    kept = sum(cell["records"] in _digests(str(cell["command"])) for cell in cells)
    here = sum(name in records() for name in manifest["records"])
    return [
        f"{whole['schema']}: {len(claims)} claims, not altered",
        f"every verdict follows from its findings, of which there are {sum(1 for _ in _findings(claims))}",
        f"{here} of {len(manifest['records'])} files of records are here, and are those that it rests on",
        f"{kept} of {len(cells)} verdicts on a problem rest on records kept there, byte by byte; the others on records "
        "of that run",
        _code(manifest),
    ]


def _findings(claims: list[Entry]) -> Iterator[Entry]:
    for entry in claims:
        for cell in entry["problems"].values():
            yield from cell["findings"]
            for judged in (*cell["readings"], *filter(None, [cell["control"]])):
                yield from judged["findings"]


def _code(manifest: Mapping[str, Any]) -> str:
    theirs, ours = manifest["code"], code()
    differ = sum(theirs.get(name) != ours.get(name) for name in {*theirs, *ours})
    at = f"commit {printable(manifest['commit'])}"
    return f"the code here is that of {at}" if not differ else f"the code here differs from {at} in {differ} files"


@cache
def _digests(command: str) -> frozenset[str]:
    """The digests that the kept records of a command's experiment on its problem have, at every stage of seeds."""
    words = command.split()[3:]
    experiment = next((e for e in (*EXPERIMENTS, *ALONE) if words[:1] == [e.name]), None)
    if experiment is None:
        return frozenset()
    problem = PROBLEMS.get(words[2] if words[1:2] == ["--problem"] else experiment.homes[0])
    if problem is None or experiment.refuses(problem):
        return frozenset()
    config = experiment.at(problem)
    file = archive(experiment, config)
    if not file.exists():
        return frozenset()
    try:
        with zipfile.ZipFile(file) as kept:
            stages = [
                [path_of(ROOT, experiment.name, x, p).name for p in experiment.points(x)]
                for x in experiment.staged(config)
            ]
            whole = [names for names in stages if set(names) <= set(kept.namelist())]
            return frozenset(_digest(kept, names) for names in whole)
    except UNREADABLE as error:
        raise RecordError(f"reference: {str(file)!r} is damaged ({type(error).__name__})") from None


def _digest(kept: zipfile.ZipFile, names: list[str]) -> str:
    """Digest records as `experiments.lab.runner.from_store` does."""
    content = hashlib.sha256()
    for name in names:
        content.update(kept.read(name))
    return content.hexdigest()[:16]
