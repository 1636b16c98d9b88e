"""X4: (α, A₀, η_A, η_B) and (α/(pq), p·A₀, p·η_A, q·η_B) give Adam with ε → 0 the same trajectory of w.

With A' = pA, B' = qB and s' = s/(pq) the weights agree, ∇_A' = ∇_A/p and ∇_B' = ∇_B/q. Adam forgets the size of each
entry's gradient, so that ΔA' = p·ΔA and ΔB' = q·ΔB, step after step. At B₀ = 0, (p, q) = (1, 1/c) makes α×c the same as
η_B×c alone, and (1/c, 1/c) makes both rates ×c the same as α×c² with A₀/c: α differs from a tied learning rate only.

If p and q are powers of two, every rounding is scaled exactly, and the two trajectories agree bit by bit: the tolerance
is zero. Otherwise rounding differs and grows along training as any perturbation does; the yardstick is the same run
with A₀ multiplied by 1 + 2⁻⁵². ε is not exactly 0 (0/0 at the exact zeros of ∇_A at B = 0) but `TINY`.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jax import Array

import signal_drift as sd
from experiments.analysis.intervals import mean_interval
from experiments.dynamics.update_scaling import TINY
from experiments.lab.experiment import Experiment, Report, Row, main
from experiments.problems.mlp import Setting, adapters, problem
from signal_drift import plotting


class Knobs(NamedTuple):
    """Factors on α, A₀, η_A and η_B, and what is added to Adam: ε, weight decay, clipping of the global norm."""

    alpha: float = 1.0
    A: float = 1.0
    eta_a: float = 1.0
    eta_b: float = 1.0
    epsilon: float = TINY
    decay: float = 0.0
    clip: float = float("inf")


def gauge(p: float, q: float) -> Knobs:
    """X4: what leaves the trajectory of w where it is."""
    return Knobs(alpha=1 / (p * q), A=p, eta_a=p, eta_b=q)


@dataclass(frozen=True)
class Config(Setting):
    """Pairs of trajectories that must coincide, and pairs that must not."""

    alpha: float = 16.0
    """α."""
    learning_rate: float = 1e-3
    """η of A and of B."""
    factor: float = 8.0
    """c, a power of two, so that rounding is scaled exactly."""
    steps: int = 100
    """Training steps."""

    def pairs(self) -> dict[str, tuple[Knobs, Knobs]]:
        """Statements of X4, each with the two runs it compares; the last four are false."""
        c = self.factor
        alpha, both = Knobs(alpha=c), Knobs(eta_a=c, eta_b=c)
        return {
            "(p, q) = (4, 1/32)": (Knobs(), gauge(4.0, 1 / 32)),
            "(p, q) = (3, 0.7)": (Knobs(), gauge(3.0, 0.7)),
            "A₀ × (1 + 2⁻⁵²)": (Knobs(), Knobs(A=1 + 2.0**-52)),
            "α×c ≡ η_B×c": (alpha, Knobs(eta_b=c)),
            "both η×c ≡ α×c², A₀/c": (both, Knobs(alpha=c**2, A=1 / c)),
            "α×c vs both η×c": (alpha, both),
            "α×c vs η_A×c": (alpha, Knobs(eta_a=c)),
            "both η×c vs α×c²": (both, Knobs(alpha=c**2)),
            "α×c vs nothing": (alpha, Knobs()),
        }


EXACT, YARDSTICK = ("(p, q) = (4, 1/32)", "α×c ≡ η_B×c", "both η×c ≡ α×c², A₀/c"), "A₀ × (1 + 2⁻⁵²)"
FALSE = ("α×c vs both η×c", "α×c vs η_A×c", "both η×c vs α×c²", "α×c vs nothing")
INEXACT = "(p, q) = (3, 0.7)"
FLOOR = 1e-18
"""Where an exact zero is drawn on a logarithmic axis."""


def points(config: Config) -> list[dict]:
    return [{"seed": seed} for seed in range(config.seeds)]


def measure(config: Config, seed: int) -> xr.Dataset:
    """How far apart the trajectories of w of every pair are, and their losses."""
    pairs = {
        name: (run(config, seed, left), run(config, seed, right)) for name, (left, right) in config.pairs().items()
    }
    return xr.Dataset(
        {
            "distance": (("pair", "step"), np.array([distance(left[0], right[0]) for left, right in pairs.values()])),
            "loss": (("pair", "side", "time"), np.array([[left[1], right[1]] for left, right in pairs.values()])),
        },
        coords={"pair": list(pairs)},
    )


def run(config: Config, seed: int, knobs: Knobs) -> tuple[Array, Array]:
    """The trajectory of w − w₀ and of the loss with one setting of the knobs."""
    loss, base = problem(config, seed)
    rates = config.learning_rate * knobs.eta_a, config.learning_rate * knobs.eta_b
    s = config.scaling(config.alpha) * knobs.alpha
    return _trajectory(loss, base, adapters(config, base, seed), s, knobs.A, *rates, *knobs[4:], config.steps)


def _optimizer(eta_a, eta_b, epsilon, decay, clip) -> optax.GradientTransformation:
    for_A, for_B = (optax.adamw(eta, eps=epsilon, weight_decay=decay) for eta in (eta_a, eta_b))
    return optax.chain(optax.clip_by_global_norm(clip), sd.separate_rates(for_A, for_B))


@jax.jit(static_argnames="steps")
def _trajectory(loss, base, start, s, scale_A, eta_a, eta_b, epsilon, decay, clip, steps: int) -> tuple[Array, Array]:
    """s·BA, all layers in one vector, after every step, and the loss before the first and after every step."""
    optimizer = _optimizer(eta_a, eta_b, epsilon, decay, clip)
    theta = {layer: sd.Adapter(scale_A * A, B) for layer, (A, B) in start.items()}

    def update(step: sd.Step) -> Array:
        return jnp.concatenate([(s * (B @ A)).ravel() for A, B in step.after.values()])

    run = sd.train(loss, base, theta, s, optimizer, steps, record=update)
    return run.recorded, run.loss


def distance(left: Array, right: Array) -> np.ndarray:
    """‖w_t − w'_t‖ / ‖w_t − w_0‖ at every step."""
    return np.asarray(jnp.linalg.norm(left - right, axis=1) / jnp.linalg.norm(left, axis=1))


def report(config: Config, data: xr.Dataset) -> Report:
    rows, furthest = [], data.distance.max("step")
    for pair in config.pairs():
        stated = "0 exactly" if pair in EXACT else "> 0" if pair in FALSE else "rounding"
        far = mean_interval(furthest.sel(pair=pair).values)
        rows.append(Row(f"X4   {pair}: largest distance of w", stated, f"{far.mean:.3g}", far.interval()))
    return Report(rows, _sentences(config, data), {"optimizer_gauge": partial(_figure, config, data)})


def _sentences(config: Config, data: xr.Dataset) -> list[str]:
    far = data.distance.max("step")
    same, control = float(far.sel(pair=list(EXACT)).max()), float(far.sel(pair=list(FALSE)).min())
    rounding, yardstick = (float(far.sel(pair=pair).max()) for pair in (INEXACT, YARDSTICK))
    holds = "α is η_B in other units, no tied learning rate." if same == 0 < control else "X4 FAILS here."
    return [
        f"Factors that are powers of two: the two trajectories of w differ by {same:g} over {config.steps} steps and "
        f"{config.seeds} seeds; the pairs that X4 does not join differ by at least {control:.2g}. {holds}",
        f"Other factors: {rounding:.1e}, where changing A₀ by one unit of rounding grows to {yardstick:.1e}.",
    ]


def _figure(config: Config, data: xr.Dataset) -> plotting.Figure:
    """Losses that lie on one another, and the distance of w for every pair."""
    title = f"X4  α is no tied learning rate: Adam, ε → 0, d = {config.width}, r = {config.rank}, c = {config.factor:g}"
    figure, (left, middle, right) = plotting.panels(3, title, height=5.0)
    loss = (data.loss / data.loss.isel(time=0)).isel(seed=0)
    for panel, pair, letter, controls in (
        (left, EXACT[1], "a", {"both η×c": FALSE[0], "neither": FALSE[3]}),
        (middle, EXACT[2], "b", {"α×c², same A₀": FALSE[2], "neither": FALSE[3]}),
    ):
        one, other = pair.split(" ≡ ")
        panel.plot(loss.sel(pair=pair, side=0), color=plotting.COLOR["band"], lw=6, alpha=0.7, label=one)
        panel.plot(loss.sel(pair=pair, side=1), "--", color=plotting.COLOR["task"], label=other)
        for (name, control), color in zip(controls.items(), ("drift", "other"), strict=True):
            y = loss.sel(pair=control, side=1)
            panel.plot(y, color=plotting.COLOR[color], lw=1.2, label=f"control: {name}")
        panel.set(yscale="log", xlabel="step", ylabel="loss / initial loss, seed 0")
        panel.set_title(f"({letter}) {one} equals {other}")
        panel.legend()
    steps = np.arange(1, config.steps + 1)
    for pair in config.pairs():
        y = data.distance.sel(pair=pair).median("seed")
        color = (
            "drift" if pair in FALSE else "prediction" if pair == YARDSTICK else "lora" if pair == INEXACT else "signal"
        )
        name = {FALSE[0]: "pairs not joined by X4", EXACT[0]: "powers of two: exactly 0"}.get(pair)
        name = pair if pair in (YARDSTICK, INEXACT) else name
        right.plot(steps, np.maximum(y, FLOOR), color=plotting.COLOR[color], label=name)
    right.set(yscale="log", xlabel="step", ylabel="‖w − w′‖ / ‖w − w₀‖, median over seeds", title="(c) distance of w")
    right.set_ylim(FLOOR / 3, 1e7)
    right.legend(loc="upper center", ncols=1)
    return figure


EXPERIMENT = Experiment(
    name="optimizer_gauge",
    title="X4: what leaves Adam's trajectory of w unchanged: alpha is a learning rate of B, and no tied one.",
    paper=Config(),
    quick=replace(Config(), width=6, depth=3, samples=20, rank=3, seeds=2, steps=20),
    points=points,
    measure=measure,
    report=report,
)

if __name__ == "__main__":
    main(EXPERIMENT)
