"""Ask of every adapted matrix of a language model how much of its λmax is curvature (X16), one layer at a time."""

import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import jax
import numpy as np
import xarray as xr

import signal_drift as sd
from experiments.analysis.ends import certified, share, spectral_norms
from experiments.analysis.layer_names import by_depth, kind_of
from experiments.lab.errors import check_positive
from experiments.lab.experiment import Experiment, Point, Report, Row
from experiments.lab.problem import Drawn, Problem, Setting
from experiments.problems.smollm import SmolLM

WORKERS = 4
"""Searches at a time on an accelerator, which one alone leaves idle; one where the host is the device."""


@dataclass(frozen=True)
class EveryMatrix(Setting):
    """Measure λmax of H_Signal and of H_LoRA in the block of every matrix, at LoRA's start."""

    problem: SmolLM
    depth: int = 30
    """Layers of the model, each a point."""
    alpha: float = 16.0
    """α."""
    tolerance: float = 1e-2
    """Residual of an eigenvalue over ‖H‖ at which a search stops."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "depth")


def refuses(problem: Problem) -> str:
    return "" if isinstance(problem, SmolLM) else "it has no language model"


def configure(problem: Problem) -> EveryMatrix:
    assert isinstance(problem, SmolLM), problem
    return EveryMatrix(problem, seeds=1)


def points(config: EveryMatrix) -> list[Point]:
    return [{"layer": layer} for layer in range(config.depth)]


def measure(config: EveryMatrix, layer: int) -> xr.Dataset:
    """Search the blocks of the matrices of one layer, and compute s·σ₁(G) of each."""
    at = _point(config)
    names = by_depth(k for k in at.drawn.base if int(re.findall(r"\d+", k)[0]) == layer)

    def one(name: str) -> list[float]:
        parts = sd.decompose_layer(at.drawn.loss, at.drawn.base, at.theta, at.s, name)
        both = [certified(op, tolerance=config.tolerance) for op in (parts.signal, parts.lora)]
        return [float(x.values[0]) for x in both] + [float(x.residuals[0] + x.missed) for x in both]

    with ThreadPoolExecutor(1 if jax.default_backend() == "cpu" else WORKERS) as pool:
        found = np.array(list(pool.map(one, names)))
    drift = [at.s * at.norms[name] for name in names]
    return xr.Dataset(
        {
            "top": (("kind", "operator"), found[:, :2]),
            "reach": (("kind", "operator"), found[:, 2:]),
            "drift": ("kind", drift),
        },
        coords={"kind": [kind_of(name) for name in names], "operator": ["signal", "lora"]},
    )


@dataclass(frozen=True)
class _Start:
    """Holds the model at LoRA's start, and σ₁(G) of every matrix."""

    drawn: Drawn
    theta: dict[str, sd.Adapter]
    s: float
    norms: Mapping[str, float]


@lru_cache(maxsize=1)
def _point(config: EveryMatrix) -> _Start:
    drawn, theta = config.problem.draw(0, "float32"), config.problem.adapters(0, dtype="float32")
    return _Start(drawn, theta, config.problem.scaling(config.alpha), spectral_norms(drawn.loss, drawn.base))


def curvature_share(data: xr.Dataset) -> xr.DataArray:
    """Return 1 − s·σ₁(G)/λmax[H_LoRA] of every matrix."""
    return share(data.drift, data.top.sel(operator="lora"))


def report(config: EveryMatrix, data: xr.Dataset) -> Report:
    rows = []
    for kind in data.kind.values:
        x = curvature_share(data).sel(kind=kind).values
        words = f"{np.median(x):.3g} (from {x.min():.3g} to {x.max():.3g})"
        rows.append(Row(f"X16  share of λmax that is curvature, {kind}, {x.size} layers", "–", words, "–"))
    known = int(np.isfinite(data.top).all("operator").sum())
    return Report([*rows, Row("     matrices whose λmax are certified", str(data.drift.size), str(known), "–")], [], {})


EXPERIMENT = Experiment(
    name="every_matrix",
    title="X16 in every adapted matrix of a language model, one layer at a time.",
    configure=configure,
    points=points,
    measure=measure,
    report=report,
    tiny={"depth": 1},
    homes=("smollm",),
    refuses=refuses,
)
