"""Check an accelerator: its numbers against the CPU's, its times against its own floors, and what the paper shows.

What was measured is kept, so that an interrupted check goes on where it was.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import tyro
import xarray as xr

from experiments.benchmark import every_matrix, on_device
from experiments.curvature import asymmetric_scaling, purification, suppression
from experiments.doors.gpu_check import record
from experiments.doors.gpu_check.figure import draw
from experiments.dynamics import trajectories
from experiments.lab import store
from experiments.lab.command_line import Device, default_out, prepare
from experiments.lab.errors import OptionError, RecordError
from experiments.lab.experiment import Experiment, table
from experiments.lab.figure_files import save_figure
from experiments.lab.files import replacing
from experiments.lab.reference import take
from experiments.lab.runner import from_store, results, run, seconds_spent
from experiments.problems import PROBLEMS, fetch

FIGURES: tuple[Experiment[Any], ...] = tuple(
    module.EXPERIMENT for module in (trajectories, asymmetric_scaling, suppression, purification)
)
"""F2, F8d, F8a and F8b, and F8c, at the paper's size."""
HOST: dict[str, Any] = {"widths": (1024,), "moved": 2**28}
"""Where the host is asked for less than the device: nothing is compared there."""


@dataclass(frozen=True)
class Options:
    """Compare an accelerator with the CPU of the same machine, in numbers and in time."""

    quick: tyro.conf.FlagCreatePairsOff[bool] = False
    """The tiny size used in tests, in a folder of its own."""
    minutes: float = 9.0
    """After so many nothing further is begun; what is left is done by the next run."""
    out: Path | None = None
    """Where results go [default: results/gpu_check, or results/quick/gpu_check]."""
    device: Device = "auto"
    """Where JAX computes; auto takes an accelerator where there is one."""


def gpu_check(options: Options) -> None:
    """Run what is not there yet, print it and write `out`/gpu_check.json."""
    if not options.minutes > 0:
        raise OptionError(f"minutes: must be positive, got {options.minutes:g}")
    prepare(options.device)
    out = options.out or default_out(options.quick) / "gpu_check"
    end = time.monotonic() + 60 * options.minutes
    with _on_the_host(options.quick, out / "host"):
        asked, left = stages(options.quick), []
        for experiment, config in asked:
            if time.monotonic() > end:
                left.append(experiment.name)
                continue
            run(experiment, config, out / "device")
            jax.clear_caches()
    found = collected(options.quick, out, left)
    with replacing(out / "gpu_check.json") as temporary:
        temporary.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    config = on_device.EXPERIMENT.at(PROBLEMS["mlp"], options.quick)
    mark = {"Config": store.digest(on_device.EXPERIMENT.name, config, {})}
    save_figure(draw(found), out / "gpu_check", mark)
    print(table(record.rows(found)))


def stages(quick: bool) -> list[tuple[Experiment[Any], Any]]:
    """List what the device is asked, with its configuration: the language model only where it was fetched."""
    mlp, model = PROBLEMS["mlp"], PROBLEMS["smollm"]
    asked: list[tuple[Experiment[Any], Any]] = [(on_device.EXPERIMENT, on_device.EXPERIMENT.at(mlp, quick))]
    asked += [(e, e.at(mlp, quick)) for e in FIGURES[:-1]]
    if quick or not fetch.missing(fetch.needed("smollm"), fetch.cache()):
        asked.append((every_matrix.EXPERIMENT, every_matrix.EXPERIMENT.at(model, quick)))
    return [*asked, (FIGURES[-1], FIGURES[-1].at(mlp, quick))]


def host_config(quick: bool) -> on_device.OnDevice:
    """Return what the host is asked: the same numbers, and little of what only takes time."""
    config = on_device.EXPERIMENT.at(PROBLEMS["mlp"], quick)
    return config if quick else replace(config, **HOST)


@contextmanager
def _on_the_host(quick: bool, out: Path) -> Iterator[None]:
    """Compute the numbers on the CPU beside, in a process of its own, and wait for it at the end."""
    fewer = [f"--{name} {' '.join(map(str, x)) if isinstance(x, tuple) else x}".split() for name, x in HOST.items()]
    options = ["--quick"] if quick else [word for words in fewer for word in words]
    command = [sys.executable, "-m", "experiments", "on_device", "--device", "cpu", "--out", str(out), *options]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    out.mkdir(parents=True, exist_ok=True)
    with (out / "log.txt").open("w", encoding="utf-8") as log:  # a pipe that nobody reads would fill, and stop it
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            yield
            process.wait()
        finally:
            process.kill()
    if process.returncode:
        raise RecordError(f"host: {' '.join(command)} ended with {process.returncode}: see {log.name}")


def collected(quick: bool, out: Path, left: list[str]) -> dict[str, Any]:
    """Put together, from what is stored alone, all that is to be told."""
    mlp = PROBLEMS["mlp"]
    config = on_device.EXPERIMENT.at(mlp, quick)
    device = results(on_device.EXPERIMENT, config, out / "device")
    host = results(on_device.EXPERIMENT, host_config(quick), out / "host")
    figures = {}
    for experiment in FIGURES:
        asked = experiment.at(mlp, quick)
        data = from_store(experiment, asked, out / "device").data
        if data is not None:
            labels = set(experiment.points(asked)[0])
            apart = record.figures_apart(data, _reference(experiment, asked, out / "reference"), labels)
            figures[experiment.name] = {
                "seconds": seconds_spent(experiment, asked, out / "device"),
                "apart": apart,
            }
    apart = figures.get(trajectories.EXPERIMENT.name, {}).get("apart", {}).get("loss")
    found: dict[str, Any] = {
        "place": record.place(),
        "rates": on_device.rates(config, device),
        "agreement": record.agreement(config, device, host, apart),
        "speed": record.speed(config, device, host),
        "figures": figures,
        "language_model": None,
        "left": left,
    }
    model = every_matrix.EXPERIMENT.at(PROBLEMS["smollm"], quick)
    data = from_store(every_matrix.EXPERIMENT, model, out / "device").data
    if data is not None:
        seconds = seconds_spent(every_matrix.EXPERIMENT, model, out / "device")
        found["language_model"] = record.language_model(data, model.problem.label, seconds)
    return found


def _reference(experiment: Experiment[Any], config: Any, out: Path) -> xr.Dataset | None:
    """Return what the CPU of the reference run found, where docs/records has it."""
    take(experiment, config, out)
    return from_store(experiment, config, out).data
