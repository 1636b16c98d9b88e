"""Measure F8c: H_LoRA is indefinite, and as α grows its spectrum converges to that of H_Signal."""

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.flatten_util import ravel_pytree

import signal_drift as sd
from experiments.analysis.ends import certified
from experiments.analysis.intervals import exponents, mean_interval
from experiments.lab.experiment import Experiment, Point, Report, Row, dense_only
from experiments.lab.problem import Setting
from signal_drift import plotting
from signal_drift.propositions import closed_forms


@dataclass(frozen=True)
class Config(Setting):
    """Measure the exact spectra of H_LoRA over α at B = 0."""

    alphas: tuple[float, ...] = (1.0, 4.0, 16.0, 64.0, 256.0)
    """Values of α."""


def points(config: Config) -> list[Point]:
    return [{"seed": seed, "alpha": alpha} for seed in range(config.seeds) for alpha in config.alphas]


def measure(config: Config, seed: int, alpha: float) -> xr.Dataset:
    """Measure all eigenvalues of H_LoRA and H_Signal, the extremes of H_ℓ, and the identities they rest on."""
    parts, unit = _parts(config, seed, alpha), _unit(config, seed)
    H = np.where(unit.in_b, alpha, 1.0)[:, None] * unit.lora * np.where(unit.in_b, alpha, 1.0)
    probe = jax.random.normal(jax.random.fold_in(jax.random.key(seed), 3), (len(H), 8))
    lora, signal, drift = parts.lora @ probe, parts.signal @ probe, parts.drift @ probe
    return xr.Dataset(
        {
            "lora": ("theta_index", sd.eigenvalues(H)),
            "signal": ("theta_index", alpha**2 * unit.signal),
            "drift_max": alpha * unit.drift.max(),
            "pairs": int(np.sum(unit.drift > plotting.zero_threshold(unit.drift))),
            "task_extremes": ("end", unit.task.values),
            "task_residuals": ("end", unit.task.residuals),
            "sum_error": _relative(lora - signal - drift, lora),
            "square_error": _relative(signal - alpha**2 * (_parts(config, seed, 1.0).signal @ probe), signal),
            "assembly_error": _relative(H @ probe - lora, lora),
        },
        coords={"end": ["min", "max"]},
    )


class _Unit(NamedTuple):
    """Holds of one seed, at B = 0 and α = 1, what every α only multiplies.

    With `in_b` the positions of B in θ and S = diag(α there, 1 elsewhere), H_LoRA(α) = S H_LoRA(1) S, since the A-block
    is zero, the A–B block the drift's and the B-block the signal's (P4); `drift` is the spectrum of H_Drift (X1).
    """

    in_b: np.ndarray
    lora: np.ndarray
    signal: np.ndarray
    drift: np.ndarray
    task: sd.ExtremeEigenvalues


@lru_cache(maxsize=1)
def _unit(config: Config, seed: int) -> _Unit:
    """Assemble and decompose once for all α of a seed; its points follow one another."""
    drawn, theta, s = config.problem.draw(seed), config.problem.adapters(seed), config.problem.scaling(1.0)
    parts = _parts(config, seed, 1.0)
    gradient = jax.grad(drawn.loss)(sd.effective_weights(drawn.base, theta, s))
    marked = {k: sd.Adapter(A=jnp.zeros_like(A), B=jnp.ones_like(B)) for k, (A, B) in theta.items()}
    return _Unit(
        in_b=np.asarray(ravel_pytree(marked)[0]) > 0,
        lora=np.asarray(parts.lora.dense()),
        signal=sd.eigenvalues(parts.signal),
        drift=closed_forms.drift_eigenvalues(gradient, theta, s),
        task=certified(parts.task, which="both"),
    )


def _parts(config: Config, seed: int, alpha: float) -> sd.Decomposition:
    """Decompose the Hessian at B = 0."""
    drawn = config.problem.draw(seed)
    return sd.decompose(drawn.loss, drawn.base, config.problem.adapters(seed), config.problem.scaling(alpha))


def _relative(difference: jax.Array, reference: jax.Array) -> float:
    return float(jnp.linalg.norm(difference) / jnp.linalg.norm(reference))


def distances(data: xr.Dataset) -> xr.Dataset:
    """Compute max_i, mean_i |λ_i[H_LoRA] − λ_i[H_Signal]| and Weyl's bound ‖H_Drift‖₂, over λmax[H_Signal]."""
    top = data.signal.max("theta_index")
    gap = abs(data.lora - data.signal)
    return xr.Dataset(
        {
            "largest": gap.max("theta_index") / top,
            "mean": gap.mean("theta_index") / top,
            "bound": data.drift_max / top,
        }
    )


def report(config: Config, data: xr.Dataset) -> Report:
    distance = distances(data).transpose("seed", "alpha")
    slope = mean_interval(exponents(data.alpha.values, distance["mean"].values))
    identities = {"H_LoRA = H_Signal + H_Drift": data.sum_error, "H_Signal(α) = α² H_Signal(1)": data.square_error}
    rows = [
        _extremes_row("H_ℓ", "≥ 0 (P2-premise)", data.task_extremes.isel(alpha=0)),
        _extremes_row("H_Signal, every α", "≥ 0 (P2-psd)", _ends(data.signal.isel(alpha=0))),
        *(
            _extremes_row(f"H_LoRA, α = {alpha:g}", "< 0", _ends(data.lora.sel(alpha=alpha)))
            for alpha in data.alpha.values
        ),
        Row(
            "F8c  exponent in α of the mean distance λ[H_LoRA] to λ[H_Signal] over λmax[H_Signal]",
            "< 0",
            str(slope),
            slope.interval(),
        ),
        *(
            Row(f"P1/P4  {k}, largest relative error", "rounding", f"{float(v.max()):.1e}", "–")
            for k, v in identities.items()
        ),
    ]
    return Report(rows, _sentences(config, data, distance), {"purification": partial(_figure, config, data, distance)})


def _ends(spectrum: xr.DataArray) -> xr.DataArray:
    return xr.concat([spectrum.min("theta_index"), spectrum.max("theta_index")], "end")


def _extremes_row(name: str, predicted: str, ends: xr.DataArray) -> Row:
    ratio = mean_interval((ends.isel(end=0) / ends.isel(end=1)).values)
    return Row(f"F8c  λmin/λmax of {name}", predicted, str(ratio), ratio.interval())


def _sentences(config: Config, data: xr.Dataset, distance: xr.Dataset) -> list[str]:
    """Say in words what the store has of the two premises."""
    task = data.task_extremes.isel(alpha=0) + data.task_residuals.isel(alpha=0)
    negative = int((task.sel(end="min") < 0).sum())
    threshold = [plotting.zero_threshold(x) for x in data.signal.isel(alpha=0).transpose("seed", ...).values]
    signal = int((data.signal.isel(alpha=0).min("theta_index").values < -np.array(threshold)).sum())
    inside = bool((distance.largest <= distance.bound * (1 + 1e-9)).all())
    return [
        f"P2-premise: H_ℓ has a certified negative eigenvalue at {negative} of {config.seeds} seeds"
        + (": it is not positive semi-definite here." if negative else "."),
        f"H_Signal has an eigenvalue below −n·ε·‖H‖ at {signal} of {config.seeds} seeds"
        + (": the limit of purification is then not positive semi-definite." if signal else "."),
        f"λ_i[H_LoRA] lies within Weyl's bound ‖H_Drift‖₂ of λ_i[H_Signal] for every i: {'yes' if inside else 'NO'}.",
    ]


def _figure(config: Config, data: xr.Dataset, distance: xr.Dataset) -> plotting.Figure:
    sizes = f"{config.problem.label}, r = {config.problem.rank}, {config.seeds} seeds"
    figure, (left, middle, right) = plotting.panels(3, f"F8c  Spectral purification: {sizes}")
    top = data.signal.max("theta_index")
    first = {"seed": data.seed.values[0]}
    threshold = 1e-9
    for alpha, color in zip(data.alpha.values, plotting.shades(len(data.alpha)), strict=True):
        here = first | {"alpha": alpha}
        plotting.draw_sorted(left, (data.lora / top).sel(here).values, color=color, label=f"α = {alpha:g}")
    plotting.draw_sorted(
        left,
        (data.signal / top).sel(first).isel(alpha=0).values,
        color=plotting.COLOR["signal"],
        ls="--",
        label=r"$H_{Signal}$",
    )
    plotting.symlog(left, "y", threshold)
    left.set(xlabel="position, share of all eigenvalues", ylabel=r"$\lambda\,/\,\lambda_{max}[H_{Signal}]$")
    left.set_title(r"(a) sorted spectra of $H_{LoRA}$, seed 0")
    left.legend()
    for name, ends, color in (
        (r"$H_{LoRA}$", _ends(data.lora), "lora"),
        (r"$H_{Signal}$", _ends(data.signal), "signal"),
        (r"$H_\ell$", data.task_extremes, "task"),
    ):
        ratio = (ends.isel(end=0) / ends.isel(end=1)).transpose("alpha", "seed").values
        middle.plot(data.alpha, ratio, "o", color=plotting.COLOR[color], alpha=0.4)
        middle.plot(data.alpha, ratio.mean(1), color=plotting.COLOR[color], label=name)
    middle.axhline(0, color=plotting.COLOR["prediction"], ls="--", label="positive semi-definite")
    middle.set_xscale("log", base=4)
    middle.set(xlabel="α", ylabel=r"$\lambda_{min}\,/\,\lambda_{max}$", title="(b) how indefinite, each seed")
    middle.legend()
    for name, color in (("largest", "lora"), ("mean", "other")):
        right.plot(data.alpha, distance[name].T, "o", color=plotting.COLOR[color], alpha=0.5)
        right.plot(
            data.alpha, distance[name].mean("seed"), color=plotting.COLOR[color], label=f"{name} over eigenvalues"
        )
    right.plot(
        data.alpha,
        distance["bound"].mean("seed"),
        "--",
        color=plotting.COLOR["prediction"],
        label=r"Weyl: $\|H_{Drift}\|_2\propto 1/\alpha$",
    )
    plotting.log_axis(
        right, "α", r"$|\lambda_i[H_{LoRA}]-\lambda_i[H_{Signal}]|\,/\,\lambda_{max}[H_{Signal}]$", log_x=4
    )
    right.set_title("(c) distance between the spectra")
    right.legend()
    return figure


EXPERIMENT = Experiment(
    name="purification",
    title="F8c: the spectrum of H_LoRA over α, against that of H_Signal.",
    configure=Config,
    points=points,
    measure=measure,
    report=report,
    tiny={"seeds": 2, "alphas": (1.0, 16.0, 256.0)},
    refuses=dense_only,
)
