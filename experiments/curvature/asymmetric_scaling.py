"""Measure F8d: λmax[H_Signal] = Θ(α²), |λmin[H_Drift]| = Θ(α), λmax[H_LoRA] / λmax[H_Signal] → 1 (Eq. 6, 7).

At initialisation, where the weights do not depend on α, and after training, where g and H_ℓ have moved with it.
"""

from dataclasses import dataclass
from functools import partial

import jax
import xarray as xr

import signal_drift as sd
from experiments.analysis.ends import STATES, certified
from experiments.analysis.intervals import Estimate, exponents, geometric_mean_of, mean_of
from experiments.lab.experiment import Experiment, Point, Report, Row, dense_only
from experiments.lab.problem import Drawn, Setting
from experiments.problems.adam_run import adam_run
from signal_drift import plotting
from signal_drift.lora.adapters import Adapters
from signal_drift.propositions import closed_forms

QUANTITIES = {"signal_max": 2, "drift_min": 1, "lora_max": None}
"""The quantities that are fitted, with the exponent of α that the paper states for each."""
PLAIN = {"signal_max": "λmax[H_Signal]", "drift_min": "−λmin[H_Drift]", "lora_max": "λmax[H_LoRA]"}
LABEL = {
    "signal_max": r"$\lambda_{max}[H_{Signal}]$",
    "drift_min": r"$|\lambda_{min}[H_{Drift}]|$",
    "lora_max": r"$\lambda_{max}[H_{LoRA}]$",
}


STYLE = {
    "lora_max": {"marker": "o", "ms": 10, "mfc": "none", "mew": 1.6, "ls": "-", "lw": 5, "alpha": 0.5},
    "signal_max": {"marker": "x", "ms": 7, "mew": 1.6, "ls": (0, (4, 3))},
    "drift_min": {"marker": "s", "ms": 5, "ls": "-"},
}
"""How each is drawn, in this order: λmax of H_LoRA is a wide line with rings, under that of H_Signal."""


@dataclass(frozen=True)
class Config(Setting):
    """Measure extreme eigenvalues over α, before and after training with Adam at each α."""

    alphas: tuple[float, ...] = tuple(2.0**k for k in range(9))
    """Values of α."""
    learning_rate: float = 1e-4
    """η of Adam; the paper's η₀."""
    steps: int = 100
    """Training steps; the paper's number."""


def points(config: Config) -> list[Point]:
    return [{"seed": seed, "alpha": alpha} for seed in range(config.seeds) for alpha in config.alphas]


def measure(config: Config, seed: int, alpha: float) -> xr.Dataset:
    """Measure the extremes of the three operators at the initial and at the trained adapters of one α."""
    problem, s = config.problem, config.problem.scaling(alpha)
    drawn, start = problem.draw(seed), problem.adapters(seed)
    run = adam_run(problem, seed, start, s, config.learning_rate, config.steps)
    states = [_extremes(drawn, theta, s) for theta in (start, run.trained)]
    return xr.concat(states, xr.IndexVariable("state", list(STATES))).assign(
        final_loss=float(run.loss[-1] / run.loss[0])
    )


def _extremes(drawn: Drawn, theta: Adapters, s: float) -> xr.Dataset:
    parts = sd.decompose(drawn.loss, drawn.base, theta, s)
    signal, lora = certified(parts.signal), certified(parts.lora)
    drift = certified(parts.drift, which="smallest")
    gradient = jax.grad(drawn.loss)(sd.effective_weights(drawn.base, theta, s))
    return xr.Dataset(
        {
            "signal_max": signal.values[0],
            "drift_min": -drift.values[0],
            "lora_max": lora.values[0],
            "residual": max(part.residuals[0] / abs(part.values[0]) for part in (signal, drift, lora)),
            "drift_closed": -closed_forms.drift_eigenvalues(gradient, theta, s)[0],
        }
    )


def fitted(data: xr.Dataset, name: str, state: str) -> Estimate:
    """Fit the exponent of α: least squares in log–log per seed, then the mean over seeds."""
    return mean_of(exponents(data.alpha.values, data[name].sel(state=state).transpose("seed", "alpha").values))


def report(config: Config, data: xr.Dataset) -> Report:
    rows = _exponent_rows(config.alphas, data)
    closed = float(abs(data.drift_min / data.drift_closed - 1).max())
    residual = f"{float(data.residual.max()):.1e}"
    rows += [
        Row("X1   λmin[H_Drift] against −s·max σ(G), largest relative error", "rounding", f"{closed:.1e}", "–"),
        Row("     residual of the extreme eigenvalues / value, largest", "rounding", residual, "–"),
    ]
    return Report(rows, _sentences(data), {"asymmetric_scaling": partial(_figure, config, data)})


def _exponent_rows(alphas: tuple[float, ...], data: xr.Dataset) -> list[Row]:
    """The exponents of α in each quantity and the ratio at the largest α, in both states."""
    rows = []
    for state in STATES:
        for name, predicted in QUANTITIES.items():
            slope = fitted(data, name, state)
            stated = str(predicted) if predicted else "–"
            rows.append(Row(f"F8d  exponent of {PLAIN[name]} in α, {state}", stated, str(slope), slope.interval()))
        last = data.sel(state=state).isel(alpha=-1)
        ratio = geometric_mean_of((last.lora_max / last.signal_max).values)
        name = f"F8d  λmax[H_LoRA] / λmax[H_Signal] at α = {alphas[-1]:g}, {state}"
        rows.append(Row(name, "→ 1", str(ratio), ratio.interval()))
    return rows


def _sentences(data: xr.Dataset) -> list[str]:
    """Which of the stated exponents the 95% intervals contain, before and after training."""
    verdicts = []
    for state in STATES:
        inside = {PLAIN[k]: _contains(fitted(data, k, state), e) for k, e in QUANTITIES.items() if e}
        verdicts.append(f"{state}: " + ", ".join(f"{k} {'yes' if v else 'no'}" for k, v in inside.items()))
    return [f"Does the fitted interval contain the exponent stated by Eq. 6–7? {'; '.join(verdicts)}."]


def _contains(fit: Estimate, value: float) -> bool:
    """To rounding: at B = 0 the exponents are exact and the interval has no width."""
    _, low, high = fit.at()
    return low - 1e-9 <= value <= high + 1e-9


def _figure(config: Config, data: xr.Dataset) -> plotting.Figure:
    """The powers of α in both states, and how near the largest eigenvalues come to each other."""
    sizes = f"{config.problem.label}, r = {config.problem.rank}, {config.over_seeds} (means, and ranges as bands)"
    figure, axes = plotting.panels(3, f"F8d  Asymmetric scaling: {sizes}", height=4.8)
    titles = ("(a) at initialisation, B = 0", f"(b) after {config.steps} steps of Adam, η = {config.learning_rate:g}")
    for panel, state, when in zip(axes, STATES, titles, strict=False):
        _draw_powers(panel, data.sel(state=state).transpose("alpha", "seed"))
        panel.set_title(when)
    axes[0].sharey(axes[1])
    for state, color, mark in zip(STATES, ("signal", "band"), "os", strict=True):
        ratio = (data.lora_max / data.signal_max).sel(state=state).transpose("alpha", "seed")
        axes[2].plot(data.alpha, ratio, mark, color=plotting.COLOR[color], alpha=0.4)
        axes[2].plot(data.alpha, ratio.mean("seed"), mark + "-", mfc="white", color=plotting.COLOR[color], label=state)
    axes[2].axhline(1, color=plotting.COLOR["prediction"], ls="--", label="paper: tends to 1")
    plotting.log_axis(axes[2], "α", f"{LABEL['lora_max']} / {LABEL['signal_max']}")
    axes[2].set_title("(c) ratio of the largest eigenvalues")
    axes[2].legend()
    return figure


def _draw_powers(panel: plotting.Axes, data: xr.Dataset) -> None:
    """Measured eigenvalues, and dotted the stated power of α through the first point's mean."""
    alpha = data.alpha.values
    for name, style in STYLE.items():
        color, exponent = plotting.COLOR[name.split("_", maxsplit=1)[0]], QUANTITIES[name]
        values = data[name].values
        slope = mean_of(exponents(alpha, values.T))
        panel.fill_between(alpha, values.min(1), values.max(1), color=color, alpha=0.15, lw=0)
        panel.plot(alpha, values.mean(1), color=color, label=f"{LABEL[name]}, slope {slope.value:.2f}", **style)
        if exponent:
            law = values[0].mean() * (alpha / alpha[0]) ** exponent
            label = "paper: slopes 2 and 1" if exponent == 1 else None
            panel.plot(alpha, law, ":", color=plotting.COLOR["prediction"], lw=2.4, label=label)
    plotting.log_axis(panel, "α", "absolute value of the eigenvalue")
    panel.legend(fontsize=9.5)


CAPTIONS = {
    "asymmetric_scaling": (
        "The largest eigenvalue of H_Signal and the most negative of H_Drift over α, with the powers 2 and 1 that "
        "the paper states, at B = 0 (a) and after training (b); λmax of H_LoRA over that of H_Signal, which the "
        "paper expects to near 1 (c; nearer to 1 is less drift in it)."
    ),
}


EXPERIMENT = Experiment(
    name="asymmetric_scaling",
    title="F8d: extreme eigenvalues of signal, drift and LoRA Hessian over α, before and after training.",
    configure=Config,
    points=points,
    measure=measure,
    report=report,
    tiny={"seeds": 2, "alphas": (1.0, 16.0, 256.0), "steps": 10},
    refuses=dense_only,
    captions=CAPTIONS,
)
