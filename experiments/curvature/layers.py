"""P3, F8a and V2's α in every layer of the pretrained encoder: traces over draws of A, and the top of each block.

For random signs z and any H, E⟨z, Hz⟩ = Tr H. A draw of A with one z for its H_Signal is an unbiased sample of
E[Tr H_Signal], and what of ⟨z, Hz⟩ lies in one layer is one of the trace of that layer's block, since the blocks
between layers have mean zero there: one product serves all layers.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import Array
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial

import signal_drift as sd
from experiments.analysis.intervals import Interval, mean_interval
from experiments.claims.verdict import extent
from experiments.curvature.asymmetric_scaling import STATES, certified
from experiments.curvature.minilm_point import Curvature, Point
from experiments.curvature.suppression import largest_normal
from experiments.lab.errors import OptionError
from experiments.lab.experiment import Experiment, Report, Row, main
from experiments.tuning import rates as minilm_rates
from experiments.tuning.rates import SMALL
from signal_drift import plotting
from signal_drift.lora.adapters import per_layer

WHOLE = "all layers"


@dataclass(frozen=True)
class Config(Curvature):
    """Every linear layer, at the pretrained weights and after LoRA at η_FFT has been trained."""

    probes: int = 128
    """Draws of A, and random signs for either trace."""
    tolerance: float = 0.1
    """Residual of the largest eigenvalue of a block over its norm at which the search stops."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.probes < 2:
            raise OptionError(f"probes: must be at least 2, got {self.probes}")


def points(config: Config) -> list[dict]:
    return [{"seed": seed, "state": state} for state in STATES for seed in range(config.draws)]


def measure(config: Config, first: xr.Dataset, seed: int, state: str) -> xr.Dataset:
    """The tops of three blocks of every layer and, where B = 0, samples of both traces; in float32."""
    point = config.point(first, seed, state, "float32")
    encoder, loss, theta = point
    s, tops = config.scaling(config.alpha), []
    gradient = jax.grad(loss)(sd.effective_weights(encoder.base, theta, s))
    for layer in sorted(encoder.base):
        parts = block(loss, encoder.base, theta, s, layer)
        found = [certified(op, tolerance=config.tolerance).values[0] for op in (parts.task, parts.signal)]
        tops.append([*found, s * float(np.linalg.norm(np.asarray(gradient[layer], float), 2))])  # X1
    alphas = [
        [sd.alpha_base(config.rank, sigma), sd.alpha_base(config.rank, float(jnp.sqrt(jnp.mean(theta[k].A ** 2))))]
        for k, sigma in sorted(encoder.sigma_a().items())
    ]
    samples = _samples(config, point, seed) if state == "initial" else np.full((2, config.probes, len(tops)), np.nan)
    return xr.Dataset(
        {
            "top": (("layer", "operator"), np.array(tops)),
            "alpha_v2": (("layer", "sigma"), np.array(alphas)),
            "trace": (("side", "probe", "layer"), samples),
            "sigma_a": ("layer", [sigma for _, sigma in sorted(encoder.sigma_a().items())]),
        },
        coords={
            "layer": sorted(encoder.base),
            "operator": ["task", "signal", "drift"],
            "sigma": ["set", "measured"],
            "side": ["measured", "predicted"],
        },
    )


def block(loss: Partial, base, theta, scaling, layer: str) -> sd.Decomposition:
    """The blocks of one layer at W₀ + s·BA; layers of one shape share their compiled code."""
    fixed, s = sd.effective_weights(base, theta, scaling), per_layer("scaling", scaling, base)
    chosen = {k: jnp.asarray(k == layer) for k, W in fixed.items() if W.shape == fixed[layer].shape}
    alone = Partial(_with_one, loss, fixed, chosen)
    return sd.decompose(alone, {"one": base[layer]}, {"one": theta[layer]}, s[layer])


def _with_one(loss: Partial, fixed: dict[str, Array], chosen: dict[str, Array], weights: dict[str, Array]) -> Array:
    return loss({k: jnp.where(chosen[k], weights["one"], W) if k in chosen else W for k, W in fixed.items()})


def _samples(config: Config, point: Point, seed: int) -> np.ndarray:
    """⟨z, H_Signal z⟩ for fresh A and z, and r s²σ_l²⟨u, H_ℓ u⟩ for u, layer by layer (P3-trace with σ_l of each)."""
    encoder, loss, theta = point
    s, measured, predicted = config.scaling(config.alpha), [], []
    factor = np.array([config.rank * (s * sigma) ** 2 for _, sigma in sorted(encoder.sigma_a().items())])
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), 7), (config.probes, 3))
    parts = sd.decompose(loss, encoder.base, theta, s)
    for draw, signs, others in keys:
        drawn = sd.init_adapters(draw, encoder.base, config.rank)
        signal = replace(parts.signal, point=replace(parts.signal.point, adapters=drawn))
        measured.append(_by_layer(signal, drawn, signs))
        predicted.append(factor * _by_layer(parts.task, encoder.base, others))
    return np.array([measured, predicted])


def _by_layer(op: sd.SymmetricOperator, like, key: Array) -> np.ndarray:
    """z_l·(Hz)_l for random signs z, by layer."""
    z = jax.random.rademacher(key, (op.shape[1],), op.dtype)
    product = ravel_pytree(like)[1](z * _product(op, z))
    return np.array([float(sum(jnp.sum(x) for x in jax.tree.leaves(product[k]))) for k in sorted(product)])


@jax.jit
def _product(op: sd.SymmetricOperator, z: Array) -> Array:
    return op @ z


def traces(data: xr.Dataset) -> Any:
    """The samples of both sides before training, those of the whole as one more layer."""
    samples = data.trace.sel(state="initial")
    return xr.concat([samples, samples.sum("layer").expand_dims(layer=[WHOLE])], "layer")


def trace_scores(data: xr.Dataset, factor: float = 1.0) -> xr.DataArray:
    """P3-trace: (mean measured − `factor` · mean predicted) in standard errors of the samples, (layer, seed)."""
    samples = traces(data)
    scaled = samples * xr.DataArray([1.0, factor], coords={"side": samples.side})
    means, variances = scaled.mean("probe"), scaled.var("probe", ddof=1) / data.sizes["probe"]
    error = np.sqrt(variances.sum("side"))
    return (means.sel(side="measured") - means.sel(side="predicted")) / error


def suppression(config: Config, data: xr.Dataset, state: str = "initial") -> xr.DataArray:
    """F8a: λmax[H_Signal] / (r s²σ_A² λmax[H_ℓ]) of every layer's block."""
    top, s = data.top.sel(state=state), config.scaling(config.alpha)
    factor = config.rank * (s * data.sigma_a.sel(state=state)) ** 2
    return top.sel(operator="signal") / (factor * top.sel(operator="task"))


def report(config: Config, data: xr.Dataset) -> Report:
    z, samples, rows = trace_scores(data), traces(data), []
    for name in (WHOLE, *map(str, data.layer.values)):
        here = samples.sel(layer=name)
        both = [mean_interval(here.sel(side=side).values) for side in ("measured", "predicted")]
        title = f"P3   Tr H_Signal over draws of A, {config.name}, {name}"
        rows.append(Row(title, f"{both[1]} {both[1].interval()}", str(both[0]), both[0].interval()))
    limit, wrong = f"{largest_normal(z.size):.2f} at 95%", trace_scores(data, config.rank)
    rows.append(Row(f"P3   largest abs z of {z.size}, {config.name}", f"< {limit}", f"{float(abs(z).max()):.2f}", "–"))
    name = f"P3   the same of the law without 1/r (control), {config.name}"
    rows.append(Row(name, f"> {limit}", f"{float(abs(wrong).max()):.2f}", "–"))
    for state in STATES:
        ratio = extent(suppression(config, data, state).values)
        name = f"F8a  λmax[H_Signal]/(rs²σ_A² λmax[H_ℓ]) of a layer, {config.name}, {state}, range"
        rows.append(Row(name, "≈ 1" if state == "initial" else "–", str(ratio), f"{ratio.interval()} (range)"))
    return Report(
        [*rows, *_layer_rows(config, data)],
        [_sentence(config, data)],
        {"minilm_layers": partial(_figure, config, data)},
    )


def _layer_rows(config: Config, data: xr.Dataset) -> list[Row]:
    """V2's α of every layer, with σ_A as set and as it is in A, and the largest eigenvalues of its three blocks."""
    rows, means = [], data.mean("seed")
    for k in map(str, data.layer.values):
        here = means.sel(layer=k)
        alpha = ", ".join(f"{float(here.alpha_v2.sel(sigma='measured', state=state)):.4g}" for state in STATES)
        tops = (", ".join(f"{x:.3g}" for x in here.top.sel(state=state).values) for state in STATES)
        stated = f"{float(here.alpha_v2.sel(sigma='set').isel(state=0)):.4g}"
        name = f"V2   α = √r/σ_A; λmax of H_ℓ, H_Signal, H_Drift; {config.name}, {k}, before → after"
        rows.append(Row(name, stated, f"{alpha}; {' → '.join(tops)}", "–"))
    return rows


def _sentence(config: Config, data: xr.Dataset) -> str:
    ratio, whole = suppression(config, data), _whole(data)
    return (
        f"On {config.name}, in float32, the mean of Tr H_Signal over {config.probes} draws of A is {whole[0]} "
        f"{whole[0].interval()} and P3 says {whole[1]} {whole[1].interval()}; λmax of a layer's H_Signal is between "
        f"{float(ratio.min()):.2g} and {float(ratio.max()):.2g} times rs²σ_A² that of its H_ℓ."
    )


def _whole(data: xr.Dataset) -> list[Interval]:
    here = traces(data).sel(layer=WHOLE)
    return [mean_interval(here.sel(side=side).values) for side in ("measured", "predicted")]


def _figure(config: Config, data: xr.Dataset) -> plotting.Figure:
    title = f"P3, F8a, V2  {config.name}, every layer: r = {config.rank}, α = {config.alpha:g}, {config.texts} texts"
    figure, axes = plotting.panels(4, title, height=8.5, width=4.4)
    names, y, means = [str(k) for k in data.layer.values], np.arange(data.sizes["layer"]), data.mean("seed")
    samples = traces(data).sel(layer=names)
    for side, color, shift in (("measured", "signal", -0.15), ("predicted", "prediction", 0.15)):
        mean, low, high = np.array([mean_interval(samples.sel(layer=k, side=side).values) for k in names]).T
        style = {"fmt": "o", "ms": 4, "color": plotting.COLOR[color], "label": side}
        axes[0].errorbar(mean, y + shift, xerr=[mean - low, high - mean], **style)
    axes[0].set(xlabel=r"$\mathrm{Tr}\,H_{Signal}$ of the layer", title="(a) P3, means and 95% intervals")
    for panel, operators, letter in ((axes[1], ("task",), "b"), (axes[2], ("signal", "drift"), "c")):
        for operator in operators:
            for state, face in zip(STATES, (None, "white"), strict=True):
                name = {"task": r"$H_\ell$", "signal": r"$H_{Signal}$", "drift": r"$H_{Drift}$"}[operator]
                style = {"color": plotting.COLOR[operator], "mfc": face, "label": f"{name}, {state}"}
                panel.plot(
                    means.top.sel(operator=operator, state=state), y, "o" if operator != "drift" else "D", **style
                )
        panel.set(xscale="log", xlabel="largest eigenvalue of the block", title=f"({letter})")
    law = config.rank * (config.scaling(config.alpha) * means.sigma_a.isel(state=0)) ** 2
    law = law * means.top.sel(operator="task", state="initial")
    name = r"F8a: $rs^2\sigma_A^2\lambda_{max}[H_\ell]$"
    axes[2].plot(law, y, "|", ms=12, mew=2, color=plotting.COLOR["prediction"], label=name)
    for sigma, mark, color in (("set", "|", "prediction"), ("measured", "o", "signal")):
        style = {
            "ms": 10 if mark == "|" else 5,
            "mew": 2,
            "color": plotting.COLOR[color],
            "label": rf"$\sigma_A$ {sigma}",
        }
        axes[3].plot(means.alpha_v2.sel(sigma=sigma, state="trained"), y, mark, **style)
    axes[3].set(xlabel=r"V2: $\alpha=\sqrt{r}/\sigma_A$", title="(d) after training", xlim=(0, None))
    for panel in axes:
        panel.set(yticks=y, ylim=(len(y) - 0.5, -0.5))
        panel.set_yticklabels(names if panel is axes[0] else [], fontsize=8)
        panel.legend(fontsize=8.5, loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=2)
    return figure


EXPERIMENT = Experiment(
    name="minilm_layers",
    title="P3, F8a and V2's α in every layer of a pretrained encoder.",
    paper=Config(),
    quick=replace(Config(), **SMALL, texts=8, rank=2, probes=16),
    points=points,
    measure=measure,
    report=report,
    extra=True,
    first=minilm_rates.of,
)

if __name__ == "__main__":
    main(EXPERIMENT)
