"""Measure F8c: H_LoRA is indefinite, and as α grows its spectrum converges to that of H_Signal."""

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike

import signal_drift as sd
from experiments.analysis.ends import certified
from experiments.analysis.intervals import exponents, geometric_mean_of, mean_of
from experiments.lab.experiment import Experiment, Point, Report, Row, dense_only
from experiments.lab.problem import Setting
from signal_drift import plotting
from signal_drift.propositions import closed_forms

SHOWN = 1e-7
"""The share of λmax[H_Signal] below which a spectrum is drawn linearly."""


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
            "assembly_error": _relative(jnp.asarray(H) @ probe - lora, lora),
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


def _relative(difference: ArrayLike, reference: ArrayLike) -> float:
    return float(np.linalg.norm(np.asarray(difference)) / np.linalg.norm(np.asarray(reference)))


def distances(data: xr.Dataset) -> xr.Dataset:
    """Compute max_i, mean_i |λ_i[H_LoRA] − λ_i[H_Signal]| and Weyl's bound ‖H_Drift‖₂, over λmax[H_Signal].

    `absolute` is the mean itself: what falls relative to λmax[H_Signal] = Θ(α²) may grow (X13).
    """
    top = data.signal.max("theta_index")
    gap = abs(data.lora - data.signal)
    return xr.Dataset(
        {
            "largest": gap.max("theta_index") / top,
            "mean": gap.mean("theta_index") / top,
            "absolute": gap.mean("theta_index"),
            "bound": data.drift_max / top,
        }
    )


def distance_exponents(data: xr.Dataset, name: str) -> np.ndarray:
    """Fit the exponent of α in one of the distances at every seed."""
    return exponents(data.alpha.values, distances(data)[name].transpose("seed", "alpha").values)


def signs(data: xr.Dataset) -> xr.Dataset:
    """Count the eigenvalues of H_LoRA below −n·ε·‖H‖ and above n·ε·‖H‖, what is proved of either sign among them.

    At B = 0 the A-block is zero, so at least `pairs` = r·Σ_l rank G_l are negative and as many positive (X13).
    """
    zero = data.sizes["theta_index"] * np.finfo(float).eps * abs(data.lora).max("theta_index")
    counted = {"negative": (data.lora < -zero).sum("theta_index"), "positive": (data.lora > zero).sum("theta_index")}
    return xr.Dataset({**counted, "pairs": data.pairs})


def report(config: Config, data: xr.Dataset) -> Report:
    distance = distances(data).transpose("seed", "alpha")
    identities = {
        "H_LoRA = H_Signal + H_Drift": data.sum_error,
        "H_Signal(α) = α² H_Signal(1)": data.square_error,
        "H_LoRA(α) = S H_LoRA(1) S": data.assembly_error,
    }
    rows = [
        _extremes_row("H_ℓ", "≥ 0 (P2-premise)", data.task_extremes.isel(alpha=0)),
        _extremes_row("H_Signal, every α", "≥ 0 (P2-psd)", _ends(data.signal.isel(alpha=0))),
        *(
            _extremes_row(f"H_LoRA, α = {alpha:g}", "< 0", _ends(data.lora.sel(alpha=alpha)))
            for alpha in data.alpha.values
        ),
        *_distance_rows(data, distance),
        *_sign_rows(data),
        *(
            Row(f"P1/P4  {k}, largest relative error", "rounding", f"{float(v.max()):.1e}", "–")
            for k, v in identities.items()
        ),
    ]
    return Report(rows, _sentences(config, data, distance), {"purification": partial(_figure, config, data, distance)})


def _distance_rows(data: xr.Dataset, distance: xr.Dataset) -> list[Row]:
    """The mean distance of the two spectra at the ends of α, and its exponent: over λmax[H_Signal], and itself."""
    rows = []
    for name, words, stated in (
        ("mean", "mean distance λ[H_LoRA] to λ[H_Signal] over λmax[H_Signal]", "< 0"),
        ("absolute", "mean distance λ[H_LoRA] to λ[H_Signal] itself", "> 0 (X13)"),
    ):
        tag, slope = ("F8c" if name == "mean" else "X13"), mean_of(distance_exponents(data, name))
        for alpha in data.alpha.values[[0, -1]]:
            size = geometric_mean_of(distance[name].sel(alpha=alpha).values)
            rows.append(Row(f"{tag}  {words}, α = {alpha:g}", "–", str(size), size.interval()))
        rows.append(Row(f"{tag}  exponent in α of the {words}", stated, str(slope), slope.interval()))
    return rows


def _sign_rows(data: xr.Dataset) -> list[Row]:
    """The fewest eigenvalues of either sign at any seed and α."""
    counted = signs(data)
    stated = f"≥ {int(counted.pairs.min())} (r Σ rank G)"
    return [
        Row(
            f"X13  {sign} eigenvalues of H_LoRA beyond rounding, fewest over α, of {data.sizes['theta_index']}",
            stated,
            str(int(counted[sign].min())),
            "–",
        )
        for sign in ("negative", "positive")
    ]


def _ends(spectrum: xr.DataArray) -> xr.DataArray:
    return xr.concat([spectrum.min("theta_index"), spectrum.max("theta_index")], "end")


def _extremes_row(name: str, predicted: str, ends: xr.DataArray) -> Row:
    ratio = mean_of((ends.isel(end=0) / ends.isel(end=1)).values)
    return Row(f"F8c  λmin/λmax of {name}", predicted, str(ratio), ratio.interval())


def _sentences(config: Config, data: xr.Dataset, distance: xr.Dataset) -> list[str]:
    """Say in words what the store has of the two premises."""
    task = data.task_extremes.isel(alpha=0) + data.task_residuals.isel(alpha=0)
    negative = int((task.sel(end="min") < 0).sum())
    threshold = [plotting.zero_threshold(x) for x in data.signal.isel(alpha=0).transpose("seed", ...).values]
    signal = int((data.signal.isel(alpha=0).min("theta_index").values < -np.array(threshold)).sum())
    counted, slope = signs(data), mean_of(distance_exponents(data, "absolute"))
    relative = mean_of(distance_exponents(data, "mean"))
    inside = bool((distance.largest <= distance.bound * (1 + 1e-9)).all())
    apart = slope.at().low > 0 > relative.at().high
    return [
        f"P2-premise: H_ℓ has a certified negative eigenvalue at {negative} of {config.seeds} seeds"
        + (": it is not positive semi-definite here." if negative else "."),
        f"H_Signal has an eigenvalue below −n·ε·‖H‖ at {signal} of {config.seeds} seeds"
        + (": the limit of purification is then not positive semi-definite." if signal else "."),
        f"X13: at least {int(counted.negative.min())} of {data.sizes['theta_index']} eigenvalues of H_LoRA are "
        f"negative beyond rounding, at every α and seed; r Σ rank G_l is {int(counted.pairs.min())}.",
        f"The mean distance of the two spectra goes with α to the power {relative} over λmax[H_Signal], and with α to "
        f"the power {slope} by itself" + (": purification is relative only." if apart else "."),
        f"λ_i[H_LoRA] lies within Weyl's bound ‖H_Drift‖₂ of λ_i[H_Signal] for every i: {'yes' if inside else 'NO'}.",
    ]


def _figure(config: Config, data: xr.Dataset, distance: xr.Dataset) -> plotting.Figure:
    sizes = f"{config.problem.label}, r = {config.problem.rank}, {config.over_seeds}"
    figure, (left, middle, right) = plotting.panels(3, f"F8c  Spectral purification: {sizes}", height=4.8)
    draw_spectra(left, config, data)
    left.set_title(r"(a) spectra of $H_{LoRA}$ and $H_{Signal}$, seed 0")
    _draw_signs(middle, data)
    _draw_distances(right, data, distance)
    return figure


def draw_spectra(panel: plotting.Axes, config: Config, data: xr.Dataset) -> None:
    """Draw the sorted spectra of H_LoRA over α and of H_Signal over λmax[H_Signal], at the first seed.

    Half of what `symlog` shows lies below 0, which is shaded: the paper has H_Signal end above it.
    """
    here = data.isel(seed=0)
    top = here.signal.max("theta_index")
    marks = "osD^v<>"
    for k, (alpha, color) in enumerate(zip(config.alphas, plotting.shades(len(config.alphas)), strict=True)):
        spectrum = (here.lora / top).sel(alpha=alpha).values
        style = {"color": color, "marker": marks[k % len(marks)], "ms": 5, "markevery": (0.02 * (k + 1), 0.14)}
        plotting.draw_sorted(panel, spectrum, label=f"α = {alpha:g}", **style)
    limit = (here.signal / top).isel(alpha=0).values
    plotting.draw_sorted(panel, limit, color=plotting.COLOR["signal"], ls="--", lw=2.2, label=r"$H_{Signal}$, any α")
    plotting.symlog(panel, "y", SHOWN)
    panel.axhspan(panel.get_ylim()[0], 0, color=plotting.COLOR["drift"], alpha=0.1, lw=0)
    panel.text(0.03, 0.04, "negative curvature", transform=panel.transAxes, color=plotting.COLOR["drift"])
    panel.set(xlabel="position, share of all eigenvalues", ylabel=r"$\lambda\,/\,\lambda_{max}[H_{Signal}]$")
    panel.legend(fontsize=9, loc="upper right")


def _draw_signs(panel: plotting.Axes, data: xr.Dataset) -> None:
    """Draw how far below 0 each spectrum reaches, at every seed and in the mean."""
    for name, ends, color, mark in (
        (r"$H_{LoRA}$", _ends(data.lora), "lora", "o"),
        (r"$H_{Signal}$", _ends(data.signal), "signal", "s"),
        (r"$H_\ell$", data.task_extremes, "task", "^"),
    ):
        ratio = (ends.isel(end=0) / ends.isel(end=1)).transpose("alpha", "seed").values
        panel.plot(data.alpha, ratio, mark, color=plotting.COLOR[color], alpha=0.35)
        panel.plot(data.alpha, ratio.mean(1), mark + "-", mfc="white", color=plotting.COLOR[color], label=name)
    panel.axhline(0, color=plotting.COLOR["prediction"], ls="--", label=r"paper: $H_\ell,H_{Signal}\geq 0$")
    panel.set_xscale("log", base=4)
    panel.set(xlabel="α", ylabel=r"$\lambda_{min}\,/\,\lambda_{max}$", title="(b) how indefinite (0: not at all)")
    _legend_below(panel, 2)


def _draw_distances(panel: plotting.Axes, data: xr.Dataset, distance: xr.Dataset) -> None:
    """The mean distance over λmax[H_Signal] and by itself, each over its value at the smallest α, and Weyl's bound."""
    alpha = data.alpha.values
    for name, color, mark, words in (
        ("mean", "lora", "o", r"over $\lambda_{max}[H_{Signal}]$ (paper: falls)"),
        ("absolute", "drift", "s", "by itself"),
    ):
        relative = (distance[name] / distance[name].isel(alpha=0)).transpose("alpha", "seed").values
        slope = mean_of(distance_exponents(data, name))
        panel.plot(alpha, relative, mark, color=plotting.COLOR[color], alpha=0.35)
        label = rf"{words}: $\alpha^{{{slope.value:.2f}}}$"
        panel.plot(
            alpha, np.exp(np.log(relative).mean(1)), mark + "-", mfc="white", color=plotting.COLOR[color], label=label
        )
    bound = alpha[0] / alpha
    panel.plot(
        alpha,
        bound,
        "--",
        color=plotting.COLOR["prediction"],
        label=r"Weyl's bound over $\lambda_{max}$: $\alpha^{-1}$",
    )
    plotting.log_axis(panel, "α", f"mean distance, over that at α = {alpha[0]:g}", log_x=4)
    panel.set_title("(c) distance, by ratio and by difference")
    _legend_below(panel, 1)


def _legend_below(panel: plotting.Axes, columns: int) -> None:
    panel.legend(fontsize=9.5, loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=columns)


CAPTIONS = {
    "purification": (
        "The spectrum of H_LoRA over λmax of H_Signal for several α, beside that of H_Signal, which the paper "
        "expects it to near as α grows (a; up is positive curvature). How far below 0 each spectrum reaches, "
        "where the paper expects H_ℓ and H_Signal not to (b; up is less indefinite). The mean distance of the "
        "two, by ratio and by difference, X13 expecting the second to grow (c; down is nearer)."
    ),
}


EXPERIMENT = Experiment(
    name="purification",
    title="F8c: the spectrum of H_LoRA over α, against that of H_Signal.",
    configure=Config,
    points=points,
    measure=measure,
    report=report,
    tiny={"seeds": 2, "alphas": (1.0, 16.0, 256.0)},
    refuses=dense_only,
    captions=CAPTIONS,
)
