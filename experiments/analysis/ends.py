"""Find both ends of the four Hessians, certified, and name them for tables and figures."""

from collections.abc import Sequence

import jax
import numpy as np
import xarray as xr
from jax import Array
from jax.tree_util import Partial

import signal_drift as sd
from experiments.analysis.intervals import Interval
from experiments.lab.experiment import Row
from experiments.lab.problem import DENSE, Drawn, Dtype, Problem
from signal_drift.lora.adapters import Adapters, Weights
from signal_drift.spectra.extremes import End

OPERATORS = ("task", "signal", "drift", "lora")
"""The four Hessians of a decomposition, by their names there."""
PLAIN = {"task": "H_ℓ", "signal": "H_Signal", "drift": "H_Drift", "lora": "H_LoRA"}
"""Their names in tables."""
SYMBOL = {"task": r"$H_\ell$", "signal": "$H_{Signal}$", "drift": "$H_{Drift}$", "lora": "$H_{LoRA}$"}
"""Their names in figures."""
STATES = ("initial", "trained")
"""Where curvature is taken: at B = 0, and after training."""
POSITIONS = {"largest": [-1], "smallest": [0], "both": [0, -1]}
"""Where the ends asked for are in an ascending spectrum."""


def certified(
    op: sd.SymmetricOperator, which: End = "largest", tolerance: float | None = None
) -> sd.ExtremeEigenvalues:
    """Return the outermost eigenvalue at the ends asked for, with a bound on its error.

    A search that ends without a certificate is done in full where that fits, in float64 and up to `DENSE` rows;
    elsewhere its values are NaN: no verdict rests on them.
    """
    found = sd.extreme_eigenvalues(op, which=which, tolerance=tolerance)
    if found.converged:
        return found
    n = op.shape[0]
    if n > DENSE or op.dtype != np.float64:
        return found._replace(values=np.full_like(found.values, np.nan))
    spectrum = sd.eigenvalues(op)
    values = spectrum[POSITIONS[which]]
    rounding = n * np.finfo(float).eps * np.max(np.abs(spectrum))
    return sd.ExtremeEigenvalues(values, np.full_like(values, rounding), True, 0.0, found.products + n)


def lowest_over_highest(ends: xr.DataArray) -> xr.DataArray:
    """Divide λmin by λmax along the axis `end`, of "min" and "max"."""
    return ends.sel(end="min") / ends.sel(end="max")


def numerical_bounds(found: Interval) -> str:
    """Write what the searches leave open of a number, over all seeds: no interval of a mean over draws."""
    return f"{found.interval()} (numerical bounds)" if np.isfinite(found).all() else "no certificate"


def extremes(
    drawn: Drawn, theta: Adapters, s: float, tolerance: float, operators: Sequence[str] = OPERATORS
) -> xr.Dataset:
    """Measure (λmin, λmax) of the operators named, and what their searches leave open.

    What is found of λmin is an upper bound of it, what is found of λmax a lower one (Rayleigh); `reach` says how far
    beyond the spectrum may go, `residual` is the worst residual bound of both over ‖H‖. −s·max σ(G) is λmin of H_Drift
    in closed form (X1).
    """
    parts = sd.decompose(drawn.loss, drawn.base, theta, s)
    found = [certified(getattr(parts, name), which="both", tolerance=tolerance) for name in operators]
    sigma = max(spectral_norms(drawn.loss, sd.effective_weights(drawn.base, theta, s)).values())
    return xr.Dataset(
        {
            "ends": (("operator", "end"), np.array([x.values for x in found])),
            "reach": (("operator", "end"), np.array([x.residuals + x.missed for x in found])),
            "residual": ("operator", [float(np.max(x.residuals) / np.max(np.abs(x.values))) for x in found]),
            "drift_closed": -float(s) * sigma,
        },
        coords={"operator": list(operators), "end": ["min", "max"]},
    )


def spectral_norms(loss: Partial, weights: Weights) -> dict[str, float]:
    """Return σ₁(G_l) of every layer, G_l = ∇_{W_l} ℓ: λmax of that layer's H_Drift at s = 1 (X1)."""
    return {layer: float(np.linalg.norm(np.asarray(G, float), 2)) for layer, G in _gradient(loss, weights).items()}


@jax.jit
def _gradient(loss: Partial, weights: Weights) -> dict[str, Array]:
    """The gradient of a loss whose data are arguments: as constants a language model's would be folded for minutes."""
    return jax.grad(loss)(weights)


def sides(problem: Problem, seed: int, rank: int, tolerance: float) -> tuple[float, float]:
    """Return σ₁(G), the largest of all layers, and λmax[H_Signal] at s = 1, where B = 0."""
    dtype: Dtype = "float64" if problem.dense else "float32"
    drawn, theta = problem.draw(seed, dtype), problem.adapters(seed, rank, dtype)
    drift = max(spectral_norms(drawn.loss, drawn.base).values())
    signal = certified(sd.decompose(drawn.loss, drawn.base, theta, 1.0).signal, tolerance=tolerance)
    return drift, float(signal.values[0])


def share(drift: xr.DataArray, lora: xr.DataArray) -> xr.DataArray:
    """Return 1 − s·σ₁(G)/λmax[H_LoRA]: how much of the largest eigenvalue the gradient's norm does not explain."""
    return 1 - drift / lora


def certificate_rows(data: xr.Dataset) -> list[Row]:
    """Say how far the numbers of `extremes` can be trusted, at all points that were measured."""
    drift = data.ends.sel(operator="drift", end="min") / data.drift_closed
    asked = data.drift_closed.notnull()
    complete = (data.ends.notnull().all(["operator", "end"]) & asked).sum()
    return [
        Row(
            "X1   λmin[H_Drift] against −s·max σ(G), largest relative error",
            "rounding",
            f"{float(abs(drift - 1).max()):.1e}",
            "–",
        ),
        Row(
            "     residual bound of an extreme eigenvalue over ‖H‖, largest",
            "–",
            f"{float(data.residual.max()):.1e}",
            "–",
        ),
        Row("     points at which all extremes are certified", f"{int(asked.sum())}", f"{int(complete)}", "–"),
    ]
