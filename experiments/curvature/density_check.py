"""Lay the density of eigenvalues from random vectors over that from all eigenvalues, at a size where both exist."""

from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
import scipy.stats
import xarray as xr

import signal_drift as sd
from experiments.analysis.ends import PLAIN, SYMBOL
from experiments.lab.experiment import Experiment, Point, Report, Row, dense_only
from experiments.lab.problem import Setting
from signal_drift import plotting

COMPARED = ("task", "lora")
"""The operators whose densities are compared."""


@dataclass(frozen=True)
class Config(Setting):
    """Take H_ℓ and H_LoRA at B = 0, in full and by quadrature."""

    seeds: int = 2
    """Independent draws of W₀, A, teacher and data."""
    alpha: float = 16.0
    """α of H_LoRA."""
    probes: int = 10
    """Random vectors of a density."""
    nodes: int = 80
    """Nodes of the quadrature for every vector."""
    width_of_peak: float = 0.02
    """Deviation of the Gaussian that both densities are smoothed with, over the largest |λ|."""
    grid: int = 101
    """Values of λ at which they are compared."""


def points(config: Config) -> list[Point]:
    return [{"seed": seed, "operator": name} for seed in range(config.seeds) for name in COMPARED]


def measure(config: Config, seed: int, operator: str) -> xr.Dataset:
    """Measure both densities on one grid, the error of the quadrature, and all eigenvalues."""
    problem, drawn = config.problem, config.problem.draw(seed)
    parts = sd.decompose(drawn.loss, drawn.base, problem.adapters(seed), problem.scaling(config.alpha))
    op, longest = getattr(parts, operator), max(getattr(parts, name).shape[0] for name in COMPARED)
    spectrum = sd.eigenvalues(op)
    found = sd.spectral_density(op, probes=config.probes, steps=config.nodes, key=jax.random.key(seed))
    top = abs(spectrum).max()
    grid, width = np.linspace(-1.1, 1.1, config.grid) * top, config.width_of_peak * top
    estimate, error = found.smooth(grid, width)
    exact = np.mean(scipy.stats.norm.pdf(grid[:, None], spectrum, width), axis=1)
    return xr.Dataset(
        {
            "eigenvalues": ("index", np.pad(spectrum, (0, longest - len(spectrum)), constant_values=np.nan)),
            "grid": ("at", grid),
            "exact": ("at", exact),
            "estimate": ("at", estimate),
            "error": ("at", error),
        }
    )


def differences(data: xr.Dataset) -> xr.DataArray:
    """Divide |estimate − exact| at every λ by the largest value of the exact density."""
    return abs(data.estimate - data.exact) / data.exact.max("at")


def report(config: Config, data: xr.Dataset) -> Report:
    rows, expected = [], 1 - 2 * float(scipy.stats.t.sf(2, config.probes - 1))
    for name in COMPARED:
        here = data.sel(operator=name)
        seen = here.exact > 1e-6 * here.exact.max("at")  # elsewhere both are zero
        inside = ((abs(here.estimate - here.exact) <= 2 * here.error) & seen).sum() / seen.sum()
        worst = f"{float(differences(here).max()):.2g}"
        rows += [
            Row(f"density of {PLAIN[name]}: quadrature − exact over the exact peak, largest", "–", worst, "–"),
            Row(
                f"density of {PLAIN[name]}: share of λ at which they are within two standard errors",
                f"{expected:.2f} (Student's t)",
                f"{float(inside):.2f}",
                "–",
            ),
        ]
    return Report(rows, [], {"density_check": partial(_figure, config, data)})


def _figure(config: Config, data: xr.Dataset) -> plotting.Figure:
    sizes = f"{config.problem.label}, r = {config.problem.rank}, seed 0"
    title = f"Density of eigenvalues: {config.probes} random vectors against all eigenvalues, {sizes}"
    figure, axes = plotting.panels(len(COMPARED), title, height=4.8, width=6.4)
    for panel, letter, name in zip(axes, "ab", COMPARED, strict=True):
        here, color = data.isel(seed=0).sel(operator=name), plotting.COLOR[name]
        step = float(here.grid[1] - here.grid[0])
        edges = np.append(here.grid.values - step / 2, here.grid.values[-1] + step / 2)
        spectrum = here.eigenvalues.dropna("index")
        counts, _ = np.histogram(spectrum, edges)
        shares = np.where(counts > 0, counts / spectrum.size / step, np.nan)
        panel.stairs(shares, edges, fill=True, color=plotting.COLOR["other"], alpha=0.45, label="histogram of all")
        panel.plot(here.grid, here.exact, color=plotting.COLOR["prediction"], lw=4, alpha=0.6, label="all, smoothed")
        low, high = here.estimate - 2 * here.error, here.estimate + 2 * here.error
        panel.fill_between(here.grid, low.clip(min=1e-300), high, color=color, alpha=0.2, label="± 2 standard errors")
        panel.plot(here.grid, here.estimate, color=color, ls="--", label="by random vectors")
        peak = float(here.exact.max())
        panel.set(yscale="log", ylim=(1e-6 * peak, 30 * peak), xlabel="eigenvalue λ", ylabel="share per unit of λ")
        panel.set_title(f"({letter}) {SYMBOL[name]}" + (f", α = {config.alpha:g}" if name == "lora" else ""))
        panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=9.5)
    return figure


CAPTIONS = {
    "density_check": (
        "A density of eigenvalues estimated from a few random vectors with two of its standard errors, beside "
        "that of all eigenvalues, where these are known (nearer to the wide line is better)."
    ),
}


EXPERIMENT = Experiment(
    name="density_check",
    title="The density of eigenvalues by stochastic Lanczos quadrature against all eigenvalues.",
    configure=Config,
    points=points,
    measure=measure,
    report=report,
    tiny={"nodes": 20},
    refuses=dense_only,
    captions=CAPTIONS,
)
