"""Measure the four Hessians at any size, matrix-free: both ends over α at B = 0, and spectra before and after.

Dense, H_ℓ of the MLP at d = 256 would be a matrix of 327,680 rows (800 GiB), that of MiniLM one of 10.6 million. Every
end comes with a residual bound and a certificate, and it is known how far beyond it the spectrum may reach; those of
H_Drift are known in closed form as well (X1).
"""

from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
import scipy.stats
import xarray as xr

import signal_drift as sd
from experiments.analysis.ends import OPERATORS, PLAIN, STATES, SYMBOL, certificate_rows, extremes, numerical_bounds
from experiments.analysis.intervals import Interval
from experiments.curvature.states import adapters_at
from experiments.lab.errors import OptionError, check_ascending, check_positive
from experiments.lab.experiment import Experiment, Point, Report, Row
from experiments.lab.problem import Drawn, Problem, Setting
from signal_drift import plotting
from signal_drift.lora.adapters import Adapters, Weights
from signal_drift.propositions import closed_forms

POWERS = {"signal": 2, "drift": 1}
"""The exponents of α that the paper states."""
SMOOTHED = ("task", "signal", "lora")
"""The operators whose density is known from random vectors; that of H_Drift is known in full (X1)."""
MARK = {
    "task": {"marker": "^", "ls": "-"},
    "signal": {"marker": "x", "ls": "--"},
    "drift": {"marker": "s", "ms": 5, "ls": "-"},
    "lora": {"marker": "o", "ms": 9, "mfc": "none", "ls": "-"},
}
"""How each operator is drawn, told apart without hue."""
WIDTH = 0.02
"""Deviation of the Gaussian that densities are smoothed with, over the largest |λ|."""
SIGNS = {"task": "≥ 0 (P2-premise)", "signal": "≥ 0 (P2-psd)", "lora": "< 0"}
"""The signs of λmin that the paper states."""


@dataclass(frozen=True)
class Config(Setting):
    """Measure extremes over α at B = 0; extremes, densities and traces at one α, there and after training with Adam."""

    seeds: int = 2
    """Independent draws of all that is random."""
    alphas: tuple[float, ...] = (1.0, 4.0, 16.0, 64.0, 256.0)
    """Values of α at B = 0."""
    alpha: float = 16.0
    """α of densities and traces and of the training, one of `alphas`."""
    probes: int = 10
    """Random vectors of every density."""
    nodes: int = 80
    """Nodes of the quadrature for every vector."""
    tolerance: float = 1e-6
    """Residual of an eigenvalue over ‖H‖ at which the search stops."""
    learning_rate: float = 1e-4
    """η of Adam; the paper's η₀, whatever rate the problem would be tuned to."""
    steps: int = 100
    """Training steps."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "nodes", "steps")
        check_ascending(self, "alphas")
        if self.alpha not in self.alphas:
            raise OptionError(f"alpha: must be one of alphas, got {self.alpha:g}")
        if self.probes < 2:
            raise OptionError(f"probes: must be at least 2, got {self.probes}")


def configure(problem: Problem) -> Config:
    """Take d = 256 where the width is free, and fewer and looser searches where the problem is costly."""
    if not problem.costly:
        return Config(problem.resized(256))
    steps = problem.tuning.steps if problem.tuning else Config.steps
    return Config(problem, seeds=1, alphas=(1.0, 16.0, 256.0), probes=2, nodes=24, tolerance=1e-2, steps=steps)


def points(config: Config) -> list[Point]:
    return [{"seed": seed, "state": state} for state in STATES for seed in range(config.seeds)]


def measure(config: Config, seed: int, state: str) -> xr.Dataset:
    """Measure both ends of the four operators, over α where B = 0, and their densities at one α."""
    problem, drawn = config.problem, config.problem.draw(seed)
    theta = adapters_at(state, problem, seed, config.alpha, config.learning_rate, config.steps)
    over_alpha = _initial_ends(config, drawn, theta) if state == "initial" else _ends(config, drawn, theta)
    s = problem.scaling(config.alpha)
    loss = float(drawn.loss(sd.effective_weights(drawn.base, theta, s)))
    return over_alpha.merge(_densities(config, drawn, theta, s)).assign(loss=loss)


def _ends(config: Config, drawn: Drawn, theta: Adapters) -> xr.Dataset:
    """The ends at the one α of the training; nothing was measured at the others."""
    found = extremes(drawn, theta, config.problem.scaling(config.alpha), config.tolerance)
    return found.expand_dims(alpha=[config.alpha]).reindex(alpha=list(config.alphas))


def _initial_ends(config: Config, drawn: Drawn, theta: Adapters) -> xr.Dataset:
    """The ends over α; H_ℓ, which does not depend on α while B = 0, is searched once."""
    first, *others = (config.problem.scaling(alpha) for alpha in config.alphas)
    found = [extremes(drawn, theta, first, config.tolerance)]
    task = found[0].sel(operator=["task"]).drop_vars("drift_closed")
    for s in others:
        here = extremes(drawn, theta, s, config.tolerance, OPERATORS[1:])
        found.append(xr.concat([task.assign(drift_closed=here.drift_closed), here], "operator", data_vars="minimal"))
    return xr.concat(found, xr.IndexVariable("alpha", list(config.alphas)))


def _densities(config: Config, drawn: Drawn, theta: Adapters, s: float) -> xr.Dataset:
    """Quadratures and stochastic traces of H_ℓ, H_Signal and H_LoRA, and all of the spectrum of H_Drift (X1)."""
    parts = sd.decompose(drawn.loss, drawn.base, theta, s)
    found = [
        sd.spectral_density(getattr(parts, name), probes=config.probes, steps=config.nodes, key=jax.random.key(k))
        for k, name in enumerate(OPERATORS)
        if name in SMOOTHED
    ]
    traces = [density.mean(lambda x: x) for density in found]
    sizes = np.array([getattr(parts, name).shape[0] for name in SMOOTHED])
    gradient = jax.grad(drawn.loss)(sd.effective_weights(drawn.base, theta, s))
    sampled = xr.Dataset(
        {
            "nodes": (("operator", "probe", "node"), np.array([density.nodes for density in found])),
            "weights": (("operator", "probe", "node"), np.array([density.weights for density in found])),
            "trace": ("operator", sizes * [t.value for t in traces]),
            "trace_error": ("operator", sizes * [t.error for t in traces]),
        },
        coords={"operator": list(SMOOTHED)},
    )
    return sampled.reindex(operator=list(OPERATORS)).assign(
        drift_positive=("pair", s * singular_values(gradient)),
        weights_of_A=sum(A.size for A, _ in theta.values()),
        weights_of_theta=sum(A.size + B.size for A, B in theta.values()),
    )


def singular_values(gradient: Weights) -> np.ndarray:
    """Return σ_i(G_l) of all layers, ascending: ±s σ_i are the eigenvalues of H_Drift, r-fold each, beside zeros."""
    return np.sort(np.concatenate([np.linalg.svd(np.asarray(G), compute_uv=False) for G in gradient.values()]))


def lowest(data: xr.Dataset, operator: str, alpha: float, state: str = "initial") -> Interval:
    """Bound λmin/λmax of one operator: the mean over seeds, and the range that the searches leave open at any seed."""
    here = data.sel(operator=operator, alpha=alpha, state=state)
    (low, high), (below, above) = ((x.sel(end="min"), x.sel(end="max")) for x in (here.ends, here.reach))
    tops = (high, high + above)
    least = min(float(((low - below) / top).min()) for top in tops)
    most = max(float((low / top).max()) for top in tops)
    return _bounds(float((low / high).mean()), least, most)


def end_distance(data: xr.Dataset, end: str, alpha: float) -> Interval:
    """Bound |λ[H_LoRA] − λ[H_Signal]|/λmax[H_Signal] of one end at one α and B = 0, over seeds."""
    start = data.sel(state="initial", alpha=alpha)
    signal, lora = start.sel(operator="signal"), start.sel(operator="lora")
    top = signal.ends.sel(end="max")
    apart = abs(lora.ends - signal.ends).sel(end=end) / top
    error = (lora.reach + signal.reach).sel(end=end) / top
    return _bounds(float(apart.mean()), float((apart - error).min()), float((apart + error).max()))


def exponent(data: xr.Dataset, operator: str, end: str) -> Interval:
    """Bound the exponent of α in the absolute value of one end at B = 0, over seeds."""
    here = data.sel(operator=operator, end=end, state="initial").transpose("seed", "alpha", ...)
    size, reach = abs(here.ends.values), here.reach.values
    u = np.log(data.alpha.values) - np.mean(np.log(data.alpha.values))
    least, most = (np.where(sign * u > 0, np.log(size), np.log(size + reach)) @ u / (u @ u) for sign in (1, -1))
    return _bounds(float(np.mean(np.log(size) @ u / (u @ u))), float(np.min(least)), float(np.max(most)))


def _bounds(mean: float, low: float, high: float) -> Interval:
    """An interval, of NaN where an end has no certificate at some seed."""
    return Interval(mean, low, high) if np.isfinite([mean, low, high]).all() else Interval(np.nan, np.nan, np.nan)


def negative_square_share(data: xr.Dataset, state: str) -> Interval:
    """Estimate Σ_{λ<0} λ² / Σ λ² of H_ℓ by quadrature: the mean over random vectors, and their range.

    Squares and not absolute values: on a large model nearly all eigenvalues are close to 0, at the one node that stands
    for them, whose sign and size say nothing.
    """
    here = data.sel(state=state, operator="task")
    curvature = here.nodes**2 * here.weights
    shares = (curvature.where(here.nodes < 0, 0).sum("node") / curvature.sum("node")).values
    return Interval(float(shares.mean()), float(shares.min()), float(shares.max()))


def report(config: Config, data: xr.Dataset) -> Report:
    rows = []
    for operator, end, name in (
        ("signal", "max", "λmax[H_Signal]"),
        ("drift", "min", "−λmin[H_Drift]"),
        ("lora", "max", "λmax[H_LoRA]"),
    ):
        fit, stated = exponent(data, operator, end), str(POWERS.get(operator, "–"))
        rows.append(Row(f"F8d  exponent of α in {name}", stated, str(fit), numerical_bounds(fit)))
    for operator, stated in SIGNS.items():
        for alpha in config.alphas if operator == "lora" else config.alphas[:1]:
            where = PLAIN[operator] + (f", α = {alpha:g}" if operator == "lora" else "")
            ratio = lowest(data, operator, alpha)
            rows.append(Row(f"F8c  λmin/λmax of {where}", stated, str(ratio), numerical_bounds(ratio)))
    for alpha in config.alphas:
        for end in ("min", "max"):
            apart = end_distance(data, end, alpha)
            name = f"F8c  distance of λ{end}[H_LoRA] to that of H_Signal over λmax[H_Signal], α = {alpha:g}"
            rows.append(Row(name, "→ 0", str(apart), numerical_bounds(apart)))
    rows += [row for state in STATES for row in _state_rows(config, data, state)]
    drawn = {"spectra_at_scale": partial(_figure, config, data)}
    return Report([*rows, *certificate_rows(data)], _sentences(config, data), drawn)


def _state_rows(config: Config, data: xr.Dataset, state: str) -> list[Row]:
    """Signs, ends and the negative share at the α of the training."""
    rows, where = [], f"{state}, α = {config.alpha:g}"
    for operator, stated in SIGNS.items() if state == "trained" else ():
        ratio = lowest(data, operator, config.alpha, state)
        rows.append(Row(f"F8c  λmin/λmax of {PLAIN[operator]}, {where}", stated, str(ratio), numerical_bounds(ratio)))
    for operator in OPERATORS:
        ends = data.ends.sel(operator=operator, state=state, alpha=config.alpha).mean("seed")
        found = ", ".join(f"{float(ends.sel(end=end)):.4g}" for end in ("min", "max"))
        rows.append(Row(f"     λmin, λmax of {PLAIN[operator]}, {where}", "–", found, "–"))
    share = negative_square_share(data, state)
    range_ = f"{share.interval()} (range, {config.seeds * config.probes} vectors)"
    return [*rows, Row(f"P2   negative share of ‖H_ℓ‖_F², by quadrature, {state}", "–", str(share), range_)]


def _sentences(config: Config, data: xr.Dataset) -> list[str]:
    """The premise of P2 in both states, and the two traces where one σ_A makes the law one factor."""
    shares = {state: negative_square_share(data, state) for state in STATES}
    signs = {state: lowest(data, "task", config.alpha, state).mean for state in STATES}
    premise = (
        f"P2-premise on {config.problem.label}: λmin/λmax of H_ℓ is {signs['initial']:.3g} at B = 0 and "
        f"{signs['trained']:.3g} after training; the negative share of ‖H_ℓ‖_F² is {shares['initial'].low:.2f} to "
        f"{shares['initial'].high:.2f} and {shares['trained'].low:.2f} to {shares['trained'].high:.2f} over random "
        "vectors."
    )
    sigma = sorted(set(config.problem.sigma_a().values()))
    return [premise, *(_traces(config, data, seed, sigma[0]) for seed in range(config.seeds) if len(sigma) == 1)]


def _traces(config: Config, data: xr.Dataset, seed: int, sigma: float) -> str:
    shrink = closed_forms.suppression(config.problem.rank, config.problem.scaling(config.alpha), sigma)

    def trace(operator: str, unit: float = 1.0) -> str:
        here = data.sel(seed=seed, state="initial", operator=operator)
        return f"{unit * float(here.trace):.4g} ± {unit * float(here.trace_error):.2g}"

    return (
        f"Seed {seed}: Tr H_Signal is {trace('signal')} (one standard error over {config.probes} vectors), α²σ_A²/r "
        f"times that of H_ℓ is {trace('task', shrink)}."
    )


def null_share(data: xr.Dataset) -> float:
    """Return the share of H_Signal's eigenvalues that are exactly 0 at B = 0: those of its A-block, at the least."""
    return float((data.weights_of_A / data.weights_of_theta).isel(seed=0, state=0))


def smoothed(data: xr.Dataset, operator: str, grid: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the density of eigenvalues at B = 0 and the first seed, and its error over random vectors, on a grid.

    What is known to be 0 exactly is taken out: of H_Signal the A-block.
    """
    here = data.sel(state="initial", operator=operator).isel(seed=0).transpose("probe", "node", ...)
    density, error = sd.SpectralDensity(here.nodes.values, here.weights.values).smooth(grid, width)
    if operator == "signal":
        density = density - null_share(data) * scipy.stats.norm.pdf(grid, scale=width)
    return density, error


def _figure(config: Config, data: xr.Dataset) -> plotting.Figure:
    """Both ends of every spectrum over α, the whole of each at one α, and how indefinite each is in both states."""
    sizes = f"{config.problem.label}, r = {config.problem.rank}, {config.seeds} seed{'s' * (config.seeds > 1)}"
    figure, (left, middle, right, last) = plotting.panels(4, f"Spectra at scale: {sizes}", height=5.0)
    start = data.sel(state="initial")
    for panel, end, sign in ((left, "max", 1), (middle, "min", -1)):
        for operator in OPERATORS:
            values = sign * start.ends.sel(operator=operator, end=end).transpose("alpha", "seed").values
            style = {"color": plotting.COLOR[operator], **MARK[operator]}
            panel.plot(config.alphas, values.mean(1), label=SYMBOL[operator], **style)
            if operator in POWERS:
                law = values[0].mean() * (np.array(config.alphas) / config.alphas[0]) ** POWERS[operator]
                label = "paper: slopes 2 and 1" if operator == "drift" else None
                panel.plot(config.alphas, law, ":", lw=2.4, color=plotting.COLOR["prediction"], label=label)
        plotting.log_axis(panel, "α", "λmax" if sign == 1 else "−λmin", log_x=4)
    left.set_title("(a) B = 0, largest eigenvalue")
    middle.set_title("(b) B = 0, most negative eigenvalue")
    _draw_densities(right, config, data)
    for x, state in enumerate(STATES):
        for k, operator in enumerate(SIGNS):
            here = data.ends.sel(operator=operator, state=state, alpha=config.alpha)
            ratio = (here.sel(end="min") / here.sel(end="max")).values
            place = np.full(config.seeds, x + 0.18 * (k - 1))
            style = {**MARK[operator], "ls": "", "color": plotting.COLOR[operator]}
            last.plot(place, ratio, label=None if x else SYMBOL[operator], **style)
    last.axhline(0, color=plotting.COLOR["prediction"], ls="--", label=r"paper: $H_\ell, H_{Signal}\geq 0$")
    last.set(xticks=[0, 1], xticklabels=STATES, xlim=(-0.6, 1.6), ylabel=r"$\lambda_{min}\,/\,\lambda_{max}$")
    last.set_title(f"(d) how indefinite, α = {config.alpha:g} (0: not at all)")
    for panel in (left, middle, right, last):
        panel.legend(fontsize=9.5, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)
    return figure


def _draw_densities(panel: plotting.Axes, config: Config, data: xr.Dataset) -> None:
    """Smoothed densities with their errors over random vectors, each over its own largest |λ|; zeros known as a bar."""
    floor, peak = 1e-6, 0.0
    for operator in SMOOTHED:
        here = data.sel(state="initial", operator=operator).isel(seed=0)
        top = float(abs(here.nodes.where(here.weights > 0)).max())
        grid = np.linspace(-1.1, 1.1, 401)
        density, error = smoothed(data, operator, grid * top, WIDTH * top)
        low, high = ((top * np.clip(density + sign * 2 * error, floor / top, None)) for sign in (-1, 1))
        seen = top * density > floor
        color, style = plotting.COLOR[operator], {**MARK[operator], "markevery": 25, "ms": 5}
        panel.fill_between(grid, low, high, where=high > floor, color=color, alpha=0.2, lw=0)
        panel.plot(grid, np.where(seen, top * density, np.nan), color=color, label=SYMBOL[operator], **style)
        peak = max(peak, float(high.max()))
    share, blue = null_share(data), plotting.COLOR["signal"]
    panel.vlines(0, floor, 4 * peak, color=blue, ls=":", lw=2, label=f"{SYMBOL['signal']}: {share:.0%} exactly 0")
    panel.set(yscale="log", ylim=(floor, 10 * peak), xlabel=r"$\lambda\,/\,$largest $|\lambda|$")
    panel.set_ylabel(f"share per unit, smoothed by {WIDTH:g}")
    panel.set_title(f"(c) B = 0, α = {config.alpha:g}, seed 0: ± 2 errors over {config.probes} vectors", fontsize=10.5)


CAPTIONS = {
    "spectra_at_scale": (
        "The ends of the four spectra at B = 0 over α, with the stated powers (a, b); densities from random "
        "vectors, with their error and the zeros that are known (c); λmin over λmax of H_ℓ and H_Signal, which "
        "the paper expects not below 0 (d; up is less indefinite)."
    ),
}


EXPERIMENT = Experiment(
    name="spectra_at_scale",
    title="Spectra at scale: both ends of the four Hessians over α, and their densities, matrix-free.",
    configure=configure,
    points=points,
    measure=measure,
    report=report,
    tiny={"alphas": (1.0, 16.0, 256.0), "probes": 3, "nodes": 8, "steps": 10},
    captions=CAPTIONS,
)
