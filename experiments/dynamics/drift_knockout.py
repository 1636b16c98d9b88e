"""Knock the drift out of training, turn it round, multiply it, replace it by noise, and see whether it was the culprit.

The paper explains the trouble of a large η by the drift and never removes it. Here W₀ takes up (c − 1)·s ΔBΔA at every
step of Adam, so that w moves by ΔW_Signal + c·ΔW_Drift, from the same A, W₀ and data in every arm. With one factor at a
time, and with A frozen, there is no drift to begin with. C1 to C4 are the paper's mechanism, asked of these runs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jax import Array
from jax.tree_util import Partial

import signal_drift as sd
from experiments.analysis.divergence import classify, counted, critical_rate, final, jitter, per_run
from experiments.analysis.intervals import Estimate, geometric_mean_of, mean_of, quotient_of
from experiments.dynamics.eta_against_alpha import run_label
from experiments.dynamics.known import known, mean_cells
from experiments.lab.errors import check_ascending, check_positive
from experiments.lab.experiment import Experiment, Point, Report, Row
from experiments.lab.problem import Problem, Setting
from signal_drift import plotting
from signal_drift.lora.adapters import Adapters
from signal_drift.training import signal_and_drift

ORDINARY, REMOVED, FROZEN, MIRRORED, NOISE = "as it is", "removed", "A frozen", "mirrored", "noise"
MULTIPLES = {ORDINARY: 1.0, REMOVED: 0.0, "turned": -1.0, "fourfold": 4.0, MIRRORED: 1.0}
"""c of the arms in which the drift is multiplied; the mirrored one starts from −A and is the first one, bit for bit."""
ARMS = (ORDINARY, REMOVED, "turned", "fourfold", NOISE, "one factor at a time", FROZEN, MIRRORED)
"""What becomes of the drift; the last, a placebo, is for the controls."""
WORDS = {arm: f"drift {arm}" for arm in ARMS[:4]} | {NOISE: "noise for drift", MIRRORED: "started from −A"}
"""What an arm is called where its own name would not do."""
PATHS = (ORDINARY, REMOVED, FROZEN)
"""Arms in which α is multiplied too, at η₀."""
LIMITS = ("stable", "diverges")
"""The two limits of η: up to which a run is stable, and from which it diverges, as `classify` has the words."""
LARGE = 128.0
"""η/η₀ from which App. E speaks of trouble."""
STEP = 2.0
"""Factor between the rates that are tried until a limit is bracketed."""
SOUGHT = 2.0**12
"""A limit is sought so far from the multipliers, on either side."""
PROBES = ("as it is", "removed", "turned", "fourfold", "B alone", "A alone")
"""Steps that are tried from every state of the ordinary run, all with the same ‖Δw_Signal‖."""


@dataclass(frozen=True)
class Config(Setting):
    """Train with every kind of drift from the same start, over η, and over α at η₀."""

    seeds: int = 20
    """Independent draws of all that is random; all arms share them."""
    learning_rate: float = 1e-4
    """η₀ of Adam."""
    alpha: float = 1.0
    """α₀."""
    multipliers: tuple[float, ...] = (32.0, 64.0, 128.0, 256.0, 512.0)
    """η/η₀ at α₀, and α/α₀ at η₀."""
    arms: tuple[str, ...] = ARMS
    """What becomes of the drift."""
    steps: int = 100
    """Training steps."""
    halvings: int = 4
    """Bisections of an octave of η in the search for its limits."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "steps", "halvings")
        check_ascending(self, "multipliers")


class Seen(NamedTuple):
    """Hold ⟨Δw, −g⟩ of every step, of the signal and of what w moved by in the place of the drift."""

    signal: Array
    drift: Array


def configure(problem: Problem) -> Config:
    """Start where the problem's trajectories start; on a costly one fewer seeds, rates and arms, and no fine limits."""
    eta, alpha = problem.start_of_trajectories
    steps = problem.tuning.steps if problem.tuning else Config.steps
    here: dict[str, Any] = {"learning_rate": eta, "alpha": alpha, "steps": steps}
    if problem.costly:
        few = (ORDINARY, REMOVED, "fourfold", FROZEN, MIRRORED)
        return Config(problem, seeds=3, multipliers=(32.0, 128.0, 512.0), arms=few, halvings=1, **here)
    return Config(problem.resized(256), **here)


def points(config: Config) -> list[Point]:
    return [{"seed": seed} for seed in range(config.seeds)]


def measure(config: Config, seed: int) -> xr.Dataset:
    """Measure every arm of one seed, in float32: over η, at the limits of η, and over α where the arm has a path."""
    problem = config.problem
    base, start = problem.draw(seed, "float32").base, problem.adapters(seed, dtype="float32")
    training, key = problem.training(seed, config.steps, "float32"), jax.random.fold_in(jax.random.key(seed), 7)

    @cache
    def run(arm: str, m_eta: float, m_alpha: float = 1.0) -> tuple[np.ndarray, Seen]:
        begun = {k: sd.Adapter(-A, B) for k, (A, B) in start.items()} if arm == MIRRORED else start
        s, eta = problem.scaling(m_alpha * config.alpha), m_eta * config.learning_rate
        given = [jnp.float32(x) for x in (s, eta, MULTIPLES.get(arm, 1.0))]
        kind = "multiple" if arm in MULTIPLES else arm
        loss, seen = _run(training.loss, base, begun, *given, key, training.batches, kind=kind, steps=config.steps)
        return np.asarray(loss), jax.tree.map(np.asarray, seen)

    over_eta = [[run(arm, m) for m in config.multipliers] for arm in config.arms]
    over_alpha = [[run(arm, 1.0, m)[0] for m in config.multipliers] for arm in PATHS]
    limits = [[_limit(config, lambda m, arm=arm: run(arm, m)[0], x) for x in LIMITS] for arm in config.arms]
    tried = [
        _probes(problem.draw(seed, "float32").loss, base, start, problem.scaling(config.alpha), m, config, training)
        for m in config.multipliers
    ]
    seen = {
        name: (("arm", "multiplier", "step"), np.array([[getattr(x, name) for _, x in row] for row in over_eta]))
        for name in Seen._fields
    }
    return xr.Dataset(
        {
            "loss": (("arm", "multiplier", "time"), np.array([[loss for loss, _ in row] for row in over_eta])),
            "alpha_loss": (("path", "multiplier", "time"), np.array(over_alpha)),
            "limit": (("arm", "meaning"), np.array(limits)),
            "after": (("multiplier", "step", "probe"), np.array(tried)),
            **seen,
        },
        coords={
            "arm": list(config.arms),
            "path": list(PATHS),
            "meaning": list(LIMITS),
            "probe": list(PROBES),
            "multiplier": list(config.multipliers),
            "time": np.arange(config.steps + 1),
            "step": np.arange(1, config.steps + 1),
        },
    )


@partial(jax.jit, static_argnames=("kind", "steps"))
def _run(
    loss: Partial,
    base: dict[str, Array],
    start: Adapters,
    s: Array,
    eta: Array,
    c: Array,
    key: Array,
    batches: Any,
    *,
    kind: str,
    steps: int,
) -> tuple[Array, Seen]:
    """Return the loss before every step and after the last, and what was seen of every step."""
    adam, drift = optax.adam(eta), {"multiple": c, NOISE: sd.DriftNoise(key)}.get(kind, 1.0)
    ways: Mapping[str, Callable] = {"one factor at a time": sd.one_factor_at_a_time, FROZEN: sd.frozen_A}
    optimizer = ways[kind](adam) if kind in ways else adam
    run = sd.train(loss, base, start, s, optimizer, steps, batches, drift=drift, record=_seen)
    return run.loss, run.recorded


def _seen(step: sd.Step) -> Seen:
    run, put = signal_and_drift(step), step.base_delta
    more = 0.0 if put is None else optax.tree.vdot(put, step.gradient)
    return Seen(run.signal_alignment, run.drift_alignment - more)


def _limit(config: Config, loss: Callable[[float], np.ndarray], meaning: str) -> float:
    """Find η/η₀ up to which runs are stable, or from which they diverge; ∞ or 0 where that is not within reach.

    From the lowest multiplier by factors of two, up or down, until a limit is bracketed, then by bisection.
    """

    def beyond(m: float) -> bool:
        name = classify(loss(m))
        return name == "diverges" if meaning == "diverges" else name != "stable"

    first = config.multipliers[0]
    step = 1 / STEP if beyond(first) else STEP
    end = first
    while beyond(end) == beyond(first):
        if not first / SOUGHT < end < config.multipliers[-1] * SOUGHT:
            return np.inf if step > 1 else 0.0
        end *= step
    low, high = sorted((end, end / step))
    return critical_rate(beyond, low, high, config.halvings)


def _probes(
    loss: Partial, base: dict[str, Array], start: Adapters, s: float, m: float, config: Config, training: Any
) -> np.ndarray:
    """Return the loss of the fixed sample after every step that is tried, by step and probe."""
    eta = jnp.float32(m * config.learning_rate)
    return np.asarray(_tried(loss, training.loss, base, start, jnp.float32(s), eta, training.batches, config.steps))


@partial(jax.jit, static_argnames="steps")
def _tried(
    judge: Partial,
    loss: Partial,
    base: dict[str, Array],
    start: Adapters,
    s: Array,
    eta: Array,
    batches: Any,
    steps: int,
) -> Array:
    def tried(step: sd.Step) -> Array:
        parts = sd.decompose_update(step.theta, step.delta, step.scaling)
        size = optax.tree.norm(parts.signal)
        moves = [optax.tree.add_scale(parts.signal, c, parts.drift) for c in (1.0, 0.0, -1.0, 4.0)]
        for factor in ("B", "A"):
            move = sd.jacobian_product(step.theta, _alone(step.delta, factor), step.scaling)
            moves.append(optax.tree.scale(size / optax.tree.norm(move), move))
        return jnp.stack([judge(optax.tree.add(step.weights, move)) for move in moves])

    return sd.train(loss, base, start, s, optax.adam(eta), steps, batches, record=tried).recorded


def _alone(delta: Adapters, factor: str) -> dict[str, sd.Adapter]:
    """The update of one factor, with the other at rest."""
    return {
        k: sd.Adapter(jnp.zeros_like(A), B) if factor == "B" else sd.Adapter(A, jnp.zeros_like(B))
        for k, (A, B) in delta.items()
    }


def raised(data: xr.Dataset, arm: str, meaning: str = "stable") -> Estimate:
    """Divide the limit of η in an arm by that of the ordinary run, seed by seed."""
    here = data.limit.sel(meaning=meaning)
    return geometric_mean_of((here.sel(arm=arm) / here.sel(arm=ORDINARY)).values)


def calmer(data: xr.Dataset, arm: str) -> Estimate:
    """Divide the jitter of the loss in an arm by that of the ordinary run, seed by seed, on average over large η."""
    found = per_run(jitter, data.loss.sel(multiplier=data.multiplier >= LARGE))
    ratio = found.sel(arm=arm) / found.sel(arm=ORDINARY)
    return geometric_mean_of(np.exp(np.log(ratio.transpose("seed", "multiplier").values).mean(axis=1)))


def descending(data: xr.Dataset, arm: str) -> xr.DataArray:
    """Return the share of steps at which the drift descends, by seed and multiplier: where it is known and not 0."""
    here = data.drift.sel(arm=arm)
    return (here > 0).where(here.notnull() & (here != 0)).mean("step")


def share_of_descent(data: xr.Dataset, arm: str) -> xr.DataArray:
    """Divide the sum over steps of ⟨Δw_Drift, −g⟩ by that of the signal, by seed and multiplier."""
    return data.drift.sel(arm=arm).sum("step") / data.signal.sel(arm=arm).sum("step")


def asymmetry(data: xr.Dataset, path: str) -> np.ndarray:
    """Return by seed ln of the deepest final loss over α-multiples, divided by that over η-multiples (F1b, F2a)."""
    over_eta, over_alpha = final(data.loss).sel(arm=path), final(data.alpha_loss).sel(path=path)
    return np.log((over_alpha.min("multiplier") / over_eta.min("multiplier")).values)


def left_of_asymmetry(data: xr.Dataset, path: str) -> Estimate:
    """Divide that asymmetry by the ordinary run's: a mean over a mean, paired by seed."""
    return quotient_of(asymmetry(data, path), asymmetry(data, ORDINARY))


def report(config: Config, data: xr.Dataset) -> Report:
    rows = [
        *(_limit_row(data, arm, meaning) for meaning in LIMITS for arm in config.arms),
        *(
            Row(
                f"C2   jitter of the loss over that of the ordinary run, η ≥ {LARGE:g}·η₀, {WORDS.get(arm, arm)}",
                *_cells(stated, x),
            )
            for arm in config.arms
            if arm != ORDINARY
            for stated, x in [("< 1 (C2)" if arm == REMOVED else "–", calmer(data, arm))]
        ),
        *(row for m in config.multipliers for row in _descent_rows(data.sel(multiplier=m), m)),
        *(_asymmetry_row(data, path) for path in PATHS),
        *(_behaviour_row(data, arm, m) for m in config.multipliers for arm in config.arms),
    ]
    figures = {
        "drift_knockout": partial(_figure, config, data),
        "drift_knockout_limits": partial(_limits_figure, config, data),
    }
    return Report(rows, _sentences(config, data), figures)


def _cells(stated: str, estimate: Estimate) -> tuple[str, str, str]:
    return stated, *estimate.cells("not finite")


def _limit_row(data: xr.Dataset, arm: str, meaning: str) -> Row:
    words = {"stable": "largest η/η₀ at which a run is stable", "diverges": "smallest η/η₀ from which it diverges"}
    value, interval = geometric_mean_of(data.limit.sel(arm=arm, meaning=meaning).values).cells("out of reach")
    return Row(f"C1   {words[meaning]}, {WORDS.get(arm, arm)}", "–", value, interval)


def _descent_rows(data: xr.Dataset, m: float) -> list[Row]:
    """Say how often the drift descends, and what its descent is beside the signal's, in the ordinary run."""
    share, sums = descending(data, ORDINARY), share_of_descent(data, ORDINARY)
    label = run_label("η", m)
    rows = [
        Row(f"C3   share of steps at which the drift descends, {label}", "0.5 (C3)", *mean_cells(share)),
        Row(f"     its descent over the signal's, summed over steps, {label}", "–", *mean_cells(sums)),
    ]
    if NOISE in data.arm.values:
        noise = mean_cells(descending(data, NOISE))
        rows.append(Row(f"     the same of noise of its norm in its place, {label}", "0.5", *noise))
    for probe in PROBES[1:]:
        lower = better_step(data, probe)
        words = f"     share of states from which the step '{probe}' ends lower than the drift as it is, {label}"
        rows.append(Row(words, "–", *mean_cells(lower)))
    return rows


def better_step(data: xr.Dataset, probe: str) -> xr.DataArray:
    """Return the share of steps of the ordinary run at which another step from the same state ends lower, by seed."""
    other, own = data.after.sel(probe=probe), data.after.sel(probe=ORDINARY)
    return (other < own).where(other.notnull() & own.notnull() & (other != own)).mean("step")


def _asymmetry_row(data: xr.Dataset, path: str) -> Row:
    depth = mean_of(asymmetry(data, path))
    name = f"C4   ln of the deepest final loss over α, over that over η, {WORDS.get(path, path)}"
    return Row(name, "0 (X9)" if path == FROZEN else "–", *depth.cells("not finite"))


def _behaviour_row(data: xr.Dataset, arm: str, m: float) -> Row:
    here = data.loss.sel(arm=arm, multiplier=m)
    level = geometric_mean_of(final(here).values)
    name = f"     {WORDS.get(arm, arm)}, {run_label('η', m)}: behaviour; final / initial loss"
    value, interval = level.cells("not finite")
    return Row(name, "–", f"{counted(per_run(classify, here))}; {value}", interval)


def _sentences(config: Config, data: xr.Dataset) -> list[str]:
    share, sums = known(descending(data, ORDINARY)), known(share_of_descent(data, ORDINARY))
    found = {arm: raised(data, arm) for arm in (REMOVED, FROZEN) if arm in config.arms}
    return [
        f"Without the drift the largest stable η is {found[REMOVED]} times that with it {found[REMOVED].interval()}; "
        f"with A frozen it is {found[FROZEN]} times as large {found[FROZEN].interval()}.",
        f"The drift descends at {share.mean():.0%} of the steps ({share.min():.0%} to {share.max():.0%} of a run); its "
        f"descent in sum is {sums.mean():.1%} of the signal's.",
        f"Of the asymmetry between α and η, {left_of_asymmetry(data, REMOVED)} is left without drift "
        f"{left_of_asymmetry(data, REMOVED).interval()}, and {left_of_asymmetry(data, FROZEN)} with A frozen.",
    ]


def _figure(config: Config, data: xr.Dataset) -> plotting.Figure:
    """Draw the loss over steps, an arm to a panel, darker the larger η: one seed, and the range of all."""
    shown = [arm for arm in config.arms if arm != MIRRORED]
    title = f"Is drift the culprit? Adam, {config.problem.label}, r = {config.problem.rank}, {config.seeds} seeds"
    rows = 2 if len(shown) > 4 else 1
    figure, axes = plotting.panels(-(-len(shown) // rows), title, height=3.6, width=3.9, rows=rows)
    relative = data.loss / data.loss.isel(time=0)
    for panel, arm in zip(axes, shown, strict=False):
        for m, color in zip(config.multipliers, plotting.shades(len(config.multipliers)), strict=True):
            y = relative.sel(arm=arm, multiplier=m).transpose("seed", "time")
            panel.fill_between(data.time, y.min("seed"), y.max("seed"), color=color, alpha=0.15, lw=0)
            panel.plot(data.time, y.isel(seed=0), color=color, lw=1.3, label=run_label("η", m))
        panel.axhline(1, lw=1, color="#777777")
        panel.set(yscale="log", xlabel="step", title=WORDS.get(arm, arm))
        panel.sharey(axes[0])
    for panel in axes[len(shown) :]:
        panel.set_visible(False)
    for row in range(rows):
        axes[row * (len(axes) // rows)].set_ylabel("loss / initial loss")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(config.multipliers))
    return figure


def _limits_figure(config: Config, data: xr.Dataset) -> plotting.Figure:
    """Draw the limits of η by arm, how often the drift descends, and the asymmetry between α and η."""
    title = f"With and without drift: {config.problem.label}, r = {config.problem.rank}, {config.seeds} seeds"
    figure, (left, middle, right) = plotting.panels(3, title, height=4.4)
    arms = [arm for arm in config.arms if arm != MIRRORED]
    for meaning, mark, color, shift in zip(LIMITS, "os", ("signal", "drift"), (-0.12, 0.12), strict=True):
        style: dict[str, Any] = {"color": plotting.COLOR[color], "marker": mark, "ls": ""}
        word = "stable up to" if meaning == "stable" else "diverges from"
        y = np.arange(len(arms)) + shift
        values = data.limit.sel(meaning=meaning, arm=arms).transpose("arm", "seed")
        left.plot(values, y, alpha=0.25, ms=4, **style)
        left.plot(np.exp(np.log(values).mean("seed")), y, ms=9, label=word, **style)
    left.set_yticks(range(len(arms)), [WORDS.get(arm, arm) for arm in arms])
    left.invert_yaxis()
    left.set(xscale="log", xlabel="η / η₀", title="(a) limits of η; further right: more stable")
    left.legend(fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
    for name, arm, mark, color in (("drift", ORDINARY, "o", "drift"), ("noise in its place", NOISE, "s", "other")):
        if arm in config.arms:
            share = descending(data, arm).transpose("multiplier", "seed")
            middle.plot(data.multiplier, share, mark, color=plotting.COLOR[color], alpha=0.25, ms=4)
            middle.plot(data.multiplier, share.mean("seed"), marker=mark, color=plotting.COLOR[color], label=name)
    middle.axhline(0.5, ls="--", color=plotting.COLOR["prediction"], label="C3: no alignment")
    middle.set_xscale("log", base=2)
    middle.set(xlabel="η / η₀", ylabel="share of steps that descend", ylim=(-0.03, 1.03), title="(b) descent of drift")
    middle.legend(fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3)
    for x, path in enumerate(PATHS):
        values = asymmetry(data, path)
        right.plot(np.full(len(values), x), values, "o", color=plotting.COLOR["lora"], alpha=0.25, ms=4)
        right.plot(x, values.mean(), "o", color=plotting.COLOR["lora"], ms=9)
    right.axhline(0, ls="--", color=plotting.COLOR["prediction"])
    right.set_xticks(range(len(PATHS)), [WORDS.get(path, path) for path in PATHS])
    right.set(ylabel="ln(deepest loss over α / over η)", title="(c) α against η; 0: exchangeable")
    right.set_xlim(-0.5, len(PATHS) - 0.5)
    return figure


CAPTIONS = {
    "drift_knockout": (
        "Loss along training over η, with the drift as it is and with it removed, turned round, multiplied or replaced "
        "by noise of its norm, and in two ways of training that have none; one seed, and the range of all. Did the "
        "drift make a large η oscillate, the second panel would be calm."
    ),
    "drift_knockout_limits": (
        "Up to which η a run is stable and from which it diverges, by what becomes of the drift (a); at how many steps "
        "the drift points downhill, beside noise in its place (b); and how much deeper multiplying α goes than "
        "multiplying η (c): 0 where the two are exchangeable, as they are with A frozen (X9)."
    ),
}
"""What to see in each figure, what is expected, and which side is better."""

EXPERIMENT = Experiment(
    name="drift_knockout",
    title="C1–C4: training with the drift as it is, removed, turned round, multiplied, and replaced by noise.",
    configure=configure,
    points=points,
    measure=measure,
    report=report,
    stages=(1, 2),
    tiny={"seeds": 2, "steps": 30, "multipliers": (32.0, 128.0, 512.0), "halvings": 1},
    captions=CAPTIONS,
)
