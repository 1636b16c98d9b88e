"""Measure L1: gradient descent is stable iff η ≤ 2/λ_max(H) (Eq. 41–42), on a quadratic and on the LoRA loss.

A quadratic with curvature λ multiplies that error by 1 − ηλ at every step. The LoRA loss at initialisation is no such
thing: the gradient is not zero, the Hessian moves with θ, and H_LoRA, whose A-block is zero at B = 0 while its coupling
H_Drift is not, has negative eigenvalues, along which the linearised iteration grows at every η. L1 is read there as a
statement about λ_max alone, and "unstable" has the three meanings of `unstable`:

- first: the first step raises the loss. To second order this begins at η = 2‖∇‖²/∇ᵀH∇, which is at least 2/λ_max.
- climbs: some step raises the loss; below 2/λ_max of a fixed Hessian none can.
- exceeds: the loss passes its initial value or is no longer finite, the plain meaning of instability.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jax import Array
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial

import signal_drift as sd
from experiments.analysis.divergence import CRITERIA, critical_rate, unstable
from experiments.analysis.ends import certified
from experiments.analysis.intervals import exponents, geometric_mean_of
from experiments.dynamics.known import known, mean_cells
from experiments.lab.experiment import Experiment, Point, Report, Row
from experiments.lab.problem import Drawn, Problem, Setting
from signal_drift import plotting
from signal_drift.lora.adapters import Adapters
from signal_drift.propositions import closed_forms

QUADRATIC_HALVINGS = 24
"""Enough that the bracket is narrower than the interval proved for the quadratic."""


WORDS = {
    "first": "the first step raises the loss",
    "climbs": "some step raises the loss",
    "exceeds": "the loss passes its start",
}
"""The meanings of "unstable" for tables and figures."""


@dataclass(frozen=True)
class Config(Setting):
    """Find the critical learning rates of full fine-tuning, of LoRA over α, and of a quadratic."""

    alphas: tuple[float, ...] = (1.0, 4.0, 16.0, 64.0, 256.0)
    """Values of α."""
    steps: int = 100
    """Steps of gradient descent that have to be survived."""
    halvings: int = 10
    """Bisections of the logarithm of the bracket."""
    bracket: tuple[float, float] = (1 / 256, 4096.0)
    """Ends of the bracket, in units of 2/λ_max."""
    size: int = 64
    """Unknowns of the quadratic; its eigenvalues are 1/i."""
    quadratic_steps: int = 1000
    """Steps of gradient descent on the quadratic."""
    tolerance: float = 1e-8
    """Residual of an eigenvalue over ‖H‖ at which its search stops: far below what the bisection resolves."""


def points(config: Config) -> list[Point]:
    return [{"seed": seed} for seed in range(config.seeds)]


def measure(config: Config, seed: int) -> xr.Dataset:
    """Measure critical rates by the three criteria, on a fixed sample, and the eigenvalues they are compared to."""
    drawn, start = config.problem.draw(seed), config.problem.adapters(seed)
    lora = [_lora(config, drawn, start, config.problem.scaling(alpha)) for alpha in config.alphas]
    task = certified(sd.decompose(drawn.loss, drawn.base, start, 1.0).task, "both", config.tolerance).values
    quadratic, bound = _quadratic(config, jax.random.fold_in(jax.random.key(seed), 6))
    return xr.concat(lora, xr.IndexVariable("alpha", list(config.alphas))).assign(
        task=task[-1],
        task_lowest=task[0],
        full=("criterion", _critical(config, drawn, None, 1.0, 2 / task[-1])),
        quadratic=quadratic,
        quadratic_bound=bound,
    )


def _lora(config: Config, drawn: Drawn, start: Adapters, s: float) -> xr.Dataset:
    parts = sd.decompose(drawn.loss, drawn.base, start, s)
    ends = certified(parts.lora, "both", config.tolerance)
    lowest, largest = (float(value) for value in ends.values)
    gradient = _gradient(drawn, start, s)
    return xr.Dataset(
        {
            "signal": certified(parts.signal, tolerance=config.tolerance).values[0],
            "lora": largest,
            "lowest": lowest,
            "residual": ends.residuals[-1] / largest,
            "rayleigh": float(gradient @ (parts.lora @ gradient) / (gradient @ gradient)),
            "measured": ("criterion", _critical(config, drawn, start, s, 2 / largest)),
        },
        coords={"criterion": list(CRITERIA)},
    )


@jax.jit
def _gradient(drawn: Drawn, start: Adapters, s: float) -> Array:
    return ravel_pytree(jax.grad(lambda theta: drawn.loss(sd.effective_weights(drawn.base, theta, s)))(start))[0]


def _critical(config: Config, drawn: Drawn, start: Adapters | None, s: float, unit: float) -> list[float]:
    """Find the critical rate by every criterion, bracketed in units of 2/λ_max."""
    low, high = (unit * end for end in config.bracket)

    def rate(criterion: str) -> float:
        def is_unstable(eta: float) -> bool:
            steps = 1 if criterion == "first" else config.steps
            return unstable(criterion, np.asarray(_descend(drawn.loss, drawn.base, start, s, eta, steps).loss))

        return critical_rate(is_unstable, low, high, config.halvings)

    return [rate(criterion) for criterion in CRITERIA]


@partial(jax.jit, static_argnames="steps")
def _descend(loss: Partial, base: dict[str, Array], start: Adapters | None, s: float, eta: float, steps: int) -> sd.Run:
    return sd.train(loss, base, start, s, optax.sgd(eta), steps)


def _quadratic(config: Config, key: Array) -> tuple[float, float]:
    """Find (critical η · λ_max/2, its upper bound) on ½⟨w, Hw⟩, λ_i = 1/i, unstable where the gradient has grown.

    The gradient grows at the latest when the part of it along the top eigenvector does, by a factor |1 − ηλ|^T
    that has to make up for its share of ‖∇‖: so η λ/2 is between 1 and (1 + (‖∇‖/top)^(1/T))/2.
    """
    n, steps = config.size, config.quadratic_steps
    Q = jax.random.orthogonal(jax.random.fold_in(key, 0), n, dtype=jnp.float64)
    w = jax.random.normal(jax.random.fold_in(key, 1), (1, n), jnp.float64)
    eigenvalues = 1 / jnp.arange(1.0, n + 1)
    loss = Partial(_half_square, (Q * eigenvalues) @ Q.T)

    def grown(eta: float) -> bool:
        norm = _descend(loss, {"w": w}, None, 1.0, eta, steps + 1).gradient_norm
        return not norm[-1] <= norm[0]

    rate = critical_rate(grown, 2 * config.bracket[0], 2 * config.bracket[1], QUADRATIC_HALVINGS)
    gradient = (w @ Q * eigenvalues)[0]
    bound = (1 + (jnp.linalg.norm(gradient) / jnp.abs(gradient[0])) ** (1 / steps)) / 2
    return rate / 2, float(bound)


def _half_square(H: Array, w: dict[str, Array]) -> Array:
    """Return ½⟨w, Hw⟩."""
    return jnp.vdot(w["w"], w["w"] @ H) / 2


def report(config: Config, data: xr.Dataset) -> Report:
    rows = [
        _row("critical η · λmax/2 on a quadratic", f"1 to {float(data.quadratic_bound.max()):.4f}", data.quadratic),
        *(
            _row(
                f"critical η · λmax/2, full fine-tuning, {WORDS[c]}",
                "1",
                (data.full * data.task / 2).sel(criterion=c),
            )
            for c in CRITERIA
        ),
        *(row for alpha in config.alphas for row in _lora_rows(alpha, data.sel(alpha=alpha))),
        *(_exponent_row(config, data, c) for c in CRITERIA),
    ]
    return Report(rows, _sentences(data), {"stability": partial(_figure, config, data)})


def _exponent_row(config: Config, data: xr.Dataset, criterion: str) -> Row:
    """Fit the exponent of α in the critical rate, beside that of 2/λmax[H_Signal]."""
    stated, measured = (
        mean_cells(exponents(np.array(config.alphas), y.transpose("seed", "alpha").values))
        for y in (2 / data.signal, data.measured.sel(criterion=criterion))
    )
    return Row(f"L1   exponent of α in the critical η, {WORDS[criterion]}", f"{stated[0]} (H_Signal)", *measured)


def _lora_rows(alpha: float, data: xr.Dataset) -> list[Row]:
    """Compare the critical rates at one α with L1, the curvature along the first step, and full fine-tuning."""
    here, ratio = f"LoRA at α = {alpha:g}", data.measured * data.lora / 2
    first = data.measured.sel(criterion="first") * data.rayleigh / 2
    tolerated = (data.measured / data.full).sel(criterion="exceeds")
    expected = mean_cells(data.task / data.lora, geometric_mean_of)[0]
    return [
        *(_row(f"critical η · λmax/2, {here}, {WORDS[c]}", "1", ratio.sel(criterion=c)) for c in CRITERIA),
        _row(f"critical η of the first step · ∇ᵀH∇/(2‖∇‖²), {here}", "1 to 2nd order", first),
        _row(f"critical η over that of full fine-tuning, {here}, {WORDS['exceeds']}", expected, tolerated),
    ]


def _row(name: str, stated: str, values: xr.DataArray) -> Row:
    """Write the mean over seeds; those without a certified λmax, or with a rate outside the bracket, are counted."""
    count = len(known(values))
    less = f" ({count} of {values.size} seeds known)" if count < values.size else ""
    return Row(f"L1   {name}{less}", stated, *mean_cells(values, geometric_mean_of))


def _sentences(data: xr.Dataset) -> list[str]:
    uncertified = sum(int(x.isnull().sum()) for x in (data.lora, data.signal, data.task))
    missed = int(
        (data.measured.isnull() & data.lora.notnull()).sum() + (data.full.isnull() & data.task.notnull()).sum()
    )
    lora, task = data.lowest / data.lora, data.task_lowest / data.task
    return [
        *(line for c in CRITERIA for line in _between(c, (data.measured * data.lora / 2).sel(criterion=c))),
        "The 'iff' of L1 needs H ⪰ 0: along a negative eigenvalue the linearised iteration grows at every η. At B = 0 "
        f"H_LoRA never is (X13): its λmin/λmax is {_span(lora)}; nor is H_ℓ here: {_span(task)}. What is measured at "
        "initialisation is the part of L1 on λmax.",
        f"The bracket missed the critical rate at {missed} points; {uncertified} eigenvalues are without a "
        f"certificate; the largest relative residual of λmax[H_LoRA] is {float(data.residual.max()):.1g}.",
    ]


def _between(criterion: str, ratio: xr.DataArray) -> list[str]:
    found = known(ratio)
    if not found.size:
        return []
    return [
        f"{WORDS[criterion].capitalize()}: the critical rate of LoRA lies between {found.min():.3g} and "
        f"{found.max():.3g} times 2/λmax[H_LoRA], at or above it at {np.mean(found >= 1):.0%} of the points."
    ]


def _span(values: xr.DataArray) -> str:
    found = known(values)
    return f"{found.min():.2g} to {found.max():.2g}" if found.size else "unknown"


def _tolerance_by_trace(problem: Problem, alpha: float) -> float:
    """Return 1/(r s² σ_A²), σ_A² averaged over layers: by how much the trace of H_Signal is below that of H_ℓ (P3)."""
    factors = [closed_forms.suppression(problem.rank, problem.scaling(alpha), x) for x in problem.sigma_a().values()]
    return 1 / float(np.mean(factors))


def _figure(config: Config, data: xr.Dataset) -> plotting.Figure:
    sizes = f"{config.problem.label}, r = {config.problem.rank}, {config.over_seeds}"
    figure, axes = plotting.panels(3, f"L1  Critical η of gradient descent: {sizes}", height=4.8)
    measured = data.measured.transpose("alpha", "seed", "criterion")
    against = (measured, measured * data.lora / 2, measured / data.full)
    for criterion, color, mark in zip(CRITERIA, ("other", "lora", "drift"), "os^", strict=True):
        for panel, values in zip(axes, against, strict=True):
            y = values.sel(criterion=criterion).transpose("alpha", "seed")
            panel.plot(data.alpha, y, mark, color=plotting.COLOR[color], alpha=0.4)
            panel.plot(data.alpha, y.median("seed"), marker=mark, color=plotting.COLOR[color], label=WORDS[criterion])
    trace_law = [_tolerance_by_trace(config.problem, alpha) for alpha in config.alphas]
    one = xr.ones_like(data.lora)
    for panel, y, style, color, label in (
        (axes[0], 2 / data.lora, "--", "prediction", "2/λmax[H_LoRA]"),
        (axes[0], 2 / data.signal, ":", "signal", "2/λmax[H_Signal]"),
        (axes[0], one * 2 / data.task, "--", "task", "2/λmax[H_ℓ], full fine-tuning"),
        (axes[1], one, "--", "prediction", "L1"),
        (axes[2], data.task / data.lora, "--", "prediction", "λmax[H_ℓ]/λmax[H_LoRA]"),
        (axes[2], one * xr.DataArray(trace_law, dims="alpha"), ":", "task", "r/(α²σ_A²), trace law P3"),
    ):
        panel.plot(data.alpha, y.mean("seed"), style, color=plotting.COLOR[color], label=label)
    names = ("critical η", "critical η · λmax[H_LoRA]/2", "critical η of LoRA / of full fine-tuning")
    titles = ("(a) largest stable η; higher: more stable", "(b) against L1: all on the line", "(c) against FFT")
    for panel, name, title in zip(axes, names, titles, strict=True):
        plotting.log_axis(panel, "α", name, log_x=4)
        panel.set_title(title)
        panel.legend(fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.18))
    return figure


CAPTIONS = {
    "stability": (
        "The learning rate at which gradient descent from B = 0 turns unstable, by three meanings of the word: L1 "
        "expects 2/λmax, the line at 1 in the middle; higher tolerates more. H_LoRA at B = 0 is never ⪰ 0 (X13), so "
        "only the part of L1 on λmax is at stake."
    ),
}
"""What to see in the figure, what is expected, and which side is better."""

EXPERIMENT = Experiment(
    name="stability",
    title="L1: the critical learning rate of gradient descent against 2/λmax, for full fine-tuning and for LoRA.",
    configure=Config,
    points=points,
    measure=measure,
    report=report,
    tiny={"seeds": 2, "alphas": (1.0, 16.0, 256.0), "steps": 30, "quadratic_steps": 200},
    captions=CAPTIONS,
)
