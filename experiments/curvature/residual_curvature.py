"""Take P2-premise apart: H_ℓ = G + R, the Gauss–Newton matrix and the residual term, and what is negative in each.

G = J_fᵀ(∇²c)J_f is positive semi-definite for a criterion convex in the outputs, as all here are (X6);
R = Σ_k (∂c/∂f_k) ∇²f_k weighs the curvature of the model with the residuals of the fit. By Weyl λmin[H_ℓ] ≥ λmin[R]:
all negative curvature is R's, and G hides a part.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import xarray as xr

import signal_drift as sd
from experiments.analysis.ends import PLAIN, STATES, SYMBOL, certified, lowest_over_highest
from experiments.analysis.intervals import Estimate, mean_of
from experiments.curvature.states import adapters_at
from experiments.lab.experiment import Experiment, Point, Report, Row, dense_only
from experiments.lab.problem import Setting
from signal_drift import plotting

LABEL = {"task": PLAIN["task"], "signal": PLAIN["signal"], "G": "G", "G_signal": "JᵀGJ", "R": "R"}
"""H_ℓ and H_Signal, G in the place of either, and R = H_ℓ − G."""


@dataclass(frozen=True)
class Config(Setting):
    """Measure the spectra of H_ℓ, H_Signal and their parts at the start and after training with Adam."""

    alpha: float = 256.0
    """α; the largest of F2, stable and the deepest fit of the α-scaled runs."""
    learning_rate: float = 1e-4
    """η of Adam; the paper's η₀."""
    steps: int = 100
    """Training steps; the paper's number."""
    tolerance: float = 1e-6
    """Residual of an eigenvalue over ‖H‖ at which the search stops."""


def points(config: Config) -> list[Point]:
    return [{"seed": seed, "state": state} for seed in range(config.seeds) for state in STATES]


def measure(config: Config, seed: int, state: str) -> xr.Dataset:
    """Measure all eigenvalues of H_ℓ, the ends of the other four spectra, and the loss."""
    problem, s = config.problem, config.problem.scaling(config.alpha)
    base, loss = problem.draw(seed)
    theta = adapters_at(state, problem, seed, config.alpha, config.learning_rate, config.steps)
    parts, whole = sd.gauss_newton(loss, base, theta, s), sd.decompose(loss, base, theta, s)
    searched = {"signal": whole.signal, "G": parts.task, "G_signal": parts.signal, "R": parts.residual}
    spectrum = sd.eigenvalues(whole.task)
    return xr.Dataset(
        {
            "spectrum": ("task_index", spectrum),
            "task": ("end", spectrum[[0, -1]]),
            **{k: ("end", certified(op, "both", config.tolerance).values) for k, op in searched.items()},
            "loss": float(loss(sd.effective_weights(base, theta, s))),
        },
        coords={"end": ["min", "max"]},
    )


def signs(data: xr.Dataset, name: str, state: str) -> np.ndarray:
    """Return λmin/λmax of one of the matrices at every seed."""
    return lowest_over_highest(data[name].sel(state=state)).values


def negative_share(data: xr.Dataset, state: str) -> Estimate:
    """Compute Σ_{λ<0}|λ| / Σ|λ| of H_ℓ from all its eigenvalues."""
    spectrum = data.spectrum.sel(state=state)
    negative = (-spectrum).clip(min=0).sum("task_index") / abs(spectrum).sum("task_index")
    return mean_of(negative.values)


def surviving(data: xr.Dataset, state: str) -> Estimate:
    """Divide λmin[H_ℓ] by λmin[R]: what G leaves of the most negative curvature of R."""
    low = data.sel(state=state, end="min")
    return mean_of((low.task / low.R).values)


def residual_size(data: xr.Dataset, state: str) -> Estimate:
    """Compute ‖R‖₂/‖G‖₂."""
    here = data.sel(state=state)
    return mean_of((abs(here.R).max("end") / abs(here.G).max("end")).values)


def report(config: Config, data: xr.Dataset) -> Report:
    rows = []
    for state in STATES:
        for name, label in LABEL.items():
            stated = {"G": "≥ 0 (X6)", "G_signal": "≥ 0 (X6)", "R": "–"}.get(name, "≥ 0 (P2)")
            ratio = mean_of(signs(data, name, state))
            rows.append(Row(f"P2   λmin/λmax of {label}, {state}", stated, str(ratio), ratio.interval()))
        for name, estimate in (
            ("negative share of the sum of absolute eigenvalues of H_ℓ", negative_share(data, state)),
            ("λmin[H_ℓ]/λmin[R]", surviving(data, state)),
            ("‖R‖₂/‖G‖₂", residual_size(data, state)),
        ):
            rows.append(Row(f"P2   {name}, {state}", "–", str(estimate), estimate.interval()))
    sentences = [
        f"{state}: {negative_share(data, state).value:.1%} of the curvature of H_ℓ is negative; λmin/λmax of G is at "
        f"least {signs(data, 'G', state).min():.1e}, and of the most negative curvature of the residual "
        f"term R {surviving(data, state).value:.0%} survives in H_ℓ."
        for state in STATES
    ]
    return Report(rows, sentences, {"residual_curvature": partial(_figure, config, data)})


def _figure(config: Config, data: xr.Dataset) -> plotting.Figure:
    size = f"{config.problem.label}, r = {config.problem.rank}, α = {config.alpha:g}, {config.over_seeds}"
    figure, (left, right) = plotting.panels(2, rf"P2-premise  $H_\ell = G + R$: {size}", height=4.6, width=6.2)
    for state, color, mark, shift in zip(STATES, ("signal", "band"), "os", (-0.12, 0.12), strict=True):
        for k, spectrum in enumerate(data.spectrum.sel(state=state).transpose("seed", "task_index").values):
            style = {"color": plotting.COLOR[color], "alpha": 0.6, "marker": mark, "markevery": 0.08, "ms": 4}
            label = f"{state}: {np.mean(spectrum < 0):.0%} below 0 (seed 0)" if k == 0 else None
            plotting.draw_sorted(left, spectrum / spectrum[-1], label=label, **style)
        for x, name in enumerate(LABEL):
            y = signs(data, name, state)
            place = np.full(config.seeds, x + shift)
            right.plot(place, y, mark, color=plotting.COLOR[color], alpha=0.7, label=None if x else state)
    plotting.symlog(left, "y", 1e-9)
    for panel in (left, right):
        panel.axhline(0, color=plotting.COLOR["prediction"], ls="--", label="premise of P2: none below")
    left.set(xlabel="position, share of all eigenvalues", ylabel=r"$\lambda\,/\,\lambda_{max}$")
    left.set_title(r"(a) all eigenvalues of $H_\ell$, each seed")
    right.set(xticks=range(len(LABEL)), ylabel=r"$\lambda_{min}/\lambda_{max}$ of the same matrix")
    right.set_xticklabels([SYMBOL["task"], SYMBOL["signal"], "$G$", "$J^TGJ$", "$R$"])
    right.set_title("(b) most negative eigenvalue, each seed")
    for panel in (left, right):
        panel.legend(fontsize=9.5, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
    return figure


CAPTIONS = {
    "residual_curvature": (
        "All eigenvalues of H_ℓ before and after training, none of which the premise of P2 allows below 0 (a). "
        "The most negative eigenvalue of H_ℓ, of the Gauss–Newton matrix G, which X6 expects at 0, and of the "
        "residual term R = H_ℓ − G (b; up is less negative curvature)."
    ),
}


EXPERIMENT = Experiment(
    name="residual_curvature",
    title="P2-premise: the negative curvature of H_ℓ and H_Signal, and the residual term that it comes from.",
    configure=Config,
    points=points,
    measure=measure,
    report=report,
    tiny={"seeds": 2, "steps": 10},
    refuses=dense_only,
    captions=CAPTIONS,
)
