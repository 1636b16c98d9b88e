"""Train with the drift as it is, removed, turned, multiplied or replaced, or without any, all from the same start.

Here are the arms, the runs of one seed, and what is read off them; `drift_knockout` asks the question.
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
from experiments.analysis.divergence import classify, critical_rate, final, jitter, per_run
from experiments.analysis.intervals import Estimate, geometric_mean_of, quotient_of
from experiments.lab.errors import OptionError, check_ascending, check_positive
from experiments.lab.problem import Drawn, Setting, Training
from signal_drift.lora.adapters import Adapters
from signal_drift.training import signal_and_drift

ORDINARY, REMOVED, FROZEN, MIRRORED, NOISE = "as it is", "removed", "A frozen", "mirrored", "noise"
MULTIPLES = {ORDINARY: 1.0, REMOVED: 0.0, "turned": -1.0, "fourfold": 4.0, MIRRORED: 1.0}
"""c of the arms in which the drift is multiplied; the mirrored one starts from −A and is the first one, bit for bit."""
ARMS = (ORDINARY, REMOVED, "turned", "fourfold", NOISE, "one factor at a time", FROZEN, MIRRORED)
"""What becomes of the drift; the last, a placebo, is for the controls."""
CORE = (ORDINARY, REMOVED, FROZEN, MIRRORED)
"""Arms without which C1 to C4 cannot be judged."""
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
        if not set(CORE) <= set(self.arms) <= set(ARMS):
            raise OptionError(
                f"arms: must be {', '.join(CORE)} and any of {', '.join(ARMS)}, got {', '.join(self.arms)}"
            )


class Seen(NamedTuple):
    """Hold ⟨Δw, −g⟩ of every step, of the signal and of what w moved by in the place of the drift."""

    signal: Array
    drift: Array


def measure(config: Config, seed: int) -> xr.Dataset:
    """Measure every arm of one seed, in float32: over η, at the limits of η, and over α where the arm has a path."""
    problem = config.problem
    drawn, start = problem.draw(seed, "float32"), problem.adapters(seed, dtype="float32")
    training, key = problem.training(seed, config.steps, "float32"), jax.random.fold_in(jax.random.key(seed), 7)

    @cache
    def run(arm: str, m_eta: float, m_alpha: float = 1.0) -> tuple[np.ndarray, Seen]:
        begun = {k: sd.Adapter(-A, B) for k, (A, B) in start.items()} if arm == MIRRORED else start
        s, eta = problem.scaling(m_alpha * config.alpha), m_eta * config.learning_rate
        given = [jnp.float32(x) for x in (s, eta, MULTIPLES.get(arm, 1.0))]
        kind = "multiple" if arm in MULTIPLES else arm
        loss, seen = _run(
            training.loss, drawn.base, begun, *given, key, training.batches, kind=kind, steps=config.steps
        )
        return np.asarray(loss), jax.tree.map(np.asarray, seen)

    over_eta = [[run(arm, m) for m in config.multipliers] for arm in config.arms]
    over_alpha = [[run(arm, 1.0, m)[0] for m in config.multipliers] for arm in PATHS]
    limits = [[limit_of(config, lambda m, arm=arm: run(arm, m)[0], x) for x in LIMITS] for arm in config.arms]
    tried = [_probes(config, drawn, training, start, m) for m in config.multipliers]
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


def limit_of(config: Config, loss: Callable[[float], np.ndarray], meaning: str) -> float:
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


def _probes(config: Config, drawn: Drawn, training: Training, start: Adapters, m: float) -> np.ndarray:
    """Return the loss of the fixed sample after every step that is tried, by step and probe."""
    s, eta = jnp.float32(config.problem.scaling(config.alpha)), jnp.float32(m * config.learning_rate)
    given = drawn.loss, training.loss, drawn.base, start, s, eta, training.batches
    return np.asarray(_tried(*given, steps=config.steps))


@partial(jax.jit, static_argnames="steps")
def _tried(
    judge: Partial,
    loss: Partial,
    base: dict[str, Array],
    start: Adapters,
    s: Array,
    eta: Array,
    batches: Any,
    *,
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


def better_step(data: xr.Dataset, probe: str) -> xr.DataArray:
    """Return the share of steps of the ordinary run at which another step from the same state ends lower, by seed."""
    other, own = data.after.sel(probe=probe), data.after.sel(probe=ORDINARY)
    return (other < own).where(other.notnull() & own.notnull() & (other != own)).mean("step")
