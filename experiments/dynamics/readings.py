"""Run F2a under every reading of App. E: what η = 64·η₀, η = 128·η₀ and α = 256·α₀ do to w ↦ ℓ(w) under Adam.

The paper writes s = α/r and leaves open whether its code has s = α, or rsLoRA's s = α/√r, whether SiLU follows the last
layer, whether batches are full, the scale of Y, whether the squared error is averaged or summed, the precision, and
whether the 1/d of N(0, 1/d) is a variance. One choice is changed at a time, for every rule of s. A reading shows what
the paper reports if most seeds do, in all three runs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jax import Array

import signal_drift as sd
from experiments.analysis.divergence import classify, counted, final, per_run
from experiments.analysis.intervals import geometric_mean_of
from experiments.dynamics.eta_against_alpha import STATED
from experiments.lab.experiment import Experiment, Point, Report, Row
from experiments.lab.problem import Problem, Setting
from experiments.problems.mlp import MLP
from signal_drift import plotting
from signal_drift.lora.adapters import Adapters
from signal_drift.models.bridge import Forward
from signal_drift.tasks.teacher import Reduction, Regression, squared_error

RUNS = {"64·η₀": (64.0, 1.0), "128·η₀": (128.0, 1.0), "256·α₀": (1.0, 256.0)}
"""(η/η₀, α/α₀) of the runs of which App. E says what they do."""
MARKS = {"stable": ("o", "signal"), "oscillates": ("^", "band"), "diverges": ("X", "drift")}
"""How a word is drawn: shape and colour."""
LIMIT = 1e6
"""Where the axis of the final loss over the initial loss ends."""
RULES: dict[str, Literal["alpha/r", "alpha", "alpha/sqrt(r)"]] = {
    "s = α/r": "alpha/r",
    "s = α/√r": "alpha/sqrt(r)",
    "s = α": "alpha",
}
"""What s may be; α/√r is rsLoRA's."""


@dataclass(frozen=True)
class Config(Setting):
    """Take the three runs of which App. E says what they do, in float32 and full batches unless the reading differs."""

    problem: MLP
    """The MLP whose description is read."""
    learning_rate: float = 1e-4
    """η₀ of Adam."""
    alpha: float = 1.0
    """α₀."""
    steps: int = 100
    """Training steps."""
    batch: int = 0
    """Samples in a batch, drawn without replacement at every step; 0 for all of them."""
    a_scale: float = 1.0
    """c in A ~ N(0, c²/d); 1/√d for the reader who takes N(0, 1/d) to name the standard deviation at d = 256."""
    w_scale: float = 1.0
    """The same for W₀."""
    rules: tuple[str, ...] = tuple(RULES)
    """What s is, one after the other."""
    double: bool = False
    """Compute in float64, the project's precision, and not in float32, the usual one."""


class Variant(NamedTuple):
    """Holds what a reading changes in the MLP, and what in the configuration beside it."""

    problem: Mapping[str, Any] = MappingProxyType({})
    run: Mapping[str, Any] = MappingProxyType({})

    def of(self, config: Config) -> Config:
        return replace(config, problem=replace(config.problem, **self.problem), **self.run)


VARIANTS = {
    "plain": Variant(),
    "activated": Variant(problem={"activate_output": True}),
    "minibatch": Variant(run={"batch": 10}),
    "targets-x10": Variant(problem={"target_scale": 10.0}),
    "targets-x0.1": Variant(problem={"target_scale": 0.1}),
    "summed": Variant(problem={"reduction": "sum"}),
    "A-std-1_d": Variant(run={"a_scale": 256**-0.5}),
    "W0-and-A-std-1_d": Variant(run={"a_scale": 256**-0.5, "w_scale": 256**-0.5}),
    "float64": Variant(run={"double": True}),
}
"""The readings."""
WORDS = {
    "plain": "as the paper says",
    "activated": "SiLU after the last layer",
    "minibatch": "batches of 10",
    "targets-x10": "Y ten times as large",
    "targets-x0.1": "Y a tenth as large",
    "summed": "squared error summed",
    "A-std-1_d": "A ~ N(0, 1/d²)",
    "W0-and-A-std-1_d": "W₀ and A ~ N(0, 1/d²)",
    "float64": "in float64",
}
"""The same for a reader."""


def refuses(problem: Problem) -> str:
    return "" if problem.name in EXPERIMENT.homes else "only the MLP of App. E is described there"


def configure(problem: Problem) -> Config:
    assert isinstance(problem, MLP), problem
    return Config(problem.resized(256))


def points(config: Config) -> list[Point]:
    return [{"seed": seed, "variant": variant} for seed in range(config.seeds) for variant in VARIANTS]


def measure(config: Config, seed: int, variant: str) -> xr.Dataset:
    """Record the full-batch loss at every step of the three runs under one reading, for every rule of s."""
    reading = VARIANTS[variant].of(config)
    problem = reading.problem
    base, forward, data = problem.regression(seed)
    base = {layer: reading.w_scale * W0 for layer, W0 in base.items()}
    start = {k: sd.Adapter(reading.a_scale * A, B) for k, (A, B) in problem.adapters(seed).items()}
    dtype = jnp.float64 if reading.double else jnp.float32
    given = jax.tree.map(lambda x: x.astype(dtype) if x.dtype == jnp.float64 else x, (forward, data, base, start))
    key, batch = jax.random.fold_in(jax.random.key(seed), 4), min(reading.batch, problem.samples)

    def losses(rule: str, m_eta: float, m_alpha: float) -> Array:
        s = replace(problem, scaling_rule=RULES[rule]).scaling(m_alpha * reading.alpha)
        rate = dtype(m_eta * reading.learning_rate)
        return _losses(*given, dtype(s), rate, key, config.steps, batch, problem.reduction)

    return xr.Dataset(
        {
            "loss": (
                ("rule", "run", "time"),
                np.array([[losses(k, *m) for m in RUNS.values()] for k in config.rules], float),
            )
        },
        coords={"rule": list(config.rules), "run": list(RUNS), "time": np.arange(config.steps + 1)},
    )


@partial(jax.jit, static_argnames=("steps", "batch", "reduction"))
def _losses(
    forward: Forward,
    data: Regression,
    base: dict[str, Array],
    start: Adapters,
    s: Array,
    learning_rate: Array,
    key: Array,
    steps: int,
    batch: int,
    reduction: Reduction,
) -> Array:
    """Return the loss on all samples before and after every step, each on a batch of them where there are batches."""
    optimizer, on_all = optax.adam(learning_rate), squared_error(forward, data, reduction)
    if not batch:
        return sd.train(on_all, base, start, s, optimizer, steps).loss

    def on_batch(weights: dict[str, Array], rows: Array) -> Array:
        return squared_error(forward, Regression(data.X[rows], data.Y[rows]), reduction)(weights)

    shuffled = jax.vmap(lambda key: jax.random.permutation(key, len(data.X)))(jax.random.split(key, steps))
    run = sd.train(
        on_batch, base, start, s, optimizer, steps, shuffled[:, :batch], record=lambda step: on_all(step.weights)
    )
    return jnp.append(run.recorded, on_all(sd.effective_weights(base, run.trained, s)))


def agreement(names: xr.DataArray) -> xr.DataArray:
    """Return the share of seeds at which each run does what App. E reports."""
    same = [(names.sel(run=run) == STATED[run]).mean("seed") for run in RUNS]
    return xr.concat(same, xr.IndexVariable("run", list(RUNS)))


def nearest(names: xr.DataArray) -> tuple[int, list[str]]:
    """Return the largest number of runs that do, at most seeds, what App. E reports, and the readings that reach it."""
    count = (agreement(names) > 0.5).sum("run")
    most = int(count.max())
    return most, [
        f"{rule}, {words}"
        for rule in RULES
        for variant, words in WORDS.items()
        if count.sel(rule=rule, variant=variant) == most
    ]


def report(config: Config, data: xr.Dataset) -> Report:
    names = per_run(classify, data.loss)
    rows = [_row(data, names, rule, variant) for rule in RULES for variant in VARIANTS]
    return Report(rows, _sentences(data, names), {"readings": partial(_figure, config, data, names)})


def _row(data: xr.Dataset, names: xr.DataArray, rule: str, variant: str) -> Row:
    """Say what the three runs do under one reading, and how much deeper α goes than η."""
    here = {"rule": rule, "variant": variant}
    level = final(data.loss).sel(here)
    ratio = geometric_mean_of((level.sel(run="256·α₀") / level.sel(run="128·η₀")).values)
    found = "; ".join(counted(names.sel(here).sel(run=run)) for run in RUNS)
    quantity = f"F2a  {rule}, {WORDS[variant]}: {', '.join(RUNS)}; final loss of the last over the second"
    value, interval = ratio.cells("not finite")
    return Row(quantity, f"{'; '.join(STATED[run] for run in RUNS)}; < 1", f"{found}; {value}", interval)


def _sentences(data: xr.Dataset, names: xr.DataArray) -> list[str]:
    share, level, (most, found) = agreement(names), final(data.loss), nearest(names)
    count = len(RULES) * len(VARIANTS)
    deeper = (level.sel(run="256·α₀") < level.sel(run="128·η₀")).mean("seed") > 0.5
    sentences = [
        f"Of {count} readings, {len(found) if most == len(RUNS) else 0} show all that App. E reports of "
        f"{', '.join(RUNS)}; {most} of the {len(RUNS)} runs agree under: {'; '.join(found)}.",
        *(
            f"{run} is {STATED[run]!r} at most seeds under {int((share.sel(run=run) > 0.5).sum())} of {count} readings."
            for run in RUNS
        ),
        f"256·α₀ ends below 128·η₀ at most seeds under {int(deeper.sum())} of {count} readings.",
    ]
    same = abs(level.sel(variant="float64") / level.sel(variant="plain") - 1).max(["run", "seed"])
    changes = ", ".join(f"{float(same.sel(rule=rule)):.1e} with {rule}" for rule in RULES)
    change = f"Float64 instead of float32 changes the final loss by at most {changes}, all else as the paper says."
    return [*sentences, change]


def _figure(config: Config, data: xr.Dataset, names: xr.DataArray) -> plotting.Figure:
    """Draw one panel for each run: final loss against the reading, by rule of s; the mark says what the run does."""
    sizes = f"{config.problem.label}, r = {config.problem.rank}, {config.over_seeds}"
    rules, level, count = list(RULES), final(data.loss), len(VARIANTS)
    figure, axes = plotting.panels(3, f"F2a  Readings of App. E: Adam, {sizes}", height=3 + 2.2 * len(rules))
    ticks = [(rule, variant) for rule in rules for variant in VARIANTS]
    for panel, run, letter in zip(axes, RUNS, "abc", strict=True):
        for y, (rule, variant) in enumerate(ticks):
            here = {"rule": rule, "variant": variant, "run": run}
            for value, name in zip(level.sel(here).values, names.sel(here).values, strict=True):
                _draw_word(panel, value, y, name)
        for group in range(1, len(rules), 2):
            panel.axhspan(group * count - 0.5, (group + 1) * count - 0.5, color="#000000", alpha=0.06, lw=0)
        panel.axvline(1, ls="--", color=plotting.COLOR["prediction"])
        panel.set(xscale="log", xlabel="final / initial loss", yticks=range(len(ticks)), ylim=(len(ticks) - 0.5, -0.5))
        panel.set_yticklabels([WORDS[variant] for _, variant in ticks] if letter == "a" else [])
        panel.set_title(f"({letter}) {run}, paper: {STATED[run]}")
    for group, rule in enumerate(rules):
        middle = 1 - (group + 0.5) / len(rules)
        axes[-1].annotate(rule, (1.03, middle), xycoords="axes fraction", rotation=270, va="center", weight="bold")
    for word in MARKS:
        _draw_word(axes[0], 1.0, np.nan, word, label=word)
    axes[0].plot([], [], "--", color=plotting.COLOR["prediction"], label="initial loss; right of it: diverges")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _draw_word(panel: plotting.Axes, x: float, y: float, word: str, label: str | None = None) -> None:
    """Draw the mark of a word; what has left the axis or is not finite sits at its end."""
    shape, color = MARKS[word]
    x = np.nan if np.isnan(y) else min(x, LIMIT) if np.isfinite(x) else LIMIT
    panel.plot(x, y, shape, color=plotting.COLOR[color], alpha=0.7, ms=7, ls="", label=label)


CAPTIONS = {
    "readings": (
        "Final over initial loss of the runs of which App. E says what they do, under every reading of it and "
        "every rule of s; the mark is what a run does, the title what the paper says: a reading agrees where both "
        "are the same in all three panels. Further left is better."
    ),
}
"""What to see in the figure, what is expected, and which side is better."""

EXPERIMENT = Experiment(
    name="readings",
    title="F2a, readings: what the largest learning rates and the largest scaling factor do under every reading.",
    configure=configure,
    points=points,
    measure=measure,
    report=report,
    tiny={"seeds": 2, "steps": 30},
    refuses=refuses,
    stages=(1, 2),
    captions=CAPTIONS,
)
