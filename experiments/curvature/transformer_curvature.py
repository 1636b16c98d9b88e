"""P3-trace, P2-premise and the per-layer view on a transformer: H_ℓ in full, before and after training."""

from dataclasses import dataclass, replace
from functools import partial

import jax
import numpy as np
import xarray as xr
from jax import Array

import signal_drift as sd
from experiments.analysis.intervals import Interval, mean_interval
from experiments.curvature.asymmetric_scaling import STATES, trained_run
from experiments.curvature.suppression import largest_normal, standard_scores, trace_draws
from experiments.lab.errors import check_positive
from experiments.lab.experiment import Experiment, Report, Row, main
from experiments.problems.transformer import TINY, Setting, adapters, problem, sigma_a
from signal_drift import plotting
from signal_drift.propositions import closed_forms
from signal_drift.spectra.layers import OPERATORS


@dataclass(frozen=True)
class Config(Setting):
    """The trace law over ranks and draws of A, and every layer's curvature at one α."""

    alpha: float = 16.0
    """α of the per-layer view and of the training before its second half."""
    ranks: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    """Ranks of the trace law."""
    draws: int = 200
    """Draws of A at every rank."""
    learning_rate: float = 1e-3
    """η of Adam."""
    steps: int = 100
    """Training steps."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "ranks", "draws", "steps")


def points(config: Config) -> list[dict]:
    return [{"seed": seed} for seed in range(config.seeds)]


def measure(config: Config, seed: int) -> xr.Dataset:
    """The ends of H_ℓ's spectrum and the table of layers in both states; Tr H_Signal over draws of A in the first."""
    loss, base = problem(config, seed)
    start, s = adapters(config, base, seed), config.scaling(config.alpha)
    run = trained_run(loss, base, start, s, config.learning_rate, config.steps)
    initial = sd.decompose(loss, base, start, s)
    trained = sd.decompose(loss, base, run.trained, s)
    task = initial.task.dense()
    states = [_state(initial, task, start), _state(trained, trained.task.dense(), run.trained)]
    return xr.merge(
        [
            xr.concat(states, xr.IndexVariable("state", list(STATES))),
            _traces(config, closed_forms.task_grams(task, base), base, seed),
            {"final_loss": float(run.loss[-1] / run.loss[0])},
        ]
    )


def _state(parts: sd.Decomposition, task: Array, theta) -> xr.Dataset:
    spectrum = sd.eigenvalues(task)
    views = sd.layer_views({**parts._asdict(), "task": task}, theta)
    blocks = [[getattr(view, name) for name in OPERATORS] for view in views]
    return xr.Dataset(
        {
            "task_min": spectrum[0],
            "task_max": spectrum[-1],
            "block": (("layer", "operator", "field"), np.array(blocks)),
            "alpha_set": ("layer", [view.alpha_set for view in views]),
            "alpha_measured": ("layer", [view.alpha_measured for view in views]),
        },
        coords={"layer": [v.layer for v in views], "operator": list(OPERATORS), "field": list(sd.Block._fields)},
    )


def _traces(config: Config, grams: closed_forms.Grams, base, seed: int) -> xr.Dataset:
    """Draws of Tr H_Signal at α = 1, what P3-trace predicts for their mean and X2 for their deviation."""
    sigma, draws, predicted, deviations = sigma_a(base), [], [], []
    for r in config.ranks:
        key, s = jax.random.fold_in(jax.random.key(seed), 1000 + r), config.scaling(1.0, r)
        draws.append(trace_draws(key, base, grams, s, r, config.draws))
        predicted.append(float(closed_forms.expected_signal_trace(grams, r, s, sigma)))
        deviations.append(closed_forms.signal_trace_deviation(grams, r, s, sigma))
    return xr.Dataset(
        {
            "draws": (("rank", "draw"), np.array(draws)),
            "predicted": ("rank", predicted),
            "deviation": ("rank", deviations),
        },
        coords={"rank": list(config.ranks)},
    )


def z_scores(data: xr.Dataset) -> np.ndarray:
    """P3-trace: (mean over draws − prediction) in standard errors by X2, for every seed and rank."""
    parts = [data[name].transpose("seed", "rank", ...).values for name in ("draws", "predicted", "deviation")]
    return standard_scores(*parts)


def estimates(data: xr.Dataset) -> dict[str, Interval]:
    """P3-trace: the mean z-score, stated 0. P2-premise: λmin/‖H_ℓ‖ in each state, stated ≥ 0.

    A z-score and no ratio: H_ℓ is indefinite here, and its trace is close to zero or below.
    """
    norm = np.maximum(abs(data.task_min), abs(data.task_max))
    premise = (data.task_min / norm).transpose("state", "seed")
    return {"z of Tr H_Signal": mean_interval(z_scores(data))} | {
        f"λmin/‖H_ℓ‖, {state}": mean_interval(premise.sel(state=state).values) for state in STATES
    }


def report(config: Config, data: xr.Dataset) -> Report:
    measured, z, rows = estimates(data), z_scores(data), []
    for r, scores in zip(config.ranks, z.T, strict=True):
        mean = mean_interval(scores)
        name = f"P3   (Tr H_Signal − prediction) / standard error by X2, r = {r}"
        rows.append(Row(name, "0", str(mean), mean.interval()))
    limit = f"< {largest_normal(z.size):.2f} at 95%"
    rows.append(Row(f"P3   largest abs z of {z.size} (seed, rank) means", limit, f"{np.max(np.abs(z)):.2f}", "–"))
    for state in STATES:
        premise = measured[f"λmin/‖H_ℓ‖, {state}"]
        rows.append(Row(f"P2-premise  λmin/‖H_ℓ‖, {state}", "≥ 0", str(premise), premise.interval()))
    drawn = {"transformer_curvature": partial(_curvature, config, data), "layers": partial(_layers, config, data)}
    return Report([*rows, *_layer_rows(data)], _sentences(data), drawn)


def layer_estimates(data: xr.Dataset, operator: str, field: str, state: str) -> dict[str, Interval]:
    """One column of the table of layers, over seeds."""
    column = data.block.sel(operator=operator, field=field, state=state).transpose("layer", "seed")
    return {str(k): mean_interval(column.sel(layer=k).values) for k in data.layer.values}


def _layer_rows(data: xr.Dataset) -> list[Row]:
    rows = []
    for k in data.layer.values:
        alpha = mean_interval(data.alpha_measured.sel(state="initial", layer=k).values)
        stated = float(data.alpha_set.sel(state="initial", layer=k).mean())
        rows.append(Row(f"V2   α = √r/σ_A of {k}, σ_A measured in A", f"{stated:.4g}", str(alpha), alpha.interval()))
    columns = [layer_estimates(data, operator, field, "initial") for operator, field, _ in COLUMNS]
    for k in data.layer.values:
        line = [column[str(k)] for column in columns]
        name = f"     {k}, initial: {', '.join(name for *_, name in COLUMNS)}"
        rows.append(Row(name, "–", ", ".join(map(str, line)), ", ".join(e.interval() for e in line)))
    return rows


COLUMNS = (
    ("task", "norm_share", "share of ‖H_ℓ‖²"),
    ("signal", "norm_share", "share of ‖H_Signal‖²"),
    ("signal", "largest", "λmax[H_Signal]"),
    ("drift", "largest", "λmax[H_Drift]"),
)
"""What the table shows of each layer: operator, field, name."""


def _sentences(data: xr.Dataset) -> list[str]:
    seeds, trace = data.sizes["seed"], data.block.sel(operator="task", field="trace").sum("layer")
    below, lost = ([int((x.sel(state=state) < 0).sum()) for state in STATES] for x in (data.task_min, trace))
    within = float(data.block.sel(operator="task", field="norm_share", state="initial").sum("layer").mean())
    share = layer_estimates(data, "signal", "norm_share", "initial")
    top = max(share, key=lambda k: share[k].mean)
    return [
        f"P2-premise on the transformer: H_ℓ has a negative eigenvalue at {below[0]} of {seeds} seeds before and at "
        f"{below[1]} after training, and a negative trace at {lost[0]} and {lost[1]}.",
        f"At initialisation the layers' own blocks carry {within:.0%} of ‖H_ℓ‖_F², the blocks between layers the rest; "
        f"the largest share of ‖H_Signal‖_F² is that of {top}, {share[top].mean:.0%}.",
    ]


def _curvature(config: Config, data: xr.Dataset) -> plotting.Figure:
    sizes = f"{config.draws} draws of A per rank, {config.seeds} seeds"
    figure, (left, middle, right) = plotting.panels(3, f"P3, P2-premise  Transformer: {sizes}")
    ranks, blue, z = np.array(config.ranks), plotting.COLOR["signal"], z_scores(data)
    means = data.draws.mean("draw").transpose("seed", "rank")
    error = data.deviation.transpose("seed", "rank").values / np.sqrt(config.draws)
    for i, seed in enumerate(data.seed.values):
        label = None if i else "r · mean of draws ± 2σ (X2)"
        values = ranks * means.sel(seed=seed)
        left.errorbar(ranks, values, 2 * ranks * error[i], fmt="o", mfc="white", color=blue, label=label)
        left.plot(ranks, ranks * data.predicted.sel(seed=seed), "--", color=plotting.COLOR["prediction"])
    left.plot(
        [], [], "--", color=plotting.COLOR["prediction"], label=r"prediction $\sum_l\sigma_l^2\,\mathrm{Tr}\,M_l$"
    )
    left.set_xscale("log", base=2)
    left.set(xlabel="rank r", ylabel=r"$r\,\mathrm{Tr}\,H_{Signal}$", title="(a) each seed, α = 1")
    limit = largest_normal(z.size)
    middle.axhspan(-limit, limit, color=plotting.COLOR["band"], alpha=0.25, label=f"95% of the largest of {z.size}")
    middle.axhline(0, color=plotting.COLOR["prediction"], ls="--", label="prediction")
    for seed, scores in enumerate(z):
        middle.plot(ranks * 1.05 ** (seed - config.seeds / 2), scores, "o", color=blue, alpha=0.7)
    middle.set_xscale("log", base=2)
    middle.set(xlabel="rank r", ylabel="(mean − prediction) / standard error", ylim=(-5, 5), title="(b) in units of X2")
    for x, state in enumerate(STATES):
        for name, color in (("task_max", "task"), ("task_min", "drift")):
            values = data[name].sel(state=state).values
            label = None if x else name.replace("task_", "λ")
            right.plot([x] * len(values), values, "o", color=plotting.COLOR[color], alpha=0.6, label=label)
    right.axhline(0, color=plotting.COLOR["prediction"], ls="--", label="premise of P2: λmin ≥ 0")
    right.set(xticks=[0, 1], xticklabels=STATES, xlim=(-0.5, 1.5))
    right.set(ylabel=r"eigenvalue of $H_\ell$", title="(c) ends of the spectrum")
    left.legend()
    middle.legend(loc="upper right")
    right.legend(loc="center")
    return figure


def _layers(config: Config, data: xr.Dataset) -> plotting.Figure:
    figure, axes = plotting.panels(
        4, f"Layers  α = {config.alpha:g}, r = {config.rank}, {config.seeds} seeds (dots)", 5.2, 4.4
    )
    names, y = [str(k) for k in data.layer.values], np.arange(data.sizes["layer"])
    for panel, (operator, field, name) in zip(axes, COLUMNS, strict=True):
        for state, shift, mark in zip(STATES, (-0.15, 0.15), ("o", "s"), strict=True):
            values = data.block.sel(operator=operator, field=field, state=state).transpose("layer", "seed").values
            style = {"color": plotting.COLOR[operator], "mfc": "white" if state == "trained" else None}
            panel.plot(values, y + shift, mark, ms=3, alpha=0.5, **style)
            panel.plot(values.mean(1), y + shift, mark, ms=8, label=state, **style)
        panel.set(yticks=y, ylim=(len(y) - 0.5, -0.5), title=name)
        panel.set_yticklabels(names if panel is axes[0] else [])
        if field == "largest":
            panel.set_xscale("log")
        else:
            panel.set_xlim(left=0)
        panel.legend()
    return figure


EXPERIMENT = Experiment(
    name="transformer_curvature",
    title="P3-trace, P2-premise and every layer's own curvature on a transformer.",
    paper=Config(),
    quick=replace(Config(), **TINY, ranks=(1, 2, 8), draws=50, steps=10),
    points=points,
    measure=measure,
    report=report,
)

if __name__ == "__main__":
    main(EXPERIMENT)
