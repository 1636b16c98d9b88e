"""Ask whether λmax of H_LoRA is curvature: s·σ₁(G) against λmax[H_Signal], layer by layer and for the whole.

s·σ₁(G) is λmax of H_Drift (X1): the spectral norm of the gradient, no second derivative of the loss. X16 bounds what it
leaves to the curvature. The adapters begin as LoRA's, PiSSA's and OLoRA's do, and after training from LoRA's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import numpy as np
import tyro
import xarray as xr
from jax import Array
from matplotlib.ticker import MaxNLocator

import signal_drift as sd
from experiments.analysis.ends import certified, share, spectral_norms
from experiments.analysis.layer_names import by_depth, kind_of
from experiments.curvature.states import adapters_at
from experiments.lab.errors import OptionError, check_ascending, check_positive
from experiments.lab.experiment import Experiment, Point, Report, Row
from experiments.lab.problem import Drawn, Dtype, Problem, Setting
from signal_drift import plotting
from signal_drift.lora import olora_adapters, pissa_adapters
from signal_drift.lora.adapters import Adapters
from signal_drift.lora.scaling_rules import crossover_alpha

STARTS = ("LoRA", "PiSSA", "OLoRA", "trained")
"""Where the adapters are: as each method begins, and after training from LoRA's start."""
AXES = {"operator": ["signal", "lora"], "end": ["min", "max"]}
"""The two operators that are searched, and their ends."""
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
"""How the kinds of layers are drawn, told apart without hue."""


@dataclass(frozen=True)
class Config(Setting):
    """Measure both ends of H_Signal and H_LoRA and the gradient's spectral norm, whole and in every layer's block."""

    seeds: int = 2
    """Independent draws of all that is random."""
    alphas: tuple[float, ...] = (1.0, 4.0, 16.0, 64.0, 256.0)
    """Values of α at which the whole is measured at LoRA's start."""
    alpha: float = 16.0
    """α of everything else, one of `alphas`."""
    blocks: Annotated[int, tyro.conf.arg(name="measured-layers")] = 64
    """Adapted layers that are measured by themselves, at most: evenly over depth where there are more."""
    block_starts: tuple[str, ...] = STARTS
    """Where layers are measured by themselves."""
    tolerance: float = 1e-2
    """Residual of an eigenvalue over ‖H‖ at which a search stops."""
    learning_rate: float = 1e-4
    """η of Adam; the paper's η₀, whatever rate the problem would be tuned to."""
    steps: int = 100
    """Training steps."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "blocks", "steps")
        check_ascending(self, "alphas")
        if self.alpha not in self.alphas:
            raise OptionError(f"alpha: must be one of alphas, got {self.alpha:g}")


def configure(problem: Problem) -> Config:
    """Search fewer layers of a costly problem, once and more loosely."""
    if not problem.costly:
        return Config(problem)
    steps = problem.tuning.steps if problem.tuning else Config.steps
    few = {"blocks": 14, "block_starts": ("LoRA",), "tolerance": 0.05}
    return Config(problem, seeds=1, alphas=(4.0, 16.0, 64.0), steps=steps, **few)


def points(config: Config) -> list[Point]:
    return [{"start": start, "seed": seed} for start in STARTS for seed in range(config.seeds)]


def measure(config: Config, start: str, seed: int) -> xr.Dataset:
    """Measure the whole at every α where that is LoRA's start, and every chosen layer at one α."""
    dtype: Dtype = "float64" if config.problem.dense else "float32"
    drawn = config.problem.draw(seed, dtype)
    alphas = config.alphas if start == "LoRA" else (config.alpha,)
    whole = _whole(config, drawn, {alpha: begun(config, drawn, start, seed, alpha, dtype) for alpha in alphas})
    layers = config.blocks if start in config.block_starts else 0
    return whole.merge(_blocks(config, drawn, *begun(config, drawn, start, seed, config.alpha, dtype), layers))


def begun(
    config: Config, drawn: Drawn, start: str, seed: int, alpha: float, dtype: Dtype
) -> tuple[Mapping[str, Array], Adapters]:
    """Return W₀ and θ as a method begins, the effective weights those of the problem but after training."""
    problem, s = config.problem, config.problem.scaling(alpha)
    if start in {"PiSSA", "OLoRA"}:
        return {"PiSSA": pissa_adapters, "OLoRA": olora_adapters}[start](drawn.base, problem.rank, s)
    state = "trained" if start == "trained" else "initial"
    return drawn.base, adapters_at(state, problem, seed, alpha, config.learning_rate, config.steps, dtype)


def _whole(config: Config, drawn: Drawn, points: Mapping[float, tuple[Mapping[str, Array], Adapters]]) -> xr.Dataset:
    """Both ends of H_Signal and H_LoRA of all layers together, and the largest s·σ₁(G), over α.

    Where several α are asked for B = 0, and H_Signal is searched once (P4-landscape).
    """
    found, searched = [], {}
    for alpha, (base, theta) in points.items():
        s = config.problem.scaling(alpha)
        parts = sd.decompose(drawn.loss, base, theta, s)
        searched = searched or {s: _ends(parts.signal, config.tolerance)}
        ((first, signal),) = searched.items()
        ends, reach = np.stack([signal * (s / first) ** 2, _ends(parts.lora, config.tolerance)], axis=1)
        data = {"whole": (("operator", "end"), ends), "whole_reach": (("operator", "end"), reach)}
        drift = s * max(spectral_norms(drawn.loss, sd.effective_weights(base, theta, s)).values())
        found.append(xr.Dataset(data, AXES).assign(whole_drift=drift))
    return xr.concat(found, xr.IndexVariable("alpha", list(points))).reindex(alpha=list(config.alphas))


def _blocks(config: Config, drawn: Drawn, base: Mapping[str, Array], theta: Adapters, count: int) -> xr.Dataset:
    """λmax of the same in so many layers' own blocks, and s·σ₁(G) of all of them."""
    s = config.problem.scaling(config.alpha)
    norms = spectral_norms(drawn.loss, sd.effective_weights(base, theta, s))
    names = by_depth(norms)
    block = np.full((2, 2, len(names)), np.nan)
    for layer in evenly(names, count):
        parts = sd.decompose_layer(drawn.loss, base, theta, s, layer)
        both = [certified(op, tolerance=config.tolerance) for op in (parts.signal, parts.lora)]
        block[:, :, names.index(layer)] = np.array([[x.values[0], x.residuals[0] + x.missed] for x in both]).T
    labels = {"layer": names, "operator": AXES["operator"]}
    drift = ("layer", [s * norms[k] for k in names])
    values = {name: (("operator", "layer"), x) for name, x in zip(("block", "block_reach"), block, strict=True)}
    return xr.Dataset({**values, "block_drift": drift}, labels)


def _ends(op: sd.SymmetricOperator, tolerance: float) -> np.ndarray:
    """(λmin, λmax), and how far beyond them the spectrum may reach."""
    found = certified(op, which="both", tolerance=tolerance)
    return np.array([found.values, found.residuals + found.missed])


def evenly(names: list[str], count: int) -> list[str]:
    """Choose so many of the names, or all there are, evenly from the first to the last.

    >>> evenly(["a", "b", "c", "d", "e"], 3)
    ['a', 'c', 'e']
    """
    if not count:
        return []
    return [names[k] for k in sorted(set(np.linspace(0, len(names) - 1, count).round().astype(int).tolist()))]


def whole_share(data: xr.Dataset) -> xr.DataArray:
    """Return the share of curvature in λmax of the whole."""
    return share(data.whole_drift, data.whole.sel(operator="lora", end="max"))


def block_share(data: xr.Dataset) -> xr.DataArray:
    """Return the share of curvature in λmax of every layer's block."""
    return share(data.block_drift, data.block.sel(operator="lora"))


def crossovers(config: Config, data: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    """Return α_c of every layer's block, and of the whole, at LoRA's start (X16)."""
    here = data.sel(start="LoRA", operator="signal", alpha=config.alpha)
    return (
        crossover_alpha(config.alpha, here.block_drift, here.block),
        crossover_alpha(config.alpha, here.whole_drift, here.whole.sel(end="max")),
    )


def report(config: Config, data: xr.Dataset) -> Report:
    rows = []
    for start in STARTS:
        for alpha in config.alphas if start == "LoRA" else (config.alpha,):
            here = data.sel(start=start, alpha=alpha)
            tops = [float(here.whole.sel(operator=x, end="max").mean()) for x in ("signal", "lora")]
            values = f"{float(here.whole_drift.mean()):.3g}, {tops[0]:.3g}, {tops[1]:.3g}"
            name = f"X16  s·σ₁(G), λmax of H_Signal and of H_LoRA, whole, {start}, α = {alpha:g}"
            rows.append(Row(name, "the last within the sum of the others", values, "–"))
            rows.append(Row("     share of it that is curvature", "–", _spread(whole_share(here)), "–"))
        if start in config.block_starts:
            rows.append(_layer_row(data.sel(start=start), start))
    layers, whole = crossovers(config, data)
    rows.append(Row("X16  α_c, layer by layer", "–", _spread(layers), "–"))
    rows.append(Row("X16  α_c, whole", "–", _spread(whole), "–"))
    return Report(rows, [_sentence(config, data)], {"is_it_curvature": partial(_figure, config, data)})


def _layer_row(here: xr.Dataset, start: str) -> Row:
    return Row(
        f"     share of λmax that is curvature, each layer's block, {start}", "–", _spread(block_share(here)), "–"
    )


def _spread(values: xr.DataArray) -> str:
    """The median, and the range over layers and seeds."""
    x = values.values[np.isfinite(values.values)]
    if not len(x):
        return "no certificate"
    return f"{np.median(x):.3g}" + (f" (from {x.min():.3g} to {x.max():.3g}, {x.size} values)" if x.size > 1 else "")


def _sentence(config: Config, data: xr.Dataset) -> str:
    at = data.sel(start="LoRA")
    layers, whole = crossovers(config, data)
    return (
        f"On {config.problem.label} at LoRA's start and α = {config.alpha:g}, the share of λmax[H_LoRA] that is "
        f"curvature is {_spread(block_share(at))} in a layer's own block and "
        f"{_spread(whole_share(at.sel(alpha=config.alpha)))} for all layers together; α_c is {_spread(layers)} "
        f"layer by layer and {_spread(whole)} for the whole."
    )


def _figure(config: Config, data: xr.Dataset) -> plotting.Figure:
    """The share by layer and kind; that of the whole over α and by start; and where a layer crosses over."""
    title = f"Is λmax curvature? {config.problem.label}, r = {config.problem.rank}"
    figure, axes = plotting.panels(3, title, 4.4, 5.0)
    _draw_layers(axes[0], block_share(data.sel(start="LoRA")).mean("seed"))
    axes[0].set(ylim=(-0.02, 1.0), title=f"(a) one layer's block, LoRA's start, α = {config.alpha:g}")
    axes[0].set_ylabel(r"share: $1-s\,\sigma_1(G)/\lambda_{max}[H_{LoRA}]$")
    _draw_whole(axes[1], config, data)
    layers, whole = crossovers(config, data)
    _draw_layers(axes[2], layers.mean("seed"))
    style: dict[str, Any] = {"color": plotting.COLOR["lora"], "ls": "--", "label": "all layers together"}
    axes[2].axhline(float(whole.mean()), **style)
    axes[2].set(yscale="log", ylabel=r"$\alpha_c = r\,\sigma_1(G)/\lambda_{max}[H_{Signal}]_{s=1}$")
    axes[2].set_title("(c) where curvature overtakes the gradient")
    for panel in (axes[0], axes[2]):
        panel.set_xlabel("layer, by depth")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.legend(fontsize=8.5, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3)
    return figure


def _draw_layers(panel: plotting.Axes, values: xr.DataArray) -> None:
    """A value by layer, each kind with its mark."""
    names = [str(k) for k in values.layer.values]
    colors = [plotting.COLOR[x] for x in ("signal", "drift", "lora", "prediction", "band", "other", "task")]
    kinds = sorted({kind_of(name) for name in names})
    for i, kind in enumerate(kinds):
        at = [k for k, name in enumerate(names) if kind_of(name) == kind]
        style: dict[str, Any] = {"color": colors[i % len(colors)], "marker": MARKS[i % len(MARKS)], "label": kind}
        panel.plot(at, values.values[at], ls="", **style)


def _draw_whole(panel: plotting.Axes, config: Config, data: xr.Dataset) -> None:
    """The share of the whole over α at LoRA's start, what X16 leaves open there, and the other starts."""
    at = data.sel(start="LoRA")
    at_one = at.sel(alpha=config.alpha)
    alphas = np.geomspace(config.alphas[0], config.alphas[-1], 60)
    lowest, highest = (float(at_one.whole.sel(operator="signal", end=end).mean()) for end in ("min", "max"))
    drift, growth = float(at_one.whole_drift.mean()) * alphas / config.alpha, (alphas / config.alpha) ** 2
    least = np.maximum(drift + lowest * growth, highest * growth)  # λmax[H_Signal] lies in a block without drift (X13)
    low, high = 1 - drift / least, 1 - drift / (drift + highest * growth)
    color = {"color": plotting.COLOR["band"], "alpha": 0.35, "lw": 0}
    panel.fill_between(alphas, low, high, **color, label="what X16 leaves open")
    measured = whole_share(at)
    panel.plot(config.alphas, measured.mean("seed"), "o", color=plotting.COLOR["lora"], label="LoRA's start")
    for start, mark, color_of in (("PiSSA", "s", "signal"), ("OLoRA", "^", "drift"), ("trained", "D", "task")):
        here = float(whole_share(data.sel(start=start, alpha=config.alpha)).mean())
        panel.plot(config.alpha, here, mark, color=plotting.COLOR[color_of], label=start)
    panel.set(xscale="log", xlabel="α", ylim=(-0.02, 1.0), title="(b) all layers together")
    panel.set_xscale("log", base=2)
    panel.legend(fontsize=9)


EXPERIMENT = Experiment(
    name="is_it_curvature",
    title="X16: how much of λmax[H_LoRA] is curvature, and where it overtakes the gradient.",
    configure=configure,
    points=points,
    measure=measure,
    report=report,
    tiny={"seeds": 1, "alphas": (4.0, 16.0), "steps": 5, "tolerance": 1e-6},
    captions={
        "is_it_curvature": (
            "The share of λmax[H_LoRA] that the gradient's spectral norm does not explain, in each layer's own block "
            "(a) and for all layers together over α (b; the band is what X16 allows), and the α at which both are "
            "equal (c). At 0 the largest eigenvalue is the gradient's, at 1 it is the loss's curvature."
        )
    },
)
