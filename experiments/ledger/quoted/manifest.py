"""Say by SHA-256 what a ledger rests on: its claims as they are written, the code that judged them, kept records."""

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from experiments.lab.reference import FOLDER
from experiments.lab.store import provenance
from experiments.ledger.table import Entry

ROOT = FOLDER.parents[1]
CODE = ("signal_drift", "experiments")
"""Folders of the code; what Python and the pages are made of counts."""
KINDS = {".py", ".j2", ".css", ".js"}


def manifest(claims: Sequence[Entry]) -> dict[str, Any]:
    """Name the commit, and give the digests of the claims, of every file of code and of every file of docs/records."""
    return {
        "commit": str(provenance()["commit"]),
        "claims": digest_of_claims(claims),
        "code": code(),
        "records": records(),
    }


def digest_of_claims(claims: Sequence[Entry]) -> str:
    """Digest what JSON says, however it is laid out: keys sorted, no blanks, UTF-8."""
    text = json.dumps(claims, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def code() -> dict[str, str]:
    """Digest every file of code here, by its path in the project."""
    return _digests(path for top in CODE for path in (ROOT / top).rglob("*") if path.suffix in KINDS)


@cache
def records() -> dict[str, str]:
    """Digest every file of records that docs/records has here."""
    return _digests(FOLDER.rglob("*.zip"))


def _digests(paths: Any) -> dict[str, str]:
    return {str(path.relative_to(ROOT).as_posix()): _digest(path) for path in sorted(paths)}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
