"""Measure P3, F8a and V2's α in every layer: traces over draws of A, and the curvature of each layer's own blocks.

For random signs z and any H, E⟨z, Hz⟩ = Tr H. A draw of A with one z for its H_Signal is an unbiased sample of
E[Tr H_Signal], and what of ⟨z, Hz⟩ lies in one layer is one of the trace of that layer's block, since the blocks
between layers have mean zero there: one product serves all layers.
"""

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import Array
from jax.flatten_util import ravel_pytree
from jaxtyping import Key
from matplotlib.ticker import LogLocator

import signal_drift as sd
from experiments.analysis.ends import PLAIN, STATES, SYMBOL, certified, spectral_norms
from experiments.analysis.intervals import Estimate, mean_of
from experiments.curvature.states import adapters_at
from experiments.curvature.trace_law import largest_normal
from experiments.lab.errors import OptionError, check_positive
from experiments.lab.experiment import Experiment, Point, Report, Row
from experiments.lab.problem import Drawn, Problem, Setting
from signal_drift import plotting
from signal_drift.lora.adapters import Adapters
from signal_drift.spectra.layers import Block

ALL_LAYERS = "all layers"
BLOCKS = ("task", "signal", "drift")
"""The operators whose blocks are measured."""
NORMS = (("task", "‖H_ℓ‖²"), ("signal", "‖H_Signal‖²"))
"""The operators whose layers share their squared Frobenius norm, where the matrices are dense."""


@dataclass(frozen=True)
class Config(Setting):
    """Measure every adapted layer, at B = 0 and after training with Adam."""

    alpha: float = 16.0
    """α of the operators and of the training."""
    probes: int = 128
    """Draws of A, and random signs for either trace."""
    tolerance: float = 0.1
    """Residual of the largest eigenvalue of a block over its norm at which a search stops."""
    learning_rate: float = 1e-4
    """η of Adam; the paper's η₀, whatever rate the problem would be tuned to."""
    steps: int = 100
    """Training steps."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "steps")
        if self.probes < 2:
            raise OptionError(f"probes: must be at least 2, got {self.probes}")


def configure(problem: Problem) -> Config:
    """Draw a costly problem once, and train it over the steps of its sweeps."""
    if not problem.costly:
        return Config(problem)
    return Config(problem, seeds=1, steps=problem.tuning.steps if problem.tuning else Config.steps)


def points(config: Config) -> list[Point]:
    return [{"seed": seed, "state": state} for state in STATES for seed in range(config.seeds)]


def measure(config: Config, seed: int, state: str) -> xr.Dataset:
    """Measure the blocks of every layer and, where B = 0, samples of both traces.

    From the dense matrices in float64 where they fit, and by search in float32 elsewhere.
    """
    problem, s = config.problem, config.problem.scaling(config.alpha)
    dtype = "float64" if problem.dense else "float32"
    drawn = problem.draw(seed, dtype)
    theta = adapters_at(state, problem, seed, config.alpha, config.learning_rate, config.steps, dtype)
    sigma, names = problem.sigma_a(), sorted(drawn.base)
    blocks = dense_blocks(drawn, theta, s) if problem.dense else searched_blocks(drawn, theta, s, config.tolerance)
    alphas = [
        [sd.alpha_base(problem.rank, x) for x in (sigma[k], float(jnp.sqrt(jnp.mean(theta[k].A ** 2))))] for k in names
    ]
    unknown = np.full((2, config.probes, len(names)), np.nan)
    return xr.Dataset(
        {
            "block": (("layer", "operator", "field"), blocks),
            "alpha_v2": (("layer", "sigma"), np.array(alphas)),
            "trace": (
                ("side", "probe", "layer"),
                trace_samples(config, drawn, theta, seed) if state == "initial" else unknown,
            ),
            "sigma_a": ("layer", [sigma[k] for k in names]),
        },
        coords={
            "layer": names,
            "operator": list(BLOCKS),
            "field": list(Block._fields),
            "sigma": ["set", "measured"],
            "side": ["measured", "predicted"],
        },
    )


def dense_blocks(drawn: Drawn, theta: Adapters, s: float) -> np.ndarray:
    """Return every field of every block, from the matrices: (layer, operator, field)."""
    views = sd.layer_views(sd.decompose(drawn.loss, drawn.base, theta, s), theta)
    return np.array([[getattr(view, name) for name in BLOCKS] for view in views])


def searched_blocks(drawn: Drawn, theta: Adapters, s: float, tolerance: float) -> np.ndarray:
    """Return the largest eigenvalue of every block, that of H_Drift by X1, and NaN for the other fields."""
    norms, found = spectral_norms(drawn.loss, sd.effective_weights(drawn.base, theta, s)), []
    for layer in sorted(drawn.base):
        parts = sd.decompose_layer(drawn.loss, drawn.base, theta, s, layer)
        tops = [certified(op, tolerance=tolerance).values[0] for op in (parts.task, parts.signal)]
        found.append([*tops, s * norms[layer]])
    blocks = np.full((len(found), len(BLOCKS), len(Block._fields)), np.nan)
    blocks[:, :, Block._fields.index("largest")] = found
    return blocks


def trace_samples(config: Config, drawn: Drawn, theta: Adapters, seed: int) -> np.ndarray:
    """Sample ⟨z, H_Signal z⟩ for fresh A and z, and r s²σ_l²⟨u, H_ℓ u⟩ for u, layer by layer (P3-trace with each σ_l).

    The shape is (side, probe, layer).
    """
    problem, s = config.problem, config.problem.scaling(config.alpha)
    measured, predicted, sigma = [], [], problem.sigma_a()
    factor = np.array([problem.rank * (s * sigma[k]) ** 2 for k in sorted(drawn.base)])
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), 7), (config.probes, 3))
    parts = sd.decompose(drawn.loss, drawn.base, theta, s)
    for draw, signs, others in keys:
        adapters = sd.init_adapters(draw, drawn.base, problem.rank)
        signal = replace(parts.signal, point=replace(parts.signal.point, adapters=adapters))
        measured.append(_by_layer(signal, adapters, signs))
        predicted.append(factor * _by_layer(parts.task, drawn.base, others))
    return np.array([measured, predicted])


def _by_layer(op: sd.SymmetricOperator, like: Adapters | dict[str, Array], key: Key[Array, ""]) -> np.ndarray:
    """z_l·(Hz)_l for random signs z, by layer."""
    z = jax.random.rademacher(key, (op.shape[1],), op.dtype)
    product = ravel_pytree(like)[1](z * _product(op, z))
    return np.array([float(sum(jnp.sum(x) for x in jax.tree.leaves(product[k]))) for k in sorted(product)])


@jax.jit
def _product(op: sd.SymmetricOperator, z: Array) -> Array:
    return op @ z


def both_traces(data: xr.Dataset) -> xr.DataArray:
    """Return the samples of both sides before training, those of the whole as one more layer."""
    samples = data[["trace"]].sel(state="initial")
    return xr.concat([samples, samples.sum("layer").expand_dims(layer=[ALL_LAYERS])], "layer").trace


def trace_scores(data: xr.Dataset, factor: float = 1.0) -> xr.DataArray:
    """Return (mean measured − `factor` · mean predicted)/standard error of the samples, (layer, seed) (P3-trace)."""
    samples = both_traces(data)
    scaled = samples * xr.DataArray([1.0, factor], coords={"side": samples.side})
    means, variances = scaled.mean("probe"), scaled.var("probe", ddof=1) / data.sizes["probe"]
    error = np.sqrt(variances.sum("side"))
    return (means.sel(side="measured") - means.sel(side="predicted")) / error


def suppression_ratio(config: Config, data: xr.Dataset, state: str = "initial") -> xr.DataArray:
    """Divide λmax[H_Signal] by r s²σ_A² λmax[H_ℓ], in every layer's block (F8a)."""
    top, s = data.block.sel(field="largest", state=state), config.problem.scaling(config.alpha)
    factor = config.problem.rank * (s * data.sigma_a.sel(state=state)) ** 2
    return top.sel(operator="signal") / (factor * top.sel(operator="task"))


def report(config: Config, data: xr.Dataset) -> Report:
    z, samples, rows = trace_scores(data), both_traces(data), []
    for name in (ALL_LAYERS, *map(str, data.layer.values)):
        here = samples.sel(layer=name)
        both = [mean_of(here.sel(side=side).values) for side in ("measured", "predicted")]
        title = f"P3   Tr H_Signal over draws of A, {name}"
        rows.append(Row(title, f"{both[1]} {both[1].interval()}", str(both[0]), both[0].interval()))
    limit, wrong = f"{largest_normal(z.size):.2f} at 95%", trace_scores(data, config.problem.rank)
    rows.append(Row(f"P3   largest abs z of {z.size}", f"< {limit}", f"{float(abs(z).max()):.2f}", "–"))
    name = "P3   the same of the law without 1/r (control)"
    rows.append(Row(name, f"> {limit}", f"{float(abs(wrong).max()):.2f}", "–"))
    for state in STATES:
        ratio = suppression_ratio(config, data, state).values
        over = f"[{ratio.min():.4g}, {ratio.max():.4g}] (range)"
        name = f"F8a  λmax[H_Signal]/(rs²σ_A² λmax[H_ℓ]) of a layer, {state}, range"
        rows.append(Row(name, "≈ 1" if state == "initial" else "–", f"{ratio.mean():.4g}", over))
    sentences, figures = [_sentence(config, data)], {"layers": partial(_figure, config, data)}
    rows += _layer_rows(data)
    if config.problem.dense:
        rows += _share_rows(data)
        sentences.append(_share_sentence(data))
        figures["layer_shares"] = partial(_share_figure, config, data)
    return Report(rows, sentences, figures)


def _layer_rows(data: xr.Dataset) -> list[Row]:
    """V2's α of every layer, with σ_A as set and as it is in A, and the largest eigenvalues of its three blocks."""
    rows, means = [], data.mean("seed")
    for k in map(str, data.layer.values):
        here = means.sel(layer=k)
        alpha = ", ".join(f"{float(here.alpha_v2.sel(sigma='measured', state=state)):.4g}" for state in STATES)
        largest = here.block.sel(field="largest")
        tops = (", ".join(f"{x:.3g}" for x in largest.sel(state=state).values) for state in STATES)
        stated = f"{float(here.alpha_v2.sel(sigma='set', state='initial')):.4g}"
        name = f"V2   α = √r/σ_A; λmax of {', '.join(PLAIN[x] for x in BLOCKS)}; {k}, before → after"
        rows.append(Row(name, stated, f"{alpha}; {' → '.join(tops)}", "–"))
    return rows


def norm_shares(data: xr.Dataset, operator: str, state: str) -> dict[str, Estimate]:
    """Return the share of every layer's block in the squared Frobenius norm of an operator, over seeds."""
    column = data.block.sel(operator=operator, field="norm_share", state=state)
    return {str(k): mean_of(column.sel(layer=k).values) for k in data.layer.values}


def _share_rows(data: xr.Dataset) -> list[Row]:
    rows = []
    for operator, norm in NORMS:
        columns = {state: norm_shares(data, operator, state) for state in STATES}
        for k in map(str, data.layer.values):
            found = [columns[state][k] for state in STATES]
            name = f"     share of {norm}, {k}, before → after"
            rows.append(Row(name, "–", " → ".join(map(str, found)), " → ".join(x.interval() for x in found)))
    return rows


def _sentence(config: Config, data: xr.Dataset) -> str:
    ratio, here = suppression_ratio(config, data), both_traces(data).sel(layer=ALL_LAYERS)
    measured, stated = (mean_of(here.sel(side=side).values) for side in ("measured", "predicted"))
    draws = here.sel(side="measured").size
    return (
        f"On {config.problem.label} the mean of Tr H_Signal over {draws} draws of A is {measured} "
        f"{measured.interval()} and P3 says {stated} {stated.interval()}; λmax of a layer's H_Signal is between "
        f"{float(ratio.min()):.2g} and {float(ratio.max()):.2g} times rs²σ_A² that of its H_ℓ."
    )


def _share_sentence(data: xr.Dataset) -> str:
    within = sum(x.value for x in norm_shares(data, "task", "initial").values())
    signal = norm_shares(data, "signal", "initial")
    top = max(signal, key=lambda k: signal[k].value)
    return (
        f"At initialisation the layers' own blocks carry {within:.0%} of ‖H_ℓ‖_F², the blocks between layers the rest; "
        f"the largest share of ‖H_Signal‖_F² is that of {top}, {signal[top].value:.0%}."
    )


def _figure(config: Config, data: xr.Dataset) -> plotting.Figure:
    """The trace law in standard errors, the largest eigenvalues, and V2's α where layers differ in it."""
    sizes = f"r = {config.problem.rank}, α = {config.alpha:g}, {config.seeds} seed{'s' * (config.seeds > 1)}"
    names, count = [str(k) for k in data.layer.values], data.sizes["layer"]
    alphas = data.mean("seed").alpha_v2.sel(state="trained")
    differ = len(set(alphas.sel(sigma="set").values)) > 1
    title = f"Layer by layer: {config.problem.label}, {sizes}"
    figure, (first, *others) = plotting.panels(3 + differ, title, 3.6 + 0.14 * count, 4.8)
    _draw_scores(first, data, names)
    _draw_tops(others[0], others[1], config, data)
    if differ:
        for sigma, mark, color in (("set", "|", "prediction"), ("measured", "o", "signal")):
            style = {"ms": 10 if mark == "|" else 5, "mew": 2, "color": plotting.COLOR[color]}
            others[2].plot(alphas.sel(sigma=sigma), np.arange(count), mark, label=rf"$\sigma_A$ {sigma}", **style)
        others[2].set(xlabel=r"V2: $\alpha=\sqrt{r}/\sigma_A$", title="(d) V2's α, after training", xlim=(0, None))
    for panel in (first, *others):
        _name_layers(panel, names, first=panel is first)
        panel.legend(fontsize=8.5, loc="upper center", bbox_to_anchor=(0.5, -0.24), ncols=2)
    return figure


def _draw_scores(panel: plotting.Axes, data: xr.Dataset, names: list[str]) -> None:
    """Every seed's distance of the two mean traces in standard errors, and what chance allows the largest."""
    z = trace_scores(data)
    limit = largest_normal(z.size)
    chance = f"95% of the largest of {z.size}"
    panel.axvspan(-limit, limit, color=plotting.COLOR["band"], alpha=0.25, lw=0, label=chance)
    panel.axvline(0, color=plotting.COLOR["prediction"], ls="--", label="P3: no difference")
    for k, scores in enumerate(z.sel(layer=names).transpose("seed", "layer").values):
        style = {"color": plotting.COLOR["signal"], "alpha": 0.7, "label": None if k else "each seed"}
        panel.plot(scores, np.arange(len(names)), "o", ms=5, **style)
    widest = max(5.0, 1.1 * float(abs(z).max()))
    panel.set(xlabel="(measured − stated) / standard error", title=r"(a) $\mathrm{Tr}\,H_{Signal}$, P3 at B = 0")
    panel.set_xlim(-widest, widest)


def _draw_tops(left: plotting.Axes, right: plotting.Axes, config: Config, data: xr.Dataset) -> None:
    """λmax of H_ℓ in every layer, and of H_Signal and H_Drift, before and after training, with the law of F8a."""
    y, means = np.arange(data.sizes["layer"]), data.mean("seed")
    tops = means.block.sel(field="largest")
    for panel, operators in ((left, ("task",)), (right, ("signal", "drift"))):
        for operator in operators:
            for state, face in zip(STATES, (None, "white"), strict=True):
                style = {"color": plotting.COLOR[operator], "mfc": face, "label": f"{SYMBOL[operator]}, {state}"}
                panel.plot(tops.sel(operator=operator, state=state), y, "D" if operator == "drift" else "o", **style)
        panel.set(xscale="log", xlabel="largest eigenvalue of the layer's block")
        panel.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        panel.minorticks_off()
    law = config.problem.rank * (config.problem.scaling(config.alpha) * means.sigma_a.sel(state="initial")) ** 2
    law = law * tops.sel(operator="task", state="initial")
    name = r"F8a: $rs^2\sigma_A^2\lambda_{max}[H_\ell]$"
    right.plot(law, y, "|", ms=12, mew=2, color=plotting.COLOR["prediction"], label=name)
    left.set_title(r"(b) curvature of the task, $H_\ell$")
    right.set_title("(c) of LoRA's signal and drift")


def _share_figure(config: Config, data: xr.Dataset) -> plotting.Figure:
    """Each layer's share of the squared norms, every seed and the mean, before and after training."""
    sizes = f"r = {config.problem.rank}, α = {config.alpha:g}, {config.over_seeds} (dots)"
    title = f"Shares of the layers: {config.problem.label}, {sizes}"
    figure, axes = plotting.panels(len(NORMS), title, 3.4 + 0.14 * data.sizes["layer"], 6.4)
    names, y = [str(k) for k in data.layer.values], np.arange(data.sizes["layer"])
    for panel, (operator, norm) in zip(axes, NORMS, strict=True):
        for state, shift, mark in zip(STATES, (-0.15, 0.15), ("o", "s"), strict=True):
            column = data.block.sel(operator=operator, field="norm_share", state=state).transpose("layer", "seed")
            style = {"color": plotting.COLOR[operator], "mfc": "white" if state == "trained" else None}
            panel.plot(column, y + shift, mark, ms=3, alpha=0.5, **style)
            panel.plot(column.mean("seed"), y + shift, mark, ms=8, label=state, **style)
        panel.set(title=f"share of {norm}", xlim=(0, None))
        _name_layers(panel, names, first=panel is axes[0])
        panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2)
    return figure


def _name_layers(panel: plotting.Axes, names: list[str], first: bool) -> None:
    panel.set(yticks=range(len(names)), ylim=(len(names) - 0.5, -0.5))
    panel.set_yticklabels(names if first else [], fontsize=8)


CAPTIONS = {
    "layers": (
        "The trace of H_Signal layer by layer, in standard errors from what P3 says (a; inside the band is as "
        "stated), and its largest eigenvalue over the paper's factor times that of H_ℓ (b, c; a filled mark at "
        "the bar is as stated)."
    ),
    "layer_shares": (
        "Which layers carry the squared norm of H_ℓ and of H_Signal, before and after training; what is missing "
        "from 1 lies between layers (right is a larger share)."
    ),
}


EXPERIMENT = Experiment(
    name="layers",
    title="P3, F8a and V2's α in every layer, and each layer's own curvature.",
    configure=configure,
    points=points,
    measure=measure,
    report=report,
    tiny={"seeds": 2, "probes": 16, "steps": 10},
    captions=CAPTIONS,
)
