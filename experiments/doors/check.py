"""Check a ledger.json that someone quotes: its schema, its digests, and that its verdicts follow from its findings."""

import hashlib
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import Any

import tyro

from experiments.catalogue import ALONE, EXPERIMENTS
from experiments.claims import CLAIMS
from experiments.doors.stated import departures
from experiments.lab.errors import RecordError
from experiments.lab.reference import UNREADABLE, archive
from experiments.lab.store import path_of
from experiments.ledger.quoted.follows import DECIDED, doubts
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
    if _digest_of(claims, path) != manifest["claims"]:
        raise RecordError(f"ledger: {str(path)!r} was altered: its claims have not the digest of its manifest")
    same = not _differing(manifest)
    found = list(islice(chain(doubts(claims), departures(claims, CLAIMS) if same else ()), 1))
    if found:
        raise RecordError(f"ledger: {str(path)!r}: {printable(found[0])}")
    altered = [name for name, mark in manifest["records"].items() if records().get(name, mark) != mark]
    if altered:
        raise RecordError(f"ledger: {str(path)!r} rests on other records than {printable(altered[0])}")
    missing = [name for name in manifest["records"] if name not in records()]
    return [
        f"{whole['schema']}: {len(claims)} claims, not altered",
        f"every verdict follows from its findings, of which there are {sum(1 for _ in _findings(claims))}",
        "its claims are those of the code, by id, statement, source and homes"
        if same
        else "its claims are not compared with the code, which differs",
        f"{len(manifest['records']) - len(missing)} of {len(manifest['records'])} files of records are here, and are "
        f"those that it rests on{'; missing: ' if missing else ''}{', '.join(map(printable, missing))}",
        _kept(claims, manifest["records"], path),
        _code(manifest),
    ]


def _digest_of(claims: list[Entry], path: Path) -> str:
    try:
        return digest_of_claims(claims)
    except UnicodeEncodeError:
        raise RecordError(f"ledger: {str(path)!r} has a text that is none (half of a surrogate pair)") from None


def _kept(claims: list[Entry], named: Mapping[str, str], path: Path) -> str:
    """Name the verdicts that rest on no record that is kept here; one that is kept otherwise is refused."""
    count, bare = 0, list[str]()
    for entry in claims:
        for where, cell in entry["problems"].items():
            if cell["verdict"] not in DECIDED:
                continue
            file, digests = _digests(str(cell["command"]))
            name = f"{entry['id']} on {where}"
            if digests and (cell["records"] not in digests or file not in named):
                raise RecordError(f"ledger: {str(path)!r}: {printable(name)} rests on no records that are kept of it")
            count += 1
            bare += [] if digests else [name]
    others = f"; these on records of that run, which are not: {printable(', '.join(bare))}" if bare else ""
    return f"{count - len(bare)} of {count} verdicts on a problem rest on records kept there, byte by byte{others}"


def _findings(claims: list[Entry]) -> Iterator[Entry]:
    for entry in claims:
        for cell in entry["problems"].values():
            yield from cell["findings"]
            for judged in (*cell["readings"], *filter(None, [cell["control"]])):
                yield from judged["findings"]


def _differing(manifest: Mapping[str, Any]) -> int:
    """Count the files of code that are otherwise here."""
    theirs, ours = manifest["code"], code()
    return sum(theirs.get(name) != ours.get(name) for name in {*theirs, *ours})


def _code(manifest: Mapping[str, Any]) -> str:
    differ, at = _differing(manifest), f"commit {printable(manifest['commit'])}"
    return f"the code here is that of {at}" if not differ else f"the code here differs from {at} in {differ} files"


@cache
def _digests(command: str) -> tuple[str, frozenset[str]]:
    """The file of the kept records of a command's experiment on its problem, and their digests at every stage."""
    words = command.split()[3:]
    experiment = next((e for e in (*EXPERIMENTS, *ALONE) if words[:1] == [e.name]), None)
    if experiment is None:
        return "", frozenset()
    problem = PROBLEMS.get("".join(words[2:3]) if words[1:2] == ["--problem"] else experiment.homes[0])
    if problem is None or experiment.refuses(problem):
        return "", frozenset()
    config = experiment.at(problem)
    file = archive(experiment, config)
    if not file.exists():
        return "", frozenset()
    try:
        with zipfile.ZipFile(file) as kept:
            stages = [
                [path_of(ROOT, experiment.name, x, p).name for p in experiment.points(x)]
                for x in experiment.staged(config)
            ]
            whole = [names for names in stages if set(names) <= set(kept.namelist())]
            return file.relative_to(ROOT).as_posix(), frozenset(_digest(kept, names) for names in whole)
    except UNREADABLE as error:
        raise RecordError(f"reference: {str(file)!r} is damaged ({type(error).__name__})") from None


def _digest(kept: zipfile.ZipFile, names: list[str]) -> str:
    """Digest records as `experiments.lab.runner.from_store` does."""
    content = hashlib.sha256()
    for name in names:
        content.update(kept.read(name))
    return content.hexdigest()[:16]
