"""Store results and read them back, in the one way there is: labelled, atomic, with provenance.

A point is one independent piece of an experiment, one netCDF file. It is written beside its place and moved
there when complete, so a file is whole or absent. It is believed only if it opens and carries the digest of the
configuration asked for. The same code on the same machine writes the same bytes: what differs from run to run
(when, how long) is kept in a small JSON file in a folder beside that of the points and joined on reading.

HDF5 crashes on a full disk, and on damaged files it may hang or return other numbers. So it writes in memory only, and
reads only what is sealed: a point ends with the SHA-256 of all bytes before it, which HDF5 itself passes over.
"""

import dataclasses
import hashlib
import json
import os
import platform
import re
import subprocess
import time
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import h5py
import jax
import jax.numpy as jnp
import xarray as xr

from experiments.lab import json_files
from experiments.lab.files import replacing
from experiments.lab.json_files import fields, is_number, is_text
from experiments.lab.problem import Problem
from experiments.lab.seal import is_sealed, sealed

SCHEMA = 3
MARK = "signal_drift_digest"
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def digest(experiment: str, config: Any, point: Mapping[str, Any]) -> str:
    """Identify a point's content: schema, experiment, problem, every field of the configuration, the point's labels."""
    content = [SCHEMA, experiment, problem_of(config), described(config), dict(point)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def described(config: Any) -> dict[str, Any]:
    """Write a configuration as JSON has it, without what no single point depends on.

    That is the number of seeds, so that more of them never compute old ones again, and the fields that say so
    themselves (live objects that a digest stands for).
    """
    return {
        field.name: described(value) if dataclasses.is_dataclass(value) else value
        for field in dataclasses.fields(config)
        for value in [getattr(config, field.name)]
        if field.name != "seeds" and field.metadata.get("stored", True)
    }


def problem_of(config: Any) -> str:
    """Name the problem that a configuration asks, or nothing where it asks none."""
    return config.problem.name if hasattr(config, "problem") else ""


def figure_name(name: str, problem: Problem | None) -> str:
    """Name the files of a figure, by the problem it is about unless that is the paper's own."""
    return name if problem is None or problem.paper else f"{name}_{problem.name}"


def path_of(out: Path, experiment: str, config: Any, point: Mapping[str, Any]) -> Path:
    """Place a point: `out`/experiment/problem/label.nc, without the problem where there is none."""
    label = "_".join(f"{name}={value}" for name, value in point.items()) or "all"
    return out / experiment / problem_of(config) / f"{label}.nc"


def write(
    dataset: xr.Dataset, path: Path, experiment: str, config: Any, point: Mapping[str, Any], seconds: float
) -> None:
    """Store `dataset` at `path` with its provenance; a crash at any moment leaves the old file or the new one."""
    mark = digest(experiment, config, point)
    attributes = provenance() | {
        MARK: mark,
        "experiment": experiment,
        "config": json.dumps(described(config), sort_keys=True),
        "point": json.dumps(dict(point), sort_keys=True),
    }
    volatile = {"created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "seconds": seconds}
    body = dataset.assign_attrs(attributes).to_netcdf(engine="h5netcdf", encoding=checked(dataset))
    put(path, bytes(body), {MARK: mark} | volatile)


def put(path: Path, body: bytes, timing: Mapping[str, Any]) -> None:
    """Put a point in its place, after its timing: a crash between both leaves no point of which that is not known."""
    with replacing(timing_of(path)) as temporary:
        temporary.write_text(json.dumps(timing), encoding="utf-8")
    with replacing(path) as temporary:
        temporary.write_bytes(sealed(body))


def checked(dataset: xr.Dataset) -> dict[str, dict[str, bool]]:
    """Have HDF5 compress every array of numbers and store its checksum, which others than this project look at."""
    arrays = {name: x for name, x in dataset.variables.items() if x.ndim and x.size and x.dtype.kind in "fiub"}
    return {str(name): {"zlib": True, "fletcher32": True} for name in arrays}


def timing_of(path: Path) -> Path:
    """Place the volatile provenance of the point at `path`: a folder beside its own; without it the point is whole."""
    return path.parent.with_name(f"{path.parent.name}.timing") / f"{path.stem}.json"


def timing(path: Path, wanted: str) -> dict[str, Any]:
    """Say when the point was computed, how long it took and where it was taken from, as far as that is known."""
    try:
        stored = json_files.read(timing_of(path), fields({MARK: is_text}, **VOLATILE))
    except (OSError, ValueError):
        return {}
    return {name: stored[name] for name in VOLATILE if name in stored} if stored[MARK] == wanted else {}


def _is_time(x: Any) -> bool:
    return isinstance(x, str) and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", x, re.ASCII) is not None


def _is_duration(x: Any) -> bool:
    return is_number(x) and 0 <= x < LONGEST


def _is_place(x: Any) -> bool:
    return isinstance(x, str) and x.isprintable()


VOLATILE = {"created": _is_time, "seconds": _is_duration, "taken from": _is_place}
"""What may be known of a point beside its record."""
LONGEST = 1e9
"""Seconds: thirty years."""
ABSENT = "absent"
DAMAGED = "truncated or damaged"
OTHER = "from another configuration or an older schema"
REPLACED = (ABSENT, DAMAGED, OTHER)
"""What is said of points that are computed again; any other file is left alone."""


def read(path: Path, wanted: str) -> tuple[xr.Dataset | None, str]:
    """Return the stored point, or None and why it is not believed."""
    reason = _doubt(path)
    if reason:
        return None, reason
    dataset = xr.load_dataset(path)
    if dataset.attrs.get(MARK) != wanted:
        return None, OTHER
    return dataset.assign_attrs(timing(path, wanted)), "stored"


def _doubt(path: Path) -> str:
    """Why a file is no record, or nothing where it is one."""
    if not os.path.lexists(path):
        return ABSENT
    if not path.is_file():
        return "not a file"
    try:
        with path.open("rb") as file:
            signature = file.read(len(HDF5_SIGNATURE))
        whole = is_sealed(path)
    except OSError as error:
        return f"not readable ({error.strerror})"
    if signature != HDF5_SIGNATURE[: len(signature)] or not (whole or _may_be_ours(path)):
        return "not a result of this project"
    return "" if whole else DAMAGED


def _may_be_ours(path: Path) -> bool:
    """Whether an HDF5 file without a seal carries our mark, or does not open."""
    try:
        with h5py.File(path) as file:
            return MARK in file.attrs
    except (OSError, RuntimeError, ValueError, KeyError):
        return True


def provenance() -> dict[str, Any]:
    """Say where and with what a number was computed."""
    device = jax.local_devices()[0]
    return {
        "commit": _commit(),
        "device": f"{device.platform}: {device.device_kind}",
        "dtype": str(jnp.result_type(float)),
        "matmul_precision": str(getattr(jax.config, "jax_default_matmul_precision", None)),
        "python": platform.python_version(),
        **{name: version(name) for name in ("jax", "jaxlib", "flax", "optax", "numpy", "scipy", "xarray")},
    }


@cache
def _commit() -> str:
    """The commit of this checkout, "+changes" if files differ from it, "unknown" outside git."""
    command = [
        "git",
        "-C",
        str(Path(__file__).parent),
        "describe",
        "--always",
        "--dirty=+changes",
        "--exclude=*",
        "--abbrev=40",
    ]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
