"""The same numbers on one device, on four, and on two processes of two.

A sum over samples or columns that is taken in another order differs by at most 10·n·ε of its size, n the length of the
longest chain of products (at most D = 41); data, weights and second derivatives of the loss are of order one. The
gradient of step t carries the difference of all steps before it, each multiplied by at most 1 + η‖H‖.
"""

import os
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path

import jax
import many_devices
import numpy as np
import pytest
from jax.sharding import Mesh
from many_devices import RATE, STEPS
from problems import rejects, rounding

import signal_drift as sd
from signal_drift.operators.mesh import MeshAxis

PROGRAM = Path(many_devices.__file__)
D = 41
ONE = Mesh(np.array(jax.devices()[:1]), ("all",))


def run(devices: int, *arguments: str) -> subprocess.Popen[str]:
    environment = {
        "PYTHONPATH": os.pathsep.join([str(PROGRAM.parents[1]), os.environ.get("PYTHONPATH", "")]),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0",
    }
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), *arguments], env=os.environ | environment, stderr=subprocess.PIPE, text=True
    )


def four_devices(out: Path) -> list[subprocess.Popen[str]]:
    return [run(4, str(out))]


def two_processes(out: Path) -> list[subprocess.Popen[str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    return [run(2, str(out), address, "2", str(i)) for i in range(2)]


@pytest.fixture(scope="module", params=[four_devices, two_processes])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    out = tmp_path_factory.mktemp("numbers") / "numbers.npz"
    processes = request.param(out)
    try:
        errors = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * len(processes), "\n".join(errors)
    return dict(np.load(out))


@cache
def alone() -> dict[str, np.ndarray]:
    data, base, adapters = many_devices.problem()
    parts = many_devices.parts_of(data, base, adapters)
    results = many_devices.from_batch(data, base, adapters) | many_devices.from_columns(parts)
    return {name: np.asarray(x) for name, x in results.items()}


def tolerance(expected: dict[str, np.ndarray], name: str) -> float:
    if name in ("extremes", "residuals"):
        return 2 * float(np.max(expected["residuals"]))
    if name in ("loss", "signal norm"):
        growth = (1 + RATE * np.linalg.norm(expected["lora"], 2)) ** STEPS
        return float(STEPS * growth) * rounding(D, max(1.0, float(np.max(expected[name]))))
    return rounding(D, max(1.0, float(np.linalg.norm(expected[name]))))


def wrong(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> list[str]:
    names = {key: key.partition(" ")[2] for key in found}
    return [
        key
        for key, name in names.items()
        if not np.max(np.abs(found[key] - expected[name])) <= tolerance(expected, name)
    ]


def test_numbers_are_those_of_one_device(found):
    assert len(found) == 11
    assert wrong(found, alone()) == []


def test_lost_samples_would_be_noticed(found):
    """A device's share of the data that does not count: 2 of 8 samples."""
    data, base, adapters = many_devices.problem()
    lora = many_devices.parts_of(tuple(x[:6] for x in data), base, adapters).lora
    noticed = wrong(found, alone() | {"lora": np.asarray(lora.dense())})
    assert noticed == ["batch lora", "both lora"]


def test_lost_columns_would_be_noticed(found):
    """A device's last column, here the last but one of D = 41, written over by what fills up the shares."""
    task = alone()["task"].copy()
    task[-2] = task[0]
    assert "columns task" in wrong(found, alone() | {"task": task})


def test_one_device_is_a_mesh_too():
    data, base, adapters = many_devices.problem()
    parts = many_devices.parts_of(sd.shard_data(data, ONE), base, adapters)
    assert wrong({"both lora": np.asarray(sd.shard_columns(parts, ONE).lora.dense())}, alone()) == []


def test_unknown_axis_is_named():
    with rejects("axis", "'rows'", "'all'"):
        sd.shard_data(np.zeros((4, 2)), ONE, "rows")
    several = Mesh(np.array(jax.devices()[:1])[:, None], ("columns", "batch"))
    with rejects("axis", None, "'columns'", "'batch'"):
        sd.shard_columns(many_devices.parts_of(*many_devices.problem()), several)


class Four(MeshAxis):
    """What four devices would say, without having them."""

    @property
    def size(self) -> int:
        return 4


def test_samples_that_do_not_divide_are_named(monkeypatch):
    monkeypatch.setattr("signal_drift.operators.sharding.mesh_axis", lambda mesh, axis: Four(mesh, "all"))
    with rejects("data['X']", "4 devices", "'all'", "6 samples"):
        sd.shard_data({"X": np.zeros((6, 2))}, ONE)
    with rejects("data['scale']", "no axis of samples"):
        sd.shard_data({"X": np.zeros((8, 2)), "scale": np.float64(1.0)}, ONE)


def test_only_operators_have_columns():
    with rejects("operators", "function"):
        sd.shard_columns(many_devices.mlp_loss, ONE)
