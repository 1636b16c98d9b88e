"""The Kubernetes examples of docs/examples: what their pods are told to run does here what it should do there."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from sleepy_processes import ROOT

from experiments.__main__ import door
from experiments.lab import command_line
from experiments.lab.command_line import Run
from experiments.lab.shards import Shard, shard_of


def manifest(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / "docs" / "examples" / name).read_text(encoding="utf-8"))["spec"]


def command_of(job: dict[str, Any]) -> list[str]:
    (container,) = job["template"]["spec"]["containers"]
    return container["command"]


def test_pods_of_a_job_set_find_one_another_and_share_the_points(tmp_path: Path) -> None:
    """Two processes of the same command, which find each other as SLURM's do; at a tiny size."""
    (workers,) = manifest("jobset.yaml")["replicatedJobs"]
    python, *words = command_of(workers["template"]["spec"])
    assert python == "python"
    command = [sys.executable, *[str(tmp_path) if word == "/results" else word for word in words], "--quick"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    count = workers["template"]["spec"]["completions"]
    job = {"SLURM_JOB_ID": "1", "SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_NTASKS": str(count)}
    shared = {**os.environ, **job, "JAX_COORDINATOR_ADDRESS": address, "JAX_PLATFORMS": "cpu"}
    processes = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=shared | {"SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(count)
    ]
    try:
        ended = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * count, ended
    assert [output.startswith("| quantity") for output, _ in ended] == [True] + [False] * (count - 1)


def test_pods_of_an_indexed_job_take_one_shard_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shell of each pod, with `echo` for Python, and what the command line makes of the words."""
    told: list[Run] = []
    monkeypatch.setattr(command_line, "_run", lambda experiment, config, how: told.append(how))
    job = manifest("shards.yaml")
    shell, flag, line = command_of(job)
    for i in range(job["completions"]):
        command = [shell, flag, line.replace("python", "echo", 1)]
        done = subprocess.run(command, env={"JOB_COMPLETION_INDEX": str(i)}, capture_output=True, text=True, check=True)
        module, name, *words = done.stdout.split()
        assert (module, name) == ("-m", "experiments")
        door(words)
    assert [shard_of(how.shard, {}) for how in told] == [Shard(i, len(told)) for i in range(job["completions"])]
    assert {how.out for how in told} == {Path("/results")}
