"""Measure how the update of W moves with the rank for s = r^(−p): rsLoRA's theorem, and the first step under Adam.

An adapter is rank-stabilised (rsLoRA, Def. 3.1) if the moments of its output s·BAx, for inputs of moments Θ(1), and of
the gradient s·(BA)ᵀv that goes back through it are Θ(1) in r. By gradient descent from B = 0, over draws of A,

    E[s·BA] = −s² r σ_A² η Σ_k v_k x_kᵀ + O(s³ r),

so that both are Θ(s²r) and s = Θ(1/√r) alone keeps them (Theorem 3.2). That is said of the mean over A. What a single
draw has is larger as long as r is not: E‖GAᵀA‖² is σ_A⁴(r² + r(d_in + 1))‖G‖². So ranks far below and far above d_in
are measured apart, the mean and the root mean square too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
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
from experiments.analysis.intervals import exponents, mean_of
from experiments.lab.errors import check_ascending, check_positive
from experiments.lab.experiment import Experiment, Point, Report, Row
from experiments.lab.problem import Drawn, Problem, Setting
from signal_drift import plotting
from signal_drift.lora.adapters import Adapter
from signal_drift.propositions import VANISHING_EPSILON

WAYS = ("forward", "backward")
"""The output of the adapter for given inputs, and the gradient into them for given ones of its outputs."""
MOMENTS = ("mean", "rms")
"""Over draws of A: the mean, along −G, and the root of the mean square."""
ADAM = "Adam"
"""The family of runs under Adam with s = 1/r; the others are gradient descent with s = r^(−p), by their p."""
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
"""How the powers of the rank are drawn, told apart without hue."""
VECTORS = 64
"""Inputs, and gradients of outputs, at which the moments are taken: Gaussian of variance 1, the same for every rank."""


@dataclass(frozen=True)
class Config(Setting):
    """Train from many draws of A at every rank and for every power of the rank in s."""

    powers: tuple[float, ...] = (0.25, 0.5, 0.6, 1.0)
    """Values of p in s = r^(−p), under gradient descent."""
    low: tuple[int, ...] = (1, 4)
    """Ranks well below the inputs of a layer."""
    high: tuple[int, ...] = (256, 1024)
    """Ranks well above the inputs of a layer."""
    draws: int = 128
    """Draws of A at every rank, at fixed data and W₀."""
    steps: int = 5
    """Steps of gradient descent."""
    rate: float = 0.01
    """The first mean step of W at p = ½, over ‖W₀‖/‖G‖: what η·σ_A²·s²r is."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "low", "high", "draws", "steps")
        check_ascending(self, "powers", "low", "high")

    @property
    def ranks(self) -> tuple[int, ...]:
        """Return all ranks."""
        return (*self.low, *self.high)

    @property
    def families(self) -> tuple[str, ...]:
        """Name the families of runs."""
        return (*(f"{p:g}" for p in self.powers), ADAM)


def configure(problem: Problem) -> Config:
    """Take the paper's model at a width that ranks can be far above."""
    return Config(problem.resized(16)) if problem.paper else Config(problem)


def points(config: Config) -> list[Point]:
    return [{"seed": seed} for seed in range(config.seeds)]


def measure(config: Config, seed: int) -> xr.Dataset:
    """Measure the moments of the update after the first and after the last step, and the mean loss at both ends."""
    drawn = config.problem.draw(seed)
    found = [[_moments(config, drawn, seed, family, rank) for rank in config.ranks] for family in config.families]
    sizes, losses = ([[cell[i] for cell in row] for row in found] for i in range(2))
    return xr.Dataset(
        {
            "size": (("family", "rank", "step", "way", "moment"), np.array(sizes)),
            "loss": (("family", "rank", "time"), np.array(losses)),
        },
        coords={
            "family": list(config.families),
            "rank": list(config.ranks),
            "step": ["first", "last"],
            "moment": list(MOMENTS),
            "way": list(WAYS),
        },
    )


def _moments(config: Config, drawn: Drawn, seed: int, family: str, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """The moments (step, way, moment) of one family at one rank, and the mean loss before and after training."""
    base, sigma = drawn.base, config.problem.sigma_a()
    G = jax.grad(drawn.loss)(base)
    key = jax.random.fold_in(jax.random.key(seed), rank)
    A = {
        k: sigma[k] * jax.random.normal(jax.random.fold_in(key, i), (config.draws, rank, W.shape[1]), W.dtype)
        for i, (k, W) in enumerate(sorted(base.items()))
    }
    size = np.sqrt(_squares(base) / _squares(G))
    typical = config.problem.typical_sigma()
    s = 1 / rank if family == ADAM else rank ** -float(family)
    eta = config.rate * typical if family == ADAM else config.rate * size / typical**2
    moved, loss = _trained(drawn.loss, base, A, s, eta, adam=family == ADAM, steps=config.steps)
    with np.errstate(over="ignore", invalid="ignore"):  # a run that diverged
        sizes = [[_over_draws(moved, G, step, way) for way in WAYS] for step in (0, -1)]
    return np.array(sizes), np.array(loss)


def _squares(weights: Mapping[str, Array]) -> float:
    return sum(float(jnp.sum(W**2)) for W in weights.values())


def _over_draws(moved: Mapping[str, Array], G: Mapping[str, Array], step: int, way: str) -> tuple[float, float]:
    """The mean over draws of ⟨Δx, −gx⟩/‖gx‖² and the root mean square of ‖Δx‖/‖gx‖, Δ = s·BA or its transpose.

    Summed over layers and vectors x, which are the same for every rank and step.
    """
    rng, along, square, slope = np.random.default_rng(0), 0.0, 0.0, 0.0
    for k in sorted(G):
        update, g = np.asarray(moved[k])[:, step], np.asarray(G[k])
        if way == "backward":
            update, g = update.transpose(0, 2, 1), g.T
        x = rng.standard_normal((g.shape[1], VECTORS))
        there, here = update @ x, g @ x
        along, square, slope = along - np.sum(there * here), square + np.sum(there**2), slope + np.sum(here**2)
    draws = len(next(iter(moved.values())))
    return along / draws / slope, float(np.sqrt(square / draws / slope))


@partial(jax.jit, static_argnames=("adam", "steps"))
def _trained(
    loss: Partial, base: dict[str, Array], A: dict[str, Array], s: float, eta: float, *, adam: bool, steps: int
) -> tuple[dict[str, Array], Array]:
    """Return s·BA of every draw after every step, and the mean loss over draws before the first and after the last."""
    optimizer = optax.adam(eta, eps=VANISHING_EPSILON) if adam else optax.sgd(eta)

    def one(A: dict[str, Array]) -> tuple[dict[str, Array], Array]:
        start: Any = {k: Adapter(a, jnp.zeros((len(base[k]), len(a)), a.dtype)) for k, a in A.items()}

        def step(state: Any, _: None) -> tuple[Any, tuple[dict[str, Array], Array]]:
            theta, memory = state
            value, slope = jax.value_and_grad(lambda t: loss(sd.effective_weights(base, t, s)))(theta)
            change, memory = optimizer.update(slope, memory)
            after: Any = optax.apply_updates(theta, change)
            return (after, memory), ({k: s * (B @ a) for k, (a, B) in after.items()}, value)

        (theta, _), (moved, values) = jax.lax.scan(step, (start, optimizer.init(start)), None, steps)
        return moved, jnp.array([values[0], loss(sd.effective_weights(base, theta, s))])

    moved, losses = jax.vmap(one)(A)
    return moved, jnp.mean(losses, axis=0)


def exponent(data: xr.Dataset, family: str, ranks: tuple[int, ...], step: str, moment: str, way: str) -> np.ndarray:
    """Fit the exponent of r in a moment of the update over some ranks, seed by seed."""
    values = data["size"].sel(family=family, step=step, moment=moment, way=way, rank=list(ranks))
    return exponents(np.array(ranks, float), values.transpose("seed", "rank").values)


def report(config: Config, data: xr.Dataset) -> Report:
    rows = []
    for family in config.families:
        stated = "0" if family == ADAM else f"{1 - 2 * float(family):g}"
        name = "Adam, s = 1/r" if family == ADAM else f"descent, s = r^(−{family})"
        for where, ranks in (("r ≪ d", config.low), ("r ≫ d", config.high)):
            for moment in MOMENTS:
                for way in WAYS:
                    found = mean_of(exponent(data, family, ranks, "first", moment, way))
                    quantity = f"rsLoRA {name}, {where}: exponent of r in the {moment}, {way}, first step"
                    rows.append(Row(quantity, stated, *found.cells("–")))
    return Report(rows, [_sentence(config, data)], {"rank_stability": partial(_figure, config, data)})


def _sentence(config: Config, data: xr.Dataset) -> str:
    half = {
        m: [mean_of(exponent(data, "0.5", r, "first", m, "forward")).value for r in (config.low, config.high)]
        for m in MOMENTS
    }
    fall = data.loss.sel(family="0.5").isel(rank=-1).mean("seed")
    return (
        f"With s = 1/√r the mean update over A goes as r^({half['mean'][0]:.2g}) at ranks below and r^"
        f"({half['mean'][1]:.2g}) above d, what one draw has as r^({half['rms'][0]:.2g}) and r^({half['rms'][1]:.2g}); "
        f"over {config.steps} steps the loss falls to {float(fall[-1] / fall[0]):.2g} of its start."
    )


def predicted(moment: str, ranks: np.ndarray, p: float, d_in: float) -> np.ndarray:
    """Return a moment of the first update over r as the theory has it, up to a factor that has no r.

    The mean is ∝ s²r. The root mean square is that of GAᵀA, ∝ s²√(r² + r(d_in + 1)) for Gaussian A. s = r^(−p).
    """
    return ranks ** (-2 * p) * (ranks if moment == "mean" else np.sqrt(ranks**2 + ranks * (d_in + 1)))


def _figure(config: Config, data: xr.Dataset) -> plotting.Figure:
    """Draw the moments of the first step over r for every power of the rank in s, beside what the theory has."""
    figure, axes = plotting.panels(2, f"rsLoRA: the first update over the rank, {config.problem.label}", height=4.6)
    colors, d_in = plotting.shades(len(config.powers)), config.problem.typical_sigma() ** -2
    ranks = np.geomspace(config.ranks[0], config.ranks[-1], 50)
    for panel, moment, letter in zip(axes, MOMENTS, "ab", strict=True):
        for p, color, mark in zip(config.powers, colors, MARKS, strict=False):
            y = data["size"].sel(family=f"{p:g}", step="first", moment=moment, way="forward")
            low, middle, high = (
                (y / y.sel(rank=config.ranks[0])).quantile([0, 0.5, 1], "seed").transpose("quantile", ...)
            )
            panel.errorbar(
                config.ranks, middle, [middle - low, high - middle], fmt=mark, color=color, label=f"$s = r^{{-{p:g}}}$"
            )
            stated = predicted(moment, ranks, p, d_in)
            panel.plot(ranks, stated / stated[0], "--", color=color, lw=1.2)
        panel.plot([], [], "--", color=plotting.COLOR["task"], lw=1.2, label="theory")
        plotting.log_axis(panel, "rank r", f"s·BA x, over that at r = {config.ranks[0]}")
        panel.set_title(f"({letter}) {'mean over A' if moment == 'mean' else 'root mean square over A: a single draw'}")
        panel.legend(fontsize=9)
    return figure


EXPERIMENT = Experiment(
    name="rank_stability",
    title="rsLoRA: how the update of W moves with the rank for s = r^(-p), forward and backward.",
    configure=configure,
    points=points,
    measure=measure,
    report=report,
    tiny={"seeds": 2, "low": (1, 4), "high": (64, 128), "draws": 8, "steps": 2},
    captions={
        "rank_stability": (
            "The output of an adapter for given inputs after one step of gradient descent, over the rank, for "
            "s = r^(−p): its mean over draws of A (a), and its root mean square (b), the median over seeds and their "
            "range. Dashed is the theory; rank-stabilised is what is level."
        )
    },
)
