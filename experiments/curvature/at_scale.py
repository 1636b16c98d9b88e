"""The four Hessians of App. E at d = 256 and B = 0, matrix-free: both ends over α, and the whole spectrum at one α.

Dense, H_ℓ would be a matrix of 327,680 rows (800 GiB). Every end comes with a residual bound and is certified; those
of H_Drift are known in closed form as well (X1).
"""

from dataclasses import dataclass, replace
from functools import partial

import jax
import numpy as np
import xarray as xr

import signal_drift as sd
from experiments.analysis.intervals import Interval, exponents, mean_interval
from experiments.curvature import spectra_figures
from experiments.curvature.asymmetric_scaling import certified
from experiments.lab.experiment import Experiment, Report, Row, main
from experiments.problems.mlp import Setting, adapters, problem
from signal_drift.propositions import closed_forms

OPERATORS = ("task", "signal", "drift", "lora")
LABELS = {"task": "H_ℓ", "signal": "H_Signal", "drift": "H_Drift", "lora": "H_LoRA"}


@dataclass(frozen=True)
class Config(Setting):
    """Extremes over α, densities and traces at one α."""

    width: int = 256
    """d, inputs, outputs and hidden units of every layer."""
    seeds: int = 2
    """Independent draws of W₀, A, teacher and data."""
    alphas: tuple[float, ...] = (1.0, 4.0, 16.0, 64.0, 256.0)
    """Values of α."""
    density_alpha: float = 16.0
    """α at which densities and traces are taken."""
    probes: int = 10
    """Random vectors of every density."""
    nodes: int = 80
    """Nodes of the quadrature for every vector."""
    tolerance: float = 1e-6
    """Residual of an eigenvalue over ‖H‖ at which the search stops."""


def points(config: Config) -> list[dict]:
    return [{"seed": seed} for seed in range(config.seeds)]


def measure(config: Config, seed: int) -> xr.Dataset:
    loss, base = problem(config, seed)
    start = adapters(config, base, seed)
    found = [extremes(config.tolerance, loss, base, start, config.scaling(alpha)) for alpha in config.alphas]
    over_alpha = xr.concat(found, xr.IndexVariable("alpha", list(config.alphas)))
    return xr.merge([over_alpha, _densities(config, loss, base, start)])


def extremes(tolerance: float, loss, base, theta, s) -> xr.Dataset:
    """(λmin, λmax) of the four operators, the worst residual over ‖H‖, and −s·max σ(G) for H_Drift (X1)."""
    parts = sd.decompose(loss, base, theta, s)
    ends, worst, complete = [], 0.0, True
    for name in OPERATORS:
        found = certified(getattr(parts, name), which="both", tolerance=tolerance)
        ends.append(found.values)
        worst = max(worst, float(np.max(found.residuals) / np.max(np.abs(found.values))))
        complete = complete and found.converged
    gradient = jax.grad(loss)(sd.effective_weights(base, theta, s))
    sigma = max(float(np.linalg.norm(np.asarray(G), 2)) for G in gradient.values())
    return xr.Dataset(
        {
            "ends": (("operator", "end"), np.array(ends)),
            "residual": worst,
            "certified": complete,
            "drift_closed": -float(s) * sigma,
        },
        coords={"operator": list(OPERATORS), "end": ["min", "max"]},
    )


def _densities(config: Config, loss, base, start) -> xr.Dataset:
    """Nodes and weights of stochastic Lanczos quadrature for the four operators, and stochastic traces."""
    parts = sd.decompose(loss, base, start, config.scaling(config.density_alpha))
    found = [
        sd.spectral_density(getattr(parts, name), probes=config.probes, steps=config.nodes, key=jax.random.key(k))
        for k, name in enumerate(OPERATORS)
    ]
    traces = [density.mean(lambda x: x) for density in found]
    sizes = np.array([getattr(parts, name).shape[0] for name in OPERATORS])
    return xr.Dataset(
        {
            "nodes": (("operator", "probe", "node"), np.array([density.nodes for density in found])),
            "weights": (("operator", "probe", "node"), np.array([density.weights for density in found])),
            "trace": ("operator", sizes * [t.value for t in traces]),
            "trace_error": ("operator", sizes * [t.error for t in traces]),
            "size": ("operator", sizes),
        },
        coords={"operator": list(OPERATORS)},
    )


def lowest_over_highest(data: xr.Dataset, operator: str) -> xr.DataArray:
    ends = data.ends.sel(operator=operator)
    return ends.sel(end="min") / ends.sel(end="max")


def exponent(config: Config, data: xr.Dataset, operator: str, end: str) -> Interval:
    """The exponent of α in the absolute value of one end."""
    values = abs(data.ends.sel(operator=operator, end=end)).transpose("seed", "alpha")
    return mean_interval(exponents(np.array(config.alphas), values.values))


def report(config: Config, data: xr.Dataset) -> Report:
    rows = []
    for label, operator, end, stated in (
        ("λmax[H_Signal]", "signal", "max", "2"),
        ("−λmin[H_Drift]", "drift", "min", "1"),
        ("λmax[H_LoRA]", "lora", "max", "–"),
    ):
        fit = exponent(config, data, operator, end)
        rows.append(Row(f"F8d  exponent of α in {label}, d = {config.width}", stated, str(fit), fit.interval()))
    for operator, stated in (("task", "≥ 0 (P2-premise)"), ("signal", "≥ 0 (P2-psd)"), ("lora", "< 0")):
        for alpha in config.alphas if operator == "lora" else config.alphas[:1]:
            ratio = mean_interval(lowest_over_highest(data.sel(alpha=alpha), operator).values)
            where = LABELS[operator] + (f", α = {alpha:g}" if operator == "lora" else "")
            rows.append(Row(f"F8c  λmin/λmax of {where}, d = {config.width}", stated, str(ratio), ratio.interval()))
    drawn = {"spectra_at_scale": partial(spectra_figures.at_start, config, data)}
    return Report([*rows, *certificate_rows(data)], _sentences(config, data), drawn)


def certificate_rows(data: xr.Dataset) -> list[Row]:
    """How far the numbers can be trusted."""
    closed = float(abs(data.ends.sel(operator="drift", end="min") / data.drift_closed - 1).max())
    residual, certified = f"{float(data.residual.max()):.1e}", f"{int(data.certified.sum())}"
    return [
        Row("X1   λmin[H_Drift] against −s·max σ(G), largest relative error", "rounding", f"{closed:.1e}", "–"),
        Row(
            "     residual bound of an extreme eigenvalue over ‖H‖, largest",
            "–",
            residual,
            "–",
        ),
        Row(
            "     points at which all extremes are certified",
            f"{data.certified.size}",
            certified,
            "–",
        ),
    ]


def _sentences(config: Config, data: xr.Dataset) -> list[str]:
    factor = closed_forms.suppression(config.rank, config.scaling(config.density_alpha), config.sigma_a)

    def trace(operator: str, seed: int, unit: float = 1.0) -> str:
        here = data.isel(seed=seed).sel(operator=operator)
        return f"{unit * float(here.trace):.4g} ± {unit * float(here.trace_error):.2g}"

    return [
        f"Seed {i}: Tr H_Signal is {trace('signal', i)} (one standard error over {config.probes} vectors), α²σ_A²/r "
        f"times that of H_ℓ is {trace('task', i, factor)}."
        for i in range(config.seeds)
    ]


EXPERIMENT = Experiment(
    name="spectra_at_scale",
    title="Spectra at d = 256: both ends of the four Hessians over α, and their densities, matrix-free.",
    paper=Config(),
    quick=replace(
        Config(),
        width=8,
        depth=3,
        samples=20,
        rank=2,
        alphas=(1.0, 16.0, 256.0),
        probes=3,
        nodes=10,
    ),
    points=points,
    measure=measure,
    report=report,
)

if __name__ == "__main__":
    main(EXPERIMENT)
