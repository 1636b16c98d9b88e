"""Fit P4-update: ‖Δw_Signal‖ = Θ(αη), ‖Δw_Drift‖ = Θ(αη²) (Eq. 48–50), by optimizer, at B = 0 and B ≠ 0."""

from dataclasses import dataclass
from functools import partial

import xarray as xr

from experiments.analysis.intervals import Estimate, exponents, mean_of
from experiments.dynamics.eta_against_alpha import FAMILIES
from experiments.dynamics.one_step import FORGETFUL, OPTIMIZERS, READ_OFF, Grid, expected, step_norms
from experiments.lab.experiment import Experiment, Point, Report, Row
from experiments.lab.problem import Setting
from signal_drift import plotting

EXACT = 1e-3
"""An exponent this close to the derived one counts as equal; intervals at such points have no width."""


@dataclass(frozen=True)
class Config(Grid, Setting):
    """Take the first two steps of every optimizer over α and over η."""


def points(config: Config) -> list[Point]:
    return [{"seed": seed} for seed in range(config.seeds)]


def measure(config: Config, seed: int) -> xr.Dataset:
    return step_norms(config, config.problem, seed)


def fitted(data: xr.Dataset, optimizer: str, state: str, part: str, family: str) -> Estimate:
    """Fit the exponent of η or of α in one norm, or in their ratio: per seed, then over seeds."""
    norm = data.norm.sel(optimizer=optimizer, state=state, family=family, step=READ_OFF[state][0])
    norm = norm.transpose("seed", "multiplier", "part")
    y = norm.sel(part="signal") / norm.sel(part="drift") if part == "ratio" else norm.sel(part=part)
    return mean_of(exponents(data.multiplier.values, y.values))


def exponent_error(data: xr.Dataset, optimizer: str, state: str) -> float:
    """Return how far the furthest of the six fitted exponents is from the derived one."""
    powers = expected(optimizer, state).items()
    pairs = [(fitted(data, optimizer, state, k, f).value, e[i]) for k, e in powers for i, f in enumerate(FAMILIES)]
    return max(abs(measured - stated) for measured, stated in pairs)


def report(config: Config, data: xr.Dataset) -> Report:
    rows = [_row(data, name, state, family) for state in READ_OFF for name in OPTIMIZERS for family in FAMILIES]
    return Report([*rows, *_first_rows(data)], _sentences(data), {"update_scaling": partial(_figure, config, data)})


def _row(data: xr.Dataset, name: str, state: str, family: str) -> Row:
    fits = [fitted(data, name, state, part, family) for part in FORGETFUL]
    stated = [powers[FAMILIES.index(family)] for powers in expected(name, state).values()]
    quantity = f"P4   {name}, {READ_OFF[state][1]}: exponents of {family} in signal, drift, ratio"
    intervals = ", ".join(f"[{fit.at().low:.3f}, {fit.at().high:.3f}]" for fit in fits)
    return Row(quantity, ", ".join(map(str, stated)), ", ".join(f"{fit.value:.3f}" for fit in fits), intervals)


def _first_rows(data: xr.Dataset) -> list[Row]:
    first = data.norm.sel(step=1, part="drift")
    zero, control = float(first.sel(state="second").max()), float(first.sel(state="generic").min())
    return [
        Row("X3   ‖Δw_Drift‖ of the first step from B = 0, largest of all optimizers", "0", f"{zero:.3g}", "exact"),
        Row("X3   ‖Δw_Drift‖ of the first step from B ≠ 0, smallest of all optimizers", "> 0", f"{control:.3g}", "–"),
    ]


def _sentences(data: xr.Dataset) -> list[str]:
    """Say where the fitted exponents leave the derived ones, and what becomes of α under gradient descent."""
    off = {
        f"{name}, {READ_OFF[state][1]}": exponent_error(data, name, state) for state in READ_OFF for name in OPTIMIZERS
    }
    exact = [where for where, far in off.items() if far < EXACT]
    rest = [f"{where} {far:.2g}" for where, far in off.items() if far >= EXACT]
    sgd = [f"{fitted(data, 'GD', k, 'ratio', 'α')} at the {name}" for k, (_, name) in READ_OFF.items()]
    return [
        f"All six exponents are the derived ones to {EXACT:g} for: {'; '.join(exact) or 'none'}.",
        f"Largest distance of an exponent from the derived one elsewhere: {'; '.join(rest) or 'none'}.",
        f"A1-sgd: under gradient descent the signal-to-drift ratio has the exponent {' and '.join(sgd)} in α, not 0.",
    ]


def _figure(config: Config, data: xr.Dataset) -> plotting.Figure:
    sizes = f"{config.problem.label}, r = {config.problem.rank}, {config.over_seeds}"
    figure, axes = plotting.panels(3, f"P4  One step on the {sizes}, 95% intervals", height=5.6)
    places = [(state, name) for state in READ_OFF for name in OPTIMIZERS]
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
        panel.plot(fit.at()[1:], [y + shift, y + shift], color=plotting.COLOR[color])
        panel.plot(fit.value, y + shift, "o", ms=5, color=plotting.COLOR[color], label=None if y else part)


CAPTIONS = {
    "update_scaling": (
        "Exponents of η (left) and α (middle) in signal, drift and their ratio of one step, by optimizer: boxes "
        "are what P4-update, or its derivation for gradient descent, expects, and a dot inside its box agrees. "
        "Right: signal over drift, which for Adam the paper expects to fall as 1/η and not to depend on α; higher "
        "is purer."
    ),
}
"""What to see in the figure, what is expected, and which side is better."""

EXPERIMENT = Experiment(
    name="update_scaling",
    title="P4-update, X3, A1-sgd: how signal and drift of one update scale with learning rate and alpha.",
    configure=lambda problem: Config(problem.resized(256)),
    points=points,
    measure=measure,
    report=report,
    tiny={"seeds": 2, "multipliers": (1.0, 16.0, 256.0)},
    captions=CAPTIONS,
)
