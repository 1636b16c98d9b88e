"""The four Hessians of App. E at d = 256, matrix-free: over α at initialisation, and along the trajectories of F2.

Dense, H_ℓ would be a matrix of 327,680 rows (800 GiB). Extremes come with residual bounds; H_Drift's are known in
closed form as well (X1). Along a trajectory of Adam the sharpness that the step sees is that of the preconditioned
Hessian P^{-1/2} H P^{-1/2}, P = √v̂ + ε; gradient descent with momentum β₁ on its quadratic is stable up to
2(1 + β₁)/((1 − β₁)η) = 38/η (Cohen et al. 2022), as plain gradient descent on H is up to 2/η (L1).
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jax import Array
from jax.tree_util import Partial

import signal_drift as sd
from experiments import spectra_figures
from experiments.experiment import Experiment, Report, Row, main
from experiments.setting import Setting, adapters, problem
from experiments.statistics import Estimate, exponents, mean_interval
from signal_drift import closed_forms

BETA = 0.9
"""β₁ of Adam, optax's default."""
EDGE = 2 * (1 + BETA) / (1 - BETA)
"""Where momentum on the preconditioned quadratic becomes unstable, in units of 1/η."""
OPERATORS = ("task", "signal", "drift", "lora")
LABELS = {"task": "H_ℓ", "signal": "H_Signal", "drift": "H_Drift", "lora": "H_LoRA"}
SHARE = "‖H_Drift‖₂/λmax[H_Signal]"


@dataclass(frozen=True)
class Config(Setting):
    """Extremes, traces and densities at the size of the trajectories."""

    width: int = 256
    """d, inputs, outputs and hidden units of every layer."""
    seeds: int = 2
    """Independent draws of W₀, A, teacher and data."""
    alphas: tuple[float, ...] = (1.0, 4.0, 16.0, 64.0, 256.0)
    """Values of α at initialisation."""
    learning_rate: float = 1e-4
    """η₀ of Adam."""
    eta_multipliers: tuple[float, ...] = (64.0, 128.0)
    """η/η₀ of the trajectories at α = 1."""
    alpha_multipliers: tuple[float, ...] = (128.0, 256.0)
    """α of the trajectories at η₀."""
    steps: tuple[int, ...] = (0, 10, 30, 100)
    """Steps at which a trajectory is looked at."""
    density_alpha: float = 16.0
    """α at which the densities are taken; one of `alphas`."""
    probes: int = 10
    """Random vectors of every stochastic density."""
    nodes: int = 80
    """Nodes of the quadrature for every vector."""
    tolerance: float = 1e-6
    """Residual of an eigenvalue over ‖H‖ at which the search stops."""

    def runs(self) -> dict[str, tuple[float, float]]:
        """(η, α) of every trajectory."""
        eta = {f"{m:g}·η₀": (m * self.learning_rate, 1.0) for m in self.eta_multipliers}
        return eta | {f"{m:g}·α₀": (self.learning_rate, m) for m in self.alpha_multipliers}


def points(config: Config) -> list[dict]:
    """One for the initial point over α, and one for every trajectory, of every seed."""
    return [{"seed": seed, "run": run} for seed in range(config.seeds) for run in ("initial", *config.runs())]


def measure(config: Config, seed: int, run: str) -> xr.Dataset:
    loss, base = problem(config, seed)
    start = adapters(config, base, seed)
    if run == "initial":
        found = [_extremes(config, loss, base, start, config.scaling(alpha)) for alpha in config.alphas]
        over_alpha = xr.concat(found, xr.IndexVariable("alpha", list(config.alphas)))
        return xr.merge([over_alpha, _densities(config, loss, base, start)])
    eta, alpha = config.runs()[run]
    s = config.scaling(alpha)
    states = [_trained(loss, base, start, s, eta, steps=steps) for steps in config.steps]
    found = [
        _extremes(config, loss, base, theta, s).assign(
            loss=float(loss(sd.effective_weights(base, theta, s))),
            preconditioned=_preconditioned(config, loss, base, theta, s, second, steps),
        )
        for steps, (theta, second) in zip(config.steps, states, strict=True)
    ]
    return xr.concat(found, xr.IndexVariable("step", list(config.steps))).assign(eta=eta)


def _extremes(config: Config, loss, base, theta, s) -> xr.Dataset:
    """(λmin, λmax) of the four operators, the worst residual over ‖H‖, and −s·max σ(G) for H_Drift (X1)."""
    parts = sd.decompose(loss, base, theta, s)
    ends, worst, certified = [], 0.0, True
    for name in OPERATORS:
        found = sd.extreme_eigenvalues(getattr(parts, name), which="both", tolerance=config.tolerance)
        ends.append(found.values)
        worst = max(worst, float(np.max(found.residuals) / np.max(np.abs(found.values))))
        certified = certified and found.converged
    gradient = jax.grad(loss)(sd.effective_weights(base, theta, s))
    sigma = max(float(np.linalg.norm(np.asarray(G), 2)) for G in gradient.values())
    return xr.Dataset(
        {
            "ends": (("operator", "end"), np.array(ends)),
            "residual": worst,
            "certified": certified,
            "drift_closed": -float(s) * sigma,
        },
        coords={"operator": list(OPERATORS), "end": ["min", "max"]},
    )


def _densities(config: Config, loss, base, start) -> xr.Dataset:
    """Nodes and weights of stochastic Lanczos quadrature for the four operators, and stochastic traces."""
    parts = sd.decompose(loss, base, start, config.scaling(config.density_alpha))
    found = [
        sd.spectral_density(getattr(parts, name), probes=config.probes, steps=config.nodes, key=jax.random.key(k))
        for k, name in enumerate(OPERATORS)
    ]
    traces = [density.mean(lambda x: x) for density in found]
    sizes = np.array([getattr(parts, name).shape[0] for name in OPERATORS])
    return xr.Dataset(
        {
            "nodes": (("operator", "probe", "node"), np.array([density.nodes for density in found])),
            "weights": (("operator", "probe", "node"), np.array([density.weights for density in found])),
            "trace": ("operator", sizes * [t.value for t in traces]),
            "trace_error": ("operator", sizes * [t.error for t in traces]),
            "size": ("operator", sizes),
        },
        coords={"operator": list(OPERATORS)},
    )


@partial(jax.jit, static_argnames="steps")
def _trained(loss, base, start, s, eta, *, steps: int) -> tuple[Any, Any]:
    """θ after `steps` of Adam, and its running second moment v."""
    optimizer = optax.adam(eta, b1=BETA)

    def step(carry, _):
        theta, state = carry
        gradient = jax.grad(lambda theta: loss(sd.effective_weights(base, theta, s)))(theta)
        delta, state = optimizer.update(gradient, state, theta)
        return (optax.apply_updates(theta, delta), state), None

    (theta, state), _ = jax.lax.scan(step, (start, optimizer.init(start)), length=steps)
    return theta, optax.tree.get(state, "nu")


def _preconditioned(config: Config, loss, base, theta, s, second, steps: int) -> float:
    """λmax of P^{-1/2} H_LoRA P^{-1/2}: the Hessian of φ ↦ ℓ(w(θ + P^{-1/2}φ)) at 0; NaN before the first step."""
    if steps == 0:
        return np.nan
    shrink = jax.tree.map(lambda v: 1 / jnp.sqrt(jnp.sqrt(v / (1 - 0.999**steps)) + 1e-8), second)
    rescaled = Partial(_rescaled, loss, base, theta, jnp.asarray(s), shrink)
    zero = {f"{layer}.{side}": jnp.zeros_like(x) for layer, pair in theta.items() for side, x in pair._asdict().items()}
    task = sd.decompose(rescaled, zero, sd.init_adapters(jax.random.key(0), zero, 1), 1.0).task
    return float(sd.extreme_eigenvalues(task, tolerance=config.tolerance).values[0])


def _rescaled(loss, base, theta, s, shrink, phi) -> Array:
    moved = {
        layer: sd.Adapter(
            A + shrink[layer].A * phi[f"{layer}.A"],
            B + shrink[layer].B * phi[f"{layer}.B"],
        )
        for layer, (A, B) in theta.items()
    }
    return loss(sd.effective_weights(base, moved, s))


def edge(config: Config, data: xr.Dataset, run: str, which: str) -> xr.DataArray:
    """η·λmax/2 of H_LoRA ("raw"), or η·λmax/38 of the preconditioned one, (seed, step): 1 at the edge of stability."""
    here = data.sel(run=run)
    if which == "raw":
        return (here.eta * here.ends.sel(operator="lora", end="max") / 2).transpose("seed", "step")
    return (here.eta * here.preconditioned / EDGE).transpose("seed", "step")


def lowest_over_highest(data: xr.Dataset, operator: str) -> xr.DataArray:
    ends = data.ends.sel(operator=operator)
    return ends.sel(end="min") / ends.sel(end="max")


def drift_share(data: xr.Dataset) -> xr.DataArray:
    """‖H_Drift‖₂/λmax[H_Signal]: how far the drift may move an eigenvalue of H_LoRA from one of H_Signal (Weyl)."""
    return data.ends.sel(operator="drift", end="max") / data.ends.sel(operator="signal", end="max")


def start_of(config: Config, data: xr.Dataset) -> xr.Dataset:
    """What was measured over α, without the labels of the trajectories."""
    return data.sel(run="initial").drop_vars("step", errors="ignore").sel(alpha=list(config.alphas))


def exponent(config: Config, data: xr.Dataset, operator: str, end: str) -> Estimate:
    """The exponent of α in the absolute value of one end at initialisation."""
    values = abs(start_of(config, data).ends.sel(operator=operator, end=end).isel(step=0)).transpose("seed", "alpha")
    return mean_interval(exponents(np.array(config.alphas), values.values))


def report(config: Config, data: xr.Dataset) -> Report:
    rows = [*_initial_rows(config, data), *_run_rows(config, data)]
    drawn = {
        "spectra_at_scale": partial(spectra_figures.at_start, config, start_of(config, data)),
        "spectra_along_training": partial(spectra_figures.along_training, config, data),
    }
    return Report(rows, _sentences(config, data), drawn)


def _initial_rows(config: Config, data: xr.Dataset) -> list[Row]:
    start, rows = start_of(config, data), []
    for label, operator, end, stated in (
        ("λmax[H_Signal]", "signal", "max", "2"),
        ("−λmin[H_Drift]", "drift", "min", "1"),
        ("λmax[H_LoRA]", "lora", "max", "–"),
    ):
        fit = exponent(config, data, operator, end)
        rows.append(Row(f"F8d  exponent of α in {label}, d = {config.width}", stated, str(fit), fit.interval()))
    for operator, stated in (("task", "≥ 0 (P2-premise)"), ("signal", "≥ 0 (P2-psd)"), ("lora", "< 0")):
        for alpha in config.alphas if operator == "lora" else config.alphas[:1]:
            ratio = mean_interval(lowest_over_highest(start.sel(alpha=alpha), operator).values)
            where = f"{LABELS[operator]}" + (f", α = {alpha:g}" if operator == "lora" else "")
            rows.append(Row(f"F8c  λmin/λmax of {where}, d = {config.width}", stated, str(ratio), ratio.interval()))
    closed = float(abs(data.ends.sel(operator="drift", end="min") / data.drift_closed - 1).max())
    residual, certified = float(data.residual.max()), int(data.certified.sum())
    count = int(data.certified.notnull().sum())
    return [
        *rows,
        Row("X1   λmin[H_Drift] against −s·max σ(G), largest relative error", "rounding", f"{closed:.1e}", "–"),
        Row("     residual bound of an extreme eigenvalue over ‖H‖, largest", "–", f"{residual:.1e}", "–"),
        Row("     points whose extremes are all certified", f"{count}", f"{certified}", "–"),
    ]


def _run_rows(config: Config, data: xr.Dataset) -> list[Row]:
    rows = []
    for run in config.runs():
        for which, name in (("raw", "η·λmax[H_LoRA]/2"), ("preconditioned", "η·λmax[preconditioned H_LoRA]/38")):
            last = mean_interval(edge(config, data, run, which).isel(step=-1).values)
            rows.append(Row(f"L1   {name} at the end of {run}", "1 at the edge", str(last), last.interval()))
        here = data.sel(run=run).isel(step=-1)
        for name, values in (("λmin/λmax of H_LoRA", lowest_over_highest(here, "lora")), (SHARE, drift_share(here))):
            last = mean_interval(values.values)
            rows.append(Row(f"F8c  {name} at the end of {run}", "–", str(last), last.interval()))
    return rows


def _sentences(config: Config, data: xr.Dataset) -> list[str]:
    """How the traces compare, and where the trajectories end."""
    start = start_of(config, data)
    factor = closed_forms.suppression(config.rank, config.scaling(config.density_alpha), config.sigma_a)
    first = start.isel(seed=0)
    measured, error = (float(first[name].sel(operator="signal").max()) for name in ("trace", "trace_error"))
    task = float(first.trace.sel(operator="task").max())
    return [
        f"Seed {int(first.seed)}: Tr H_Signal is {measured:.4g} ± {error:.2g} (one standard error over "
        f"{config.probes} vectors), α²σ_A²/r times the estimate of Tr H_ℓ is {factor * task:.4g}.",
        *(
            f"{run}: η·λmax[H_LoRA]/2 goes from {float(raw[0]):.2g} to {float(raw[-1]):.2g}, the preconditioned "
            f"η·λmax/38 ends at {float(edge(config, data, run, 'preconditioned').mean('seed')[-1]):.2g}."
            for run in config.runs()
            for raw in [edge(config, data, run, "raw").mean("seed")]
        ),
    ]


EXPERIMENT = Experiment(
    name="spectra_at_scale",
    title="Spectra at d = 256: the four Hessians over α and along the trajectories of F2, matrix-free.",
    paper=Config(),
    quick=replace(
        Config(),
        width=8,
        depth=3,
        samples=20,
        rank=2,
        alphas=(1.0, 16.0, 256.0),
        eta_multipliers=(64.0,),
        alpha_multipliers=(256.0,),
        steps=(0, 5),
        probes=3,
        nodes=10,
    ),
    points=points,
    measure=measure,
    report=report,
)

if __name__ == "__main__":
    main(EXPERIMENT)
