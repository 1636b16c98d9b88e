"""Kill a sweep of two shards a hundred times at random moments, and compare what it leaves with an undisturbed one.

`python tests/experiments/lab/kills.py`, or `make kills`, writes what came out into docs/kills.json.
"""

import hashlib
import json
import random
import signal
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from sleepy_processes import ROOT, finish, start

SHARDS = 2
LONGEST = 0.15
"""Seconds after the second point that a process begins, within which it is killed: a few points."""
PAGE = ROOT / "docs" / "kills.json"


class Outcome(NamedTuple):
    """Hold how often a sweep was killed, how often while a file was half-written, and the digests of both sweeps."""

    kills: int
    mid_write: int
    points: int
    killed: str
    undisturbed: str

    @property
    def identical(self) -> bool:
        return self.killed == self.undisturbed


def kill_sweep(folder: Path, kills: int, points: int, seed: int = 0) -> Outcome:
    """Run the sweep in `folder` undisturbed, and once more with so many kills, each followed by another start."""
    size = ("--count", str(points), "--seconds", "0.01")
    whole, killed = folder / "whole", folder / "killed"
    finish(whole, *size)
    shares = [kills // SHARDS + (i < kills % SHARDS) for i in range(SHARDS)]
    with ThreadPoolExecutor(SHARDS) as threads:  # the shards run side by side
        jobs = [
            threads.submit(_kill_shard, killed, (*size, "--shard", f"{i}/{SHARDS}"), i, n, random.Random(f"{seed} {i}"))
            for i, n in enumerate(shares)
        ]
        caught = sum(job.result() for job in jobs)
    for i in range(SHARDS):
        finish(killed, *size, "--shard", f"{i}/{SHARDS}")
    return Outcome(kills, caught, points, content(killed), content(whole))


def _kill_shard(out: Path, arguments: tuple[str, ...], shard: int, kills: int, draw: random.Random) -> int:
    """Start a shard and kill it, again and again; count the kills that left a half-written file."""
    return sum(_kill(out, arguments, out.with_suffix(f".{shard}.{k}.log"), draw) for k in range(kills))


def _kill(out: Path, arguments: tuple[str, ...], log: Path, draw: random.Random) -> bool:
    process = start(out, *arguments, SLEEPY_LOG=str(log))
    while not log.exists() or len(log.read_text().splitlines()) < 2:  # the first point waits for git to name the commit
        if process.poll() is not None:
            raise AssertionError(f"the sweep ended before it could be killed: {process.communicate()}")
        time.sleep(0.001)
    time.sleep(draw.uniform(0, LONGEST))
    process.kill()
    process.communicate()
    if process.returncode != -signal.SIGKILL:
        raise AssertionError(f"the sweep ended by itself, with {process.returncode}")
    return any(out.rglob(f".*-{process.pid}-*"))


def content(out: Path) -> str:
    """Digest the names of all files and the bytes of all records; a timing differs from run to run."""
    digest = hashlib.sha256()
    for path in sorted(out.rglob("*")):
        digest.update(str(path.relative_to(out)).encode())
        digest.update(path.read_bytes() if path.suffix == ".nc" else b"")
    return digest.hexdigest()


def write_page() -> None:
    """Kill a sweep a hundred times and write down what came out."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty=+changes", "--exclude=*", "--abbrev=40"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        outcome = kill_sweep(Path(folder), kills=100, points=400)
    found = {
        "what": "a sweep with two shards, SIGKILLed at random moments; digests of its records and of undisturbed ones",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": commit.stdout.strip(),
        **outcome._asdict(),
        "identical": outcome.identical,
    }
    PAGE.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(PAGE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    write_page()
