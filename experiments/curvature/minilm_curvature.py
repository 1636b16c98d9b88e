"""The four Hessians of the pretrained encoder, matrix-free: both ends, α, and the negative share, before and after.

The loss is the error on a few texts. H_ℓ has 10.6 million rows, H_LoRA a third of a million. An end without a
certificate is NaN; with one it is known how far beyond it the spectrum may reach. Those of H_Drift follow from X1.
"""

from dataclasses import dataclass, replace
from functools import partial

import jax
import numpy as np
import xarray as xr

import signal_drift as sd
from experiments.analysis.intervals import Interval
from experiments.claims.verdict import extent
from experiments.curvature.asymmetric_scaling import STATES, certified
from experiments.curvature.at_scale import LABELS, OPERATORS
from experiments.curvature.minilm_point import Curvature
from experiments.curvature.spectra_figures import NAMES
from experiments.lab.errors import OptionError, check_ascending, check_positive
from experiments.lab.experiment import Experiment, Report, Row, main
from experiments.tuning import rates as minilm_rates
from experiments.tuning.rates import SMALL
from signal_drift import plotting


@dataclass(frozen=True)
class Config(Curvature):
    """The spectra at the pretrained weights and after LoRA at η_FFT has been trained."""

    alphas: tuple[float, ...] = (1.0, 16.0, 256.0)
    """α of H_LoRA at B = 0."""
    tolerance: float = 1e-2
    """Residual of an eigenvalue over ‖H‖ at which the search stops."""
    probes: int = 2
    """Random vectors of the density of H_ℓ."""
    nodes: int = 24
    """Nodes of its quadrature for every vector."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "nodes")
        check_ascending(self, "alphas")
        if self.probes < 2:
            raise OptionError(f"probes: must be at least 2, got {self.probes}")


def points(config: Config) -> list[dict]:
    return [{"seed": seed, "state": state} for state in STATES for seed in range(config.draws)]


def measure(config: Config, first: xr.Dataset, seed: int, state: str) -> xr.Dataset:
    """Both ends of the four operators at α, of H_LoRA over α where B = 0, and a density of H_ℓ."""
    encoder, loss, theta = config.point(first, seed, state, "float64")
    s = config.scaling(config.alpha)
    parts = sd.decompose(loss, encoder.base, theta, s)
    gradient = jax.jit(jax.grad(loss))(sd.effective_weights(encoder.base, theta, s))
    drift = s * max(float(np.linalg.norm(np.asarray(G), 2)) for G in gradient.values())  # X1
    found = {name: _ends(config, getattr(parts, name)) for name in ("task", "signal", "lora")}
    found["drift"] = np.array([[-drift, drift], [0, 0]])
    over = [found["lora"] if alpha == config.alpha else np.full((2, 2), np.nan) for alpha in config.alphas]
    if state == "initial":
        others = [sd.decompose(loss, encoder.base, theta, config.scaling(alpha)).lora for alpha in config.alphas]
        over = [x if np.isfinite(x).all() else _ends(config, op) for x, op in zip(over, others, strict=True)]
    density = sd.spectral_density(parts.task, probes=config.probes, steps=config.nodes)
    ends, over = (np.array(x).transpose(1, 0, 2) for x in ([found[name] for name in OPERATORS], over))
    return xr.Dataset(
        {
            "ends": (("operator", "end"), ends[0]),
            "reach": (("operator", "end"), ends[1]),
            "over_alpha": (("alpha", "end"), over[0]),
            "over_reach": (("alpha", "end"), over[1]),
            "nodes": (("probe", "node"), density.nodes),
            "weights": (("probe", "node"), density.weights),
            "loss": float(loss(sd.effective_weights(encoder.base, theta, s))),
        },
        coords={"operator": list(OPERATORS), "end": ["min", "max"], "alpha": list(config.alphas)},
    )


def _ends(config: Config, op: sd.SymmetricOperator) -> np.ndarray:
    """(λmin, λmax), and how far beyond each the spectrum may reach; NaN without a certificate."""
    found = certified(op, which="both", tolerance=config.tolerance)
    return np.array([found.values, found.residuals + found.missed])


def signal_top(config: Config, data: xr.Dataset) -> xr.DataArray:
    """λmax[H_Signal] over α at B = 0: (α/α₀)² times that at the α₀ of the search (P4-landscape)."""
    return data.ends.sel(operator="signal", end="max", state="initial") * (data.alpha / config.alpha) ** 2


def lowest(here: xr.Dataset, ends: str, reach: str) -> Interval:
    """λmin/λmax at one state: what was found is an upper bound (Rayleigh), and the spectrum reaches little beyond."""
    top = here[ends].sel(end="max")
    found, below = here[ends].sel(end="min") / top, here[reach].sel(end="min") / top
    return Interval(float(found.mean()), float((found - below).min()), float(found.max()))


def distance(config: Config, data: xr.Dataset, end: str, alpha: float) -> Interval:
    """|λ[H_LoRA] − λ[H_Signal]|/λmax[H_Signal] of one end at one α and B = 0, to what the searches leave open."""
    start, power = data.sel(state="initial", end=end), (alpha / config.alpha) ** 2
    signal, lora = start.sel(operator="signal"), start.sel(alpha=alpha)
    top = signal_top(config, data).sel(alpha=alpha)
    apart = abs(lora.over_alpha - power * signal.ends) / top
    error = (lora.over_reach + power * signal.reach) / top
    return Interval(float(apart.mean()), float((apart - error).min()), float((apart + error).max()))


def negative_share(data: xr.Dataset, state: str) -> Interval:
    """Σ_{λ<0} λ² / Σ λ² of H_ℓ by quadrature: the mean over random vectors, and their range.

    Squares and not absolute values: nearly all eigenvalues are close to 0, at the one node that stands for them, whose
    sign and size say nothing.
    """
    here = data.sel(state=state)
    curvature = here.nodes**2 * here.weights
    return extent((curvature.where(here.nodes < 0, 0).sum("node") / curvature.sum("node")).values)


def report(config: Config, data: xr.Dataset) -> Report:
    rows, name = [], config.name
    for state in STATES:
        here = data.sel(state=state)
        for operator, stated in (("task", "≥ 0 (P2-premise)"), ("signal", "≥ 0 (P2-psd)"), ("lora", "< 0")):
            ratio = lowest(here.sel(operator=operator), "ends", "reach")
            what = f"F8c  λmin/λmax of {LABELS[operator]}, {name}, {state}, α = {config.alpha:g}"
            rows.append(Row(what, stated, str(ratio), f"{ratio.interval()} (certified)"))
        for operator in OPERATORS:
            low, high = (float(here.ends.sel(operator=operator, end=end).mean()) for end in ("min", "max"))
            found = f"{low:.4g}, {high:.4g}"
            rows.append(Row(f"     λmin, λmax of {LABELS[operator]}, {name}, {state}", "–", found, "–"))
        share = negative_share(data, state)
        what = f"P2   negative share of ‖H_ℓ‖_F², by quadrature, {name}, {state}"
        rows.append(Row(what, "–", str(share), f"{share.interval()} ({config.probes} random vectors)"))
    return Report(
        [*rows, *_alpha_rows(config, data)],
        [_sentence(config, data)],
        {"minilm_curvature": partial(_figure, config, data)},
    )


def _alpha_rows(config: Config, data: xr.Dataset) -> list[Row]:
    rows, start = [], data.sel(state="initial")
    for alpha in config.alphas:
        sign = lowest(start.sel(alpha=alpha), "over_alpha", "over_reach")
        where = f"{config.name}, B = 0, α = {alpha:g}"
        rows.append(Row(f"F8c  λmin/λmax of H_LoRA, {where}", "< 0", str(sign), f"{sign.interval()} (certified)"))
        for end in ("min", "max"):
            apart = distance(config, data, end, alpha)
            what = f"F8c  distance of λ{end}[H_LoRA] to that of H_Signal over λmax[H_Signal], {where}"
            rows.append(Row(what, "→ 0", str(apart), f"{apart.interval()} (certified)"))
    return rows


def _sentence(config: Config, data: xr.Dataset) -> str:
    before, after = (negative_share(data, state) for state in STATES)
    low, high = (lowest(data.sel(state=state, operator="task"), "ends", "reach").mean for state in STATES)
    return (
        f"P2-premise on {config.name}: λmin/λmax of H_ℓ is {low:.3g} at the pretrained weights and {high:.3g} after "
        f"training, both certified; the negative share of ‖H_ℓ‖_F² is {before.low:.2f} to {before.high:.2f} and "
        f"{after.low:.2f} to {after.high:.2f} over {config.probes} random vectors."
    )


def _figure(config: Config, data: xr.Dataset) -> plotting.Figure:
    title = f"F8c, F8d  {config.name}: r = {config.rank}, {config.texts} texts"
    figure, (left, middle, right) = plotting.panels(3, title)
    for x, state in enumerate(STATES):
        for k, operator in enumerate(OPERATORS):
            here = data.ends.sel(operator=operator, state=state)
            scale = here.sel(end="max")
            style = {"color": plotting.COLOR[operator], "ms": 8}
            place = np.full(config.draws, x + 0.18 * (k - 1.5))
            left.plot(place, here.sel(end="max") / scale, "^", **style, label=None if x else NAMES[operator])
            left.plot(place, here.sel(end="min") / scale, "v", **style)
    left.axhline(0, color=plotting.COLOR["prediction"], ls="--", label="P2: none below")
    left.set(xticks=[0, 1], xticklabels=STATES, xlim=(-0.6, 1.6), ylabel=r"$\lambda\,/\,\lambda_{max}$")
    left.set_title(f"(a) both ends, α = {config.alpha:g}")
    left.legend(fontsize=9, loc="center", bbox_to_anchor=(0.5, 0.74), ncols=2)
    over, signal = data.over_alpha.sel(state="initial"), signal_top(config, data).transpose("alpha", "seed")
    middle.plot(
        config.alphas,
        signal,
        "--",
        color=plotting.COLOR["prediction"],
        label=r"$\lambda_{max}[H_{Signal}]\propto\alpha^2$",
    )
    drift = -data.ends.sel(operator="drift", end="min", state="initial") * (data.alpha / config.alpha)
    middle.plot(
        config.alphas,
        drift.transpose("alpha", "seed"),
        ":",
        color=plotting.COLOR["drift"],
        label=r"$|\lambda_{min}[H_{Drift}]|\propto\alpha$",
    )
    middle.plot(
        config.alphas,
        over.sel(end="max").transpose("alpha", "seed"),
        "^",
        color=plotting.COLOR["lora"],
        label=r"$\lambda_{max}[H_{LoRA}]$",
    )
    middle.plot(
        config.alphas,
        -over.sel(end="min").transpose("alpha", "seed"),
        "v",
        color=plotting.COLOR["lora"],
        mfc="white",
        label=r"$-\lambda_{min}[H_{LoRA}]$",
    )
    plotting.log_axis(middle, "α", "eigenvalue", log_x=4)
    middle.set_title("(b) B = 0")
    middle.legend(fontsize=9)
    for state, color in zip(STATES, ("other", "task"), strict=True):
        here = data.sel(state=state).isel(seed=0)
        plotting.draw_quadrature(
            right, here.nodes.values, here.weights.values, color=plotting.COLOR[color], label=state
        )
    right.axhline(0, color=plotting.COLOR["prediction"], ls="--")
    right.set(
        xlabel="share of the eigenvalues above", ylabel=r"eigenvalue of $H_\ell$", title=r"(c) $H_\ell$ by quadrature"
    )
    right.set_yscale("symlog", linthresh=float(abs(data.nodes).max()) * 1e-6)
    right.legend()
    return figure


EXPERIMENT = Experiment(
    name="minilm_curvature",
    title="Spectra of a pretrained encoder: both ends of the four Hessians, α, and negative curvature.",
    paper=Config(),
    quick=replace(Config(), **SMALL, texts=8, rank=2, probes=2, nodes=8),
    points=points,
    measure=measure,
    report=report,
    extra=True,
    first=minilm_rates.of,
)

if __name__ == "__main__":
    main(EXPERIMENT)
