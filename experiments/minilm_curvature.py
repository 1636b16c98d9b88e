"""The four Hessians of the pretrained encoder, matrix-free: both ends, α, and the negative share, before and after.

The loss is the error on a few texts. H_ℓ has 10.6 million rows, H_LoRA a third of a million; every end is certified.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

import signal_drift as sd
from experiments import figures, minilm_rates
from experiments.asymmetric_scaling import STATES, certified
from experiments.errors import check_positive
from experiments.experiment import Experiment, Report, Row, main
from experiments.minilm_point import NAME, Curvature
from experiments.minilm_rates import SMALL
from experiments.residual_curvature import negative_share
from experiments.spectra_at_scale import LABELS, OPERATORS, extremes, lowest_over_highest
from experiments.spectra_figures import NAMES
from experiments.verdict import extent


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
        check_positive(self, "probes", "nodes")


def points(config: Config) -> list[dict]:
    return [{"seed": seed, "state": state} for state in STATES for seed in range(config.draws)]


def measure(config: Config, first: xr.Dataset, seed: int, state: str) -> xr.Dataset:
    """Both ends of the four operators at α, of H_LoRA over α where B = 0, and a density of H_ℓ."""
    encoder, loss, theta = config.point(first, seed, state, "float64")
    ends = extremes(config.tolerance, loss, encoder.base, theta, config.scaling(config.alpha))
    over = [_lora_ends(config, loss, encoder.base, theta, alpha, ends) for alpha in config.alphas]
    task = sd.decompose(loss, encoder.base, theta, config.scaling(config.alpha)).task
    density = sd.spectral_density(task, probes=config.probes, steps=config.nodes)
    return ends.assign(
        over_alpha=(("alpha", "end"), np.array(over) if state == "initial" else np.full((len(over), 2), np.nan)),
        nodes=(("probe", "node"), density.nodes),
        weights=(("probe", "node"), density.weights),
        loss=float(loss(sd.effective_weights(encoder.base, theta, config.scaling(config.alpha)))),
    ).assign_coords(end=["min", "max"], alpha=list(config.alphas))


def _lora_ends(config: Config, loss: Any, base: Any, theta: Any, alpha: float, ends: xr.Dataset) -> np.ndarray:
    """(λmin, λmax) of H_LoRA at another α; what is known already, or not asked for away from B = 0, is not computed."""
    if alpha == config.alpha or any(np.any(np.asarray(B)) for _, B in theta.values()):
        return ends.ends.sel(operator="lora").values
    lora = sd.decompose(loss, base, theta, config.scaling(alpha)).lora
    return certified(lora, which="both", tolerance=config.tolerance).values


def signal_top(config: Config, data: xr.Dataset) -> xr.DataArray:
    """λmax[H_Signal] over α at B = 0: α² times that at α = 1 (P4-landscape)."""
    top = data.ends.sel(operator="signal", end="max", state="initial")
    return top * (data.alpha / config.alpha) ** 2


def report(config: Config, data: xr.Dataset) -> Report:
    rows = []
    for state in STATES:
        here = data.sel(state=state)
        for operator, stated in (("task", "≥ 0 (P2-premise)"), ("signal", "≥ 0 (P2-psd)"), ("lora", "< 0")):
            ratio = extent(lowest_over_highest(here, operator).values)
            name = f"F8c  λmin/λmax of {LABELS[operator]}, {NAME}, {state}, α = {config.alpha:g}"
            rows.append(Row(name, stated, str(ratio), ratio.interval()))
        for operator in OPERATORS:
            low, high = (float(here.ends.sel(operator=operator, end=end).mean()) for end in ("min", "max"))
            rows.append(
                Row(f"     λmin, λmax of {LABELS[operator]}, {NAME}, {state}", "–", f"{low:.4g}, {high:.4g}", "–")
            )
        share = negative_share(data, state)
        rows.append(Row(f"P2   negative share of Σ|λ| of H_ℓ, {NAME}, {state}", "–", str(share), "–"))
    rows += [*_alpha_rows(config, data), *_certificate(data)]
    return Report(rows, [_sentence(config, data)], {"minilm_curvature": partial(_figure, config, data)})


def _alpha_rows(config: Config, data: xr.Dataset) -> list[Row]:
    rows, over = [], data.over_alpha.sel(state="initial")
    for alpha in config.alphas:
        low, high = (over.sel(alpha=alpha, end=end) for end in ("min", "max"))
        for name, stated, values in (
            ("F8c  λmin/λmax of H_LoRA", "< 0", low / high),
            ("F8d  λmax[H_LoRA]/λmax[H_Signal]", "→ 1", high / signal_top(config, data).sel(alpha=alpha)),
        ):
            ratio = extent(values.values)
            rows.append(Row(f"{name}, {NAME}, B = 0, α = {alpha:g}", stated, str(ratio), ratio.interval()))
    return rows


def _certificate(data: xr.Dataset) -> list[Row]:
    closed = float(abs(data.ends.sel(operator="drift", end="min") / data.drift_closed - 1).max())
    return [
        Row(f"X1   λmin[H_Drift] against −s·max σ(G), {NAME}, relative error", "rounding", f"{closed:.1e}", "–"),
        Row(f"     residual bound of an end over ‖H‖, {NAME}, largest", "–", f"{float(data.residual.max()):.1e}", "–"),
        Row(
            f"     points with all ends certified, {NAME}",
            f"{data.certified.size}",
            f"{int(data.certified.sum())}",
            "–",
        ),
    ]


def _sentence(config: Config, data: xr.Dataset) -> str:
    before, after = (negative_share(data, state).mean for state in STATES)
    low, high = (lowest_over_highest(data.sel(state=state), "task").mean().item() for state in STATES)
    return (
        f"P2-premise on {NAME}: λmin/λmax of H_ℓ is {low:.3g} at the pretrained weights and {high:.3g} after "
        f"training; {before:.0%} and {after:.0%} of its curvature is negative."
    )


def _figure(config: Config, data: xr.Dataset) -> figures.Figure:
    title = f"F8c, F8d  {NAME}: r = {config.rank}, {config.texts} texts"
    figure, (left, middle, right) = figures.panels(3, title)
    for x, state in enumerate(STATES):
        for k, operator in enumerate(OPERATORS):
            here = data.ends.sel(operator=operator, state=state)
            scale = here.sel(end="max")
            style = {"color": figures.COLOR[operator], "ms": 8}
            place = np.full(config.draws, x + 0.18 * (k - 1.5))
            left.plot(place, here.sel(end="max") / scale, "^", **style, label=None if x else NAMES[operator])
            left.plot(place, here.sel(end="min") / scale, "v", **style)
    left.axhline(0, color=figures.COLOR["prediction"], ls="--", label="P2: none below")
    left.set(xticks=[0, 1], xticklabels=STATES, xlim=(-0.6, 1.6), ylabel=r"$\lambda\,/\,\lambda_{max}$")
    left.set_title(f"(a) both ends, α = {config.alpha:g}")
    left.legend(fontsize=9, loc="center", bbox_to_anchor=(0.5, 0.74), ncols=2)
    over, signal = data.over_alpha.sel(state="initial"), signal_top(config, data).transpose("alpha", "seed")
    middle.plot(
        config.alphas,
        signal,
        "--",
        color=figures.COLOR["prediction"],
        label=r"$\lambda_{max}[H_{Signal}]\propto\alpha^2$",
    )
    drift = -data.ends.sel(operator="drift", end="min", state="initial") * (data.alpha / config.alpha)
    middle.plot(
        config.alphas,
        drift.transpose("alpha", "seed"),
        ":",
        color=figures.COLOR["drift"],
        label=r"$|\lambda_{min}[H_{Drift}]|\propto\alpha$",
    )
    middle.plot(
        config.alphas,
        over.sel(end="max").transpose("alpha", "seed"),
        "^",
        color=figures.COLOR["lora"],
        label=r"$\lambda_{max}[H_{LoRA}]$",
    )
    middle.plot(
        config.alphas,
        -over.sel(end="min").transpose("alpha", "seed"),
        "v",
        color=figures.COLOR["lora"],
        mfc="white",
        label=r"$-\lambda_{min}[H_{LoRA}]$",
    )
    figures.log_axis(middle, "α", "eigenvalue", log_x=4)
    middle.set_title("(b) B = 0")
    middle.legend(fontsize=9)
    for state, color in zip(STATES, ("other", "task"), strict=True):
        here = data.sel(state=state).isel(seed=0)
        figures.draw_quadrature(right, here.nodes.values, here.weights.values, color=figures.COLOR[color], label=state)
    right.axhline(0, color=figures.COLOR["prediction"], ls="--")
    right.set(
        xlabel="share of the eigenvalues above", ylabel=r"eigenvalue of $H_\ell$", title=r"(c) spectrum of $H_\ell$"
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
