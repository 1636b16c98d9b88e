"""P4-update: ‖Δw_Signal‖ = Θ(αη), ‖Δw_Drift‖ = Θ(αη²) (Eq. 48–50): the exponents by optimizer, at B = 0 and B ≠ 0.

With G = ∇_W ℓ, ∇_A ℓ = s BᵀG and ∇_B ℓ = s G Aᵀ. An optimizer that forgets the gradient's size (sign, Muon, Adam with
ε → 0) has ΔA, ΔB = Θ(η): signal αη, drift αη². Gradient descent at B ≠ 0 has ΔA, ΔB = Θ(sη): signal α²η, drift α³η².
From B = 0 its first step leaves B = Θ(sη) and so its second has ΔA = Θ(s²η²): signal α²η, drift α⁴η³.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jax import Array

import signal_drift as sd
from experiments.analysis.intervals import Interval, exponents, mean_interval
from experiments.lab.experiment import Experiment, Report, Row, main
from experiments.problems.mlp import Setting, adapters, problem
from signal_drift import plotting

EXACT = 1e-3
"""An exponent this close to the derived one counts as equal; intervals at such points have no width."""
TINY = 1e-200
"""ε of Adam where the theory has none: lost to rounding beside any √v̂, and still 0/(0 + ε) = 0 for an exact zero."""


def polar_descent(learning_rate) -> optax.GradientTransformation:
    """Δ = −η U Vᵀ from the compact SVD of each gradient: Muon as P2-descent states it, exact and without momentum."""

    def polar(G) -> Array:
        U, sigma, Vt = jnp.linalg.svd(G, full_matrices=False)
        kept = sigma > max(G.shape) * jnp.finfo(G.dtype).eps * sigma[0]
        return (U * kept) @ Vt

    return optax.chain(
        optax.stateless_with_tree_map(lambda G, _: polar(G)), optax.scale_by_learning_rate(learning_rate)
    )


FAMILIES = ("η", "α")
FORGETFUL = {"signal": (1, 1), "drift": (2, 1), "ratio": (-1, 0)}
OPTIMIZERS = {
    "Adam": partial(optax.adam, eps=TINY),
    "sign": optax.sign_sgd,
    "Muon": polar_descent,
    "optax-Muon": optax.contrib.muon,
    "GD": optax.sgd,
    "Adam-1e-8": optax.adam,
}
"""Muon is the exact UVᵀ; optax-Muon has Newton–Schulz, Nesterov momentum and a factor for the shape. Adam has ε = TINY,
Adam-1e-8 the default ε."""
STATES = {"second": (2, "second step from B = 0"), "generic": (1, "first step from B ≠ 0")}
"""Which step is read off from where; from B = 0 the first has no drift (X3)."""


def expected(optimizer: str, state: str) -> dict[str, tuple[int, int]]:
    """(exponent of η, exponent of α) of signal, drift and their ratio, as derived above to leading order in η."""
    if optimizer != "GD":
        return FORGETFUL
    drift = (3, 4) if state == "second" else (2, 3)
    return {"signal": (1, 2), "drift": drift, "ratio": (1 - drift[0], 2 - drift[1])}


@dataclass(frozen=True)
class Grid:
    """α and η of the steps."""

    learning_rate: float = 1e-4
    """η₀."""
    alpha: float = 1.0
    """α₀."""
    multipliers: tuple[float, ...] = (1.0, 4.0, 16.0, 64.0, 256.0)
    """η/η₀ at α₀ and α/α₀ at η₀."""

    def along(self, family: str) -> list[tuple[float, float]]:
        """(η, α) at every multiplier of one of the two."""
        eta, alpha = self.learning_rate, self.alpha
        return [(m * eta, alpha) if family == "η" else (eta, m * alpha) for m in self.multipliers]


@dataclass(frozen=True)
class Config(Grid, Setting):
    """The first two steps of every optimizer over α and over η."""

    width: int = 256
    """d, inputs, outputs and hidden units of every layer."""


def points(config: Config) -> list[dict]:
    return [{"seed": seed} for seed in range(config.seeds)]


def measure(config: Config, seed: int) -> xr.Dataset:
    """‖Δw_Signal‖ and ‖Δw_Drift‖ of the first two steps from B = 0 and from B ≠ 0, over η and over α."""
    loss, base = problem(config, seed)
    return step_norms(config, loss, base, adapters(config, base, seed), config.scaling, seed)


def step_norms(config: Grid, loss, base, start, scaling: Callable[[float], float], seed: int) -> xr.Dataset:
    """The norms of both steps of every optimizer, in both states and along both families; `scaling` is α ↦ s."""
    generic = _away_from_zero(start, jax.random.fold_in(jax.random.key(seed), 5))
    pairs = [config.along(family) for family in FAMILIES]
    values = [
        [
            [[_steps(loss, base, theta, scaling(a), e, name) for e, a in along] for along in pairs]
            for theta in (start, generic)
        ]
        for name in OPTIMIZERS
    ]
    return xr.Dataset(
        {"norm": (("optimizer", "state", "family", "multiplier", "part", "step"), np.array(values))},
        coords={
            "optimizer": list(OPTIMIZERS),
            "state": list(STATES),
            "family": list(FAMILIES),
            "multiplier": list(config.multipliers),
            "part": ["signal", "drift"],
            "step": [1, 2],
        },
    )


def _away_from_zero(start, key: Array) -> dict[str, sd.Adapter]:
    """B of the size of A, drawn anew."""
    keys = jax.random.split(key, len(start))
    return {
        layer: sd.Adapter(A, A.std() * jax.random.normal(k, B.shape, B.dtype))
        for k, (layer, (A, B)) in zip(keys, sorted(start.items()), strict=True)
    }


@partial(jax.jit, static_argnames="optimizer")
def _steps(loss, base, theta, s, learning_rate, optimizer: str) -> Array:
    shifted = sd.effective_weights(base, theta, -s)  # so that w(θ) = W₀ whatever α is
    run = sd.train(loss, shifted, theta, s, OPTIMIZERS[optimizer](learning_rate), 2)
    return jnp.stack([run.signal_norm, run.drift_norm])


def fitted(data: xr.Dataset, optimizer: str, state: str, part: str, family: str) -> Interval:
    """The measured exponent of η or of α in one norm, or in their ratio: per seed, then over seeds."""
    norm = data.norm.sel(optimizer=optimizer, state=state, family=family, step=STATES[state][0])
    norm = norm.transpose("seed", "multiplier", "part")
    y = norm.sel(part="signal") / norm.sel(part="drift") if part == "ratio" else norm.sel(part=part)
    return mean_interval(exponents(data.multiplier.values, y.values))


def distance(data: xr.Dataset, optimizer: str, state: str) -> float:
    """How far the furthest of the six fitted exponents is from the derived one."""
    powers = expected(optimizer, state).items()
    pairs = [(fitted(data, optimizer, state, k, f).mean, e[i]) for k, e in powers for i, f in enumerate(FAMILIES)]
    return max(abs(measured - stated) for measured, stated in pairs)


def report(config, data: xr.Dataset, figure: str = "update_scaling") -> Report:
    rows = [_row(data, name, state, family) for state in STATES for name in OPTIMIZERS for family in FAMILIES]
    return Report([*rows, *_first_rows(data)], _sentences(data), {figure: partial(_figure, config, data)})


def _row(data: xr.Dataset, name: str, state: str, family: str) -> Row:
    fits = [fitted(data, name, state, part, family) for part in FORGETFUL]
    stated = [powers[FAMILIES.index(family)] for powers in expected(name, state).values()]
    quantity = f"P4   {name}, {STATES[state][1]}: exponents of {family} in signal, drift, ratio"
    intervals = ", ".join(f"[{fit.low:.3f}, {fit.high:.3f}]" for fit in fits)
    return Row(quantity, ", ".join(map(str, stated)), ", ".join(f"{fit.mean:.3f}" for fit in fits), intervals)


def _first_rows(data: xr.Dataset) -> list[Row]:
    first = data.norm.sel(step=1, part="drift")
    zero, control = float(first.sel(state="second").max()), float(first.sel(state="generic").min())
    return [
        Row("X3   ‖Δw_Drift‖ of the first step from B = 0, largest of all optimizers", "0", f"{zero:.3g}", "exact"),
        Row("X3   ‖Δw_Drift‖ of the first step from B ≠ 0, smallest of all optimizers", "> 0", f"{control:.3g}", "–"),
    ]


def _sentences(data: xr.Dataset) -> list[str]:
    """Where the fitted exponents leave the derived ones, and what becomes of α under gradient descent."""
    off = {f"{name}, {STATES[state][1]}": distance(data, name, state) for state in STATES for name in OPTIMIZERS}
    exact = [where for where, far in off.items() if far < EXACT]
    rest = [f"{where} {far:.2g}" for where, far in off.items() if far >= EXACT]
    sgd = [f"{fitted(data, 'GD', k, 'ratio', 'α')} at the {name}" for k, (_, name) in STATES.items()]
    return [
        f"All six exponents are the derived ones to {EXACT:g} for: {'; '.join(exact) or 'none'}.",
        f"Largest distance of an exponent from the derived one elsewhere: {'; '.join(rest) or 'none'}.",
        f"A1-sgd: under gradient descent the signal-to-drift ratio has the exponent {' and '.join(sgd)} in α, not 0.",
    ]


def _figure(config, data: xr.Dataset) -> plotting.Figure:
    figure, axes = plotting.panels(
        3, f"P4  One step: d = {config.width}, r = {config.rank}, {config.seeds} seeds, 95% intervals", height=5.6
    )
    places = [(state, name) for state in STATES for name in OPTIMIZERS]
    for panel, family, letter in zip(axes, FAMILIES, "ab", strict=False):
        for y, (state, name) in enumerate(places):
            _draw_exponents(panel, data, y, name, state, family)
        panel.set(yticks=range(len(places)), ylim=(len(places) - 0.5, -0.5), xlabel=f"exponent of {family}")
        panel.set_yticklabels([f"{n}, B {'= 0' if s == 'second' else '≠ 0'}" for s, n in places] * (letter == "a"))
        panel.set_title(f"({letter}) exponents of {family}; boxes: derived")
    for name, color in (("Adam", "lora"), ("GD", "drift")):
        for family, style, width in zip(FAMILIES, ("o-", "s--"), (5, 1.5), strict=True):
            here = data.norm.sel(optimizer=name, state="generic", family=family, step=1)
            ratio = (here.sel(part="signal") / here.sel(part="drift")).mean("seed")
            label = f"{name}, over {family}"
            axes[2].plot(
                data.multiplier, ratio / ratio[0], style, lw=width, color=plotting.COLOR[color], alpha=0.6, label=label
            )
    plotting.log_axis(axes[2], "multiplier m of η₀ or of α₀", "signal / drift, relative to m = 1", log_x=4)
    axes[2].set_title("(c) purity at B ≠ 0")
    axes[2].legend()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _draw_exponents(panel: plotting.Axes, data: xr.Dataset, y: int, name: str, state: str, family: str) -> None:
    for part, color, shift in (("signal", "signal", -0.12), ("drift", "drift", 0.12), ("ratio", "lora", 0)):
        fit, stated = fitted(data, name, state, part, family), expected(name, state)[part][FAMILIES.index(family)]
        derived = "derived" if y == 0 and part == "signal" else None
        panel.plot(stated, y, "s", ms=15, mfc="none", color=plotting.COLOR["prediction"], label=derived)
        panel.plot([fit.low, fit.high], [y + shift, y + shift], color=plotting.COLOR[color])
        panel.plot(fit.mean, y + shift, "o", ms=5, color=plotting.COLOR[color], label=None if y else part)


EXPERIMENT = Experiment(
    name="update_scaling",
    title="P4-update, X3, A1-sgd: how signal and drift of one update scale with learning rate and alpha.",
    paper=Config(),
    quick=replace(Config(), width=8, depth=3, samples=20, rank=3, seeds=2, multipliers=(1.0, 16.0, 256.0)),
    points=points,
    measure=measure,
    report=report,
)

if __name__ == "__main__":
    main(EXPERIMENT)
