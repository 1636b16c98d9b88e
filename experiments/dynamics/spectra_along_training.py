"""Measure how near Adam trains to the edge of its own stability along the trajectories of F2, and what the drift adds.

Adam steps by −η P⁻¹m, m an average of gradients with β₁ and P = (1 − β₁ᵗ)(√v̂ + ε) after t steps. With P held, descent
with such an m on a quadratic of Hessian H is stable up to λmax[P^{-1/2} H P^{-1/2}] = 2(1 + β₁)/((1 − β₁)η), 38/η at
β₁ = 0.9 (Cohen et al., Adaptive Gradient Methods at the Edge of Stability, 2022, arXiv 2207.14484). Gradient descent's
2/η (L1) is not Adam's edge. A run is made once, in float64, and looked at on its way. Each η-scaled run is made again
with its drift removed at every step, from the same start: what is then at the edge is not there because of the drift.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jax import Array
from jax.tree_util import Partial

import signal_drift as sd
from experiments.analysis.ends import certified, lowest_over_highest
from experiments.dynamics.eta_against_alpha import run_label
from experiments.dynamics.known import mean_cells
from experiments.dynamics.trajectory_figures import run_styles
from experiments.lab.experiment import Experiment, Point, Report, Row
from experiments.lab.problem import Drawn, Setting
from signal_drift import plotting
from signal_drift.hessians.factored import composed_loss
from signal_drift.lora.adapters import Adapters

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8
"""β₁, β₂ and ε of Adam, optax's defaults."""
REMOVED = ", drift removed"
"""How the name of a run without drift ends."""
EDGE = 2 * (1 + BETA_1) / (1 - BETA_1)
"""Where momentum on the preconditioned quadratic becomes unstable, in units of 1/η."""


@dataclass(frozen=True)
class Config(Setting):
    """Follow η-scaled and α-scaled trajectories of F2."""

    learning_rate: float = 1e-4
    """η₀ of Adam."""
    eta_multipliers: tuple[float, ...] = (128.0,)
    """η/η₀ of the trajectories at α = 1; by default the largest of F2."""
    alpha_multipliers: tuple[float, ...] = (256.0,)
    """α of the trajectories at η₀; by default the largest of F2."""
    steps: int = 100
    """Training steps."""
    every: int = 2
    """Steps from one look at the preconditioned Hessian to the next."""
    looks: tuple[int, ...] = (0, 10, 30, 100)
    """Steps at which the ends of H_LoRA, H_Signal and H_Drift are found too; all but 0 are looked at anyway."""
    tolerance: float = 1e-3
    """Residual of the largest eigenvalue of the preconditioned Hessian over its norm at which the search stops."""
    fine_tolerance: float = 1e-4
    """Residual at which the search for the ends of H_LoRA and H_Signal stops; λmin may be a thousandth of λmax."""

    def runs(self) -> dict[str, tuple[float, float]]:
        """Return (η, α) of every trajectory."""
        eta = {run_label("η", m): (m * self.learning_rate, 1.0) for m in self.eta_multipliers}
        alpha = {run_label("α", m): (self.learning_rate, m) for m in self.alpha_multipliers}
        return eta | alpha | {f"{run}{REMOVED}": rates for run, rates in eta.items()}


class State(NamedTuple):
    """Hold a trajectory after t steps: θ, Adam's running mean v of squared gradients, and W₀ if it has moved."""

    theta: Any
    second: Any
    base: Any


def points(config: Config) -> list[Point]:
    return [{"seed": seed, "run": run} for seed in range(config.seeds) for run in config.runs()]


def measure(config: Config, seed: int, run: str) -> xr.Dataset:
    """Measure the loss at every step, sharpness as Adam sees it every few steps, and the Hessians' ends at a few."""
    problem, (eta, alpha) = config.problem, config.runs()[run]
    drawn, start, s = problem.draw(seed), problem.adapters(seed), problem.scaling(alpha)
    training = problem.training(seed, config.steps)
    removed = run.endswith(REMOVED)
    rates = s, eta, training.batches
    loss, states = _adam(training.loss, drawn.base, start, *rates, removed=removed, steps=config.steps)
    steps = list(range(config.every, config.steps + 1, config.every))

    def after(t: int) -> State:
        return jax.tree.map(lambda x: x[t - 1], states)

    def there(t: int) -> Drawn:
        return drawn._replace(base=after(t).base) if removed and t else drawn

    sharpness = [_preconditioned(config, there(t), after(t), s, t) for t in steps]
    ends = [_ends(config, there(t), after(t).theta if t else start, s) for t in config.looks]
    return xr.concat(ends, xr.IndexVariable("look", list(config.looks))).assign(
        loss=("time", np.asarray(loss)),
        preconditioned=("step", [found.values[0] for found in sharpness]),
        preconditioned_reach=("step", [found.residuals[0] + found.missed for found in sharpness]),
        step=steps,
        time=np.arange(config.steps + 1),
        eta=eta,
    )


@partial(jax.jit, static_argnames=("removed", "steps"))
def _adam(
    loss: Partial,
    base: dict[str, Array],
    start: Adapters,
    s: float,
    eta: float,
    batches: Any,
    *,
    removed: bool,
    steps: int,
) -> tuple[Array, State]:
    """Return the loss before every step and after the last, and the state after every step."""
    optimizer = optax.adam(eta, b1=BETA_1, b2=BETA_2, eps=EPSILON)

    def record(step: sd.Step) -> State:
        moved = None
        if step.base_delta is not None:
            moved = {k: step.weights[k] - s * (B @ A) + step.base_delta[k] for k, (A, B) in step.theta.items()}
        return State(step.after, optax.tree.get(step.state, "nu"), moved)

    drift = 0.0 if removed else 1.0
    run = sd.train(loss, base, start, s, optimizer, steps, batches, drift=drift, record=record)
    return run.loss, run.recorded


def preconditioned(drawn: Drawn, state: State, s: float, t: int) -> sd.SymmetricOperator:
    """Return P^{-1/2} H_LoRA P^{-1/2} after t steps as the Hessian of φ ↦ ℓ(w(θ + P^{-1/2}φ)) at φ = 0."""
    bias_1, bias_2 = 1 - BETA_1**t, 1 - BETA_2**t
    shrink = jax.tree.map(lambda v: (bias_1 * (jnp.sqrt(v / bias_2) + EPSILON)) ** -0.5, state.second)
    rescaled = Partial(_rescaled, drawn.loss, drawn.base, state.theta, jnp.asarray(s), shrink)
    zero = {
        f"{layer}.{side}": jnp.zeros_like(x)
        for layer, pair in state.theta.items()
        for side, x in pair._asdict().items()
    }
    return sd.decompose(rescaled, zero, sd.init_adapters(jax.random.key(0), zero, 1), 1.0).task


def _rescaled(
    loss: Partial, base: dict[str, Array], theta: Adapters, s: Array, shrink: Any, phi: dict[str, Array]
) -> Array:
    moved = {
        layer: sd.Adapter(A + shrink[layer].A * phi[f"{layer}.A"], B + shrink[layer].B * phi[f"{layer}.B"])
        for layer, (A, B) in theta.items()
    }
    return composed_loss(loss, base, moved, dict.fromkeys(base, s))


def _preconditioned(config: Config, drawn: Drawn, state: State, s: float, t: int) -> sd.ExtremeEigenvalues:
    return certified(preconditioned(drawn, state, s, t), tolerance=config.tolerance)


def _ends(config: Config, drawn: Drawn, theta: Adapters, s: float) -> xr.Dataset:
    """Find (λmin, λmax) of H_LoRA and λmax of H_Signal; ‖H_Drift‖₂ is s·max σ(G) (X1)."""
    parts = sd.decompose(drawn.loss, drawn.base, theta, s)
    lora = certified(parts.lora, "both", config.fine_tolerance)
    signal = certified(parts.signal, tolerance=config.fine_tolerance)
    gradient = jax.jit(jax.grad(drawn.loss))(sd.effective_weights(drawn.base, theta, s))
    return xr.Dataset(
        {
            "lora": ("end", lora.values),
            "lora_reach": ("end", lora.residuals + lora.missed),
            "signal": signal.values[0],
            "drift": s * max(float(np.linalg.norm(np.asarray(G), 2)) for G in gradient.values()),
        },
        coords={"end": ["min", "max"]},
    )


def over_edge(data: xr.Dataset) -> xr.DataArray:
    """Return η·λmax[P^{-1/2} H_LoRA P^{-1/2}]/38: 1 at Adam's edge, above it the quadratic model is unstable."""
    return data.eta * data.preconditioned / EDGE


def late(values: xr.DataArray) -> xr.DataArray:
    """Return what belongs to the second half of the steps."""
    return values.isel(step=slice(values.sizes["step"] // 2, None))


def negative_share(data: xr.Dataset) -> xr.DataArray:
    """Return λmin/λmax of H_LoRA."""
    return lowest_over_highest(data.lora)


def drift_share(data: xr.Dataset) -> xr.DataArray:
    """Return ‖H_Drift‖₂/λmax[H_Signal]: how far an eigenvalue of H_LoRA may be from one of H_Signal (Weyl)."""
    return data.drift / data.signal


AT_LOOKS = {"λmin/λmax of H_LoRA": negative_share, "‖H_Drift‖₂/λmax[H_Signal]": drift_share}
"""What is reported of a few steps."""


def report(config: Config, data: xr.Dataset) -> Report:
    rows = [row for run in config.runs() for row in _edge_rows(run, over_edge(data).sel(run=run))]
    rows += [
        Row(f"L1   {name}, {run}, step {step}", "–", *mean_cells(quantity(data).sel(run=run, look=step)))
        for name, quantity in AT_LOOKS.items()
        for run in config.runs()
        for step in config.looks
    ]
    drawn = {
        "spectra_along_training": partial(_edge_figure, config, data),
        "drift_along_training": partial(_looks_figure, config, data),
    }
    return Report([*rows, *_certificate_rows(config, data)], _sentences(config, data), drawn)


def _edge_rows(run: str, nearness: xr.DataArray) -> list[Row]:
    """Say how near to Adam's edge a run is in its second half, and at how many of all steps it is beyond."""
    beyond = (nearness > 1).where(nearness.notnull()).mean("step").dropna("seed")
    share = f"{float(beyond.min()):.0%} to {float(beyond.max()):.0%}" if beyond.size else "unknown"
    name = "η·λmax[preconditioned H_LoRA]/38"
    return [
        Row(f"L1   {name}, {run}, second half", "1 at Adam's edge", *mean_cells(late(nearness).mean("step"))),
        Row(f"L1   share of steps with {name} > 1, {run}, range over seeds", "–", share, "–"),
    ]


def _certificate_rows(config: Config, data: xr.Dataset) -> list[Row]:
    """Say how far the numbers can be trusted: eigenvalues without a certificate are left out, and counted."""
    reach = {
        "the preconditioned H_LoRA": data.preconditioned_reach / data.preconditioned,
        "H_LoRA": data.lora_reach.max("end") / data.lora.sel(end="max"),
    }
    found = data.preconditioned.notnull(), data.lora.sel(end="min").notnull(), data.signal.notnull()
    return [
        *(
            Row(f"     bound on the error of λmax of {name}, relative, largest", "–", f"{float(x.max()):.1e}", "–")
            for name, x in reach.items()
        ),
        Row(
            "     eigenvalues that are certified",
            f"{sum(x.size for x in found)}",
            f"{sum(int(x.sum()) for x in found)}",
            "–",
        ),
    ]


def _sentences(config: Config, data: xr.Dataset) -> list[str]:
    nearness, share = over_edge(data), negative_share(data)
    told = [
        f"{run}: in the second half of training λmax of the preconditioned Hessian is {float(here.min()):.3g} to "
        f"{float(here.max()):.3g} of Adam's edge 38/η, {float(here.mean()):.3g} on average."
        for run in config.runs()
        for here in [late(nearness.sel(run=run))]
        if here.notnull().any()
    ]
    last = share.isel(look=-1)
    return [
        *told,
        f"H_LoRA has a negative eigenvalue at {int((share < 0).sum())} of {int(share.notnull().sum())} points that are "
        f"certified (X13), at step {int(last.look)} no further down than {-float(last.min()):.2g} of λmax.",
    ]


def _edge_figure(config: Config, data: xr.Dataset) -> plotting.Figure:
    """Draw how near every run is to Adam's edge, at every step looked at."""
    sizes = f"{config.problem.label}, r = {config.problem.rank}, {config.over_seeds}"
    figure, (panel,) = plotting.panels(1, f"Adam's edge of stability: {sizes}", height=5.0, width=9.0)
    for run, style in _styles(config).items():
        y = over_edge(data).sel(run=run).transpose("step", "seed")
        panel.fill_between(data.step, y.min("seed"), y.max("seed"), color=style["color"], alpha=0.2, lw=0)
        panel.plot(data.step, y.median("seed"), label=run, markevery=5, **style)
    panel.axhline(1, ls="--", color=plotting.COLOR["prediction"], label="Adam's edge, 38/η")
    name = r"$\eta\,\lambda_{max}[P^{-1/2} H_{LoRA} P^{-1/2}]\,/\,38$"
    panel.set(xlabel="step", ylabel=name, yscale="log", title="below the line: stable; above: oscillations grow")
    figure.legend(*panel.get_legend_handles_labels(), loc="outside right center")
    return figure


def _looks_figure(config: Config, data: xr.Dataset) -> plotting.Figure:
    """Draw negative curvature, and the drift's share of curvature, at a few steps."""
    sizes = f"{config.problem.label}, r = {config.problem.rank}, {config.over_seeds}"
    figure, axes = plotting.panels(2, f"What the drift adds to curvature: {sizes}", height=4.8, width=5.6)
    names = (r"$\lambda_{min}\,/\,\lambda_{max}$ of $H_{LoRA}$", r"$\|H_{Drift}\|_2\,/\,\lambda_{max}[H_{Signal}]$")
    titles = "(a) negative curvature; 0: none", "(b) the drift's share; lower: purer"
    for panel, quantity, name, title in zip(axes, AT_LOOKS.values(), names, titles, strict=True):
        for run, style in _styles(config).items():
            y = quantity(data).sel(run=run).transpose("look", "seed")
            panel.plot(data.look, y.median("seed"), label=run, **style)
            panel.plot(data.look, y, style["marker"], color=style["color"], alpha=0.4, ms=4)
        panel.set(xlabel="step", ylabel=name, title=title)
    axes[0].axhline(0, ls="--", color=plotting.COLOR["prediction"], label="positive semi-definite")
    axes[1].set_yscale("log")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure


def _styles(config: Config) -> dict[str, dict[str, Any]]:
    """Choose how runs are drawn: those of F2 as there, those without drift dotted, in the colour of those with it."""
    names = [run_label("η", m) for m in config.eta_multipliers], [run_label("α", m) for m in config.alpha_multipliers]
    styles = run_styles(*names)
    return styles | {f"{run}{REMOVED}": {**styles[run], "ls": ":", "marker": "D"} for run in names[0]}


CAPTIONS = {
    "spectra_along_training": (
        "λmax of the Hessian as Adam's preconditioner sees it, over Adam's edge 2(1 + β₁)/((1 − β₁)η) (Cohen et "
        "al. 2022), median and range over seeds: L1 expects oscillations where a run reaches the line, and lower "
        "is more stable. Dotted: the same run with its drift removed at every step."
    ),
    "drift_along_training": (
        "Negative curvature of H_LoRA (left) and the size of H_Drift beside H_Signal (right) at a few steps: the "
        "paper expects α to make both vanish; nearer to 0 is purer."
    ),
}
"""What to see in each figure, what is expected, and which side is better."""

EXPERIMENT = Experiment(
    name="spectra_along_training",
    title="Along the trajectories of F2: sharpness against Adam's edge of stability, negative curvature and drift.",
    configure=lambda problem: Config(problem.resized(256)),
    points=points,
    measure=measure,
    report=report,
    tiny={"seeds": 2, "eta_multipliers": (64.0,), "alpha_multipliers": (256.0,), "steps": 6, "looks": (0, 6)},
    captions=CAPTIONS,
)
