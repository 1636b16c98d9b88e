"""Ask of every adapter map how large its drift is beside its signal, and check what is special about it (X17–X19).

Drift over signal is ‖H_Drift‖/‖H_Signal‖, in the spectral and the Frobenius norm, at the start and after training with
Adam, at the default α and at the best of a few. The statements are those of
`signal_drift.propositions.adapter_maps`, at the start and at a θ drawn near it, where no factor is zero.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jax import Array
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial
from matplotlib.axes import Axes

import signal_drift as sd
from experiments.analysis.ends import certified
from experiments.analysis.intervals import geometric_mean_of
from experiments.curvature.atlas_starts import ALPHA, Start, begun
from experiments.lab.errors import OptionError, check_ascending, check_positive
from experiments.lab.experiment import Experiment, Point, Report, Row
from experiments.lab.problem import Drawn, Dtype, Problem, Setting
from signal_drift import plotting
from signal_drift.maps import Theta
from signal_drift.propositions.adapter_maps import MAP_PROPOSITIONS, MapInstance
from signal_drift.propositions.check import over
from signal_drift.spectra import structure

STATES = ("start", "trained")
CHOICES = ("default", "tuned")
"""Which α."""
NORMS = ("spectral", "Frobenius")
PLACES = ("start", "moved")
"""Where the statements are held: where training begins, and where no factor is zero."""
NAMES = {
    "lora": "LoRA",
    "rslora": "rsLoRA",
    "lora_fa": "LoRA-FA",
    "vera": "VeRA",
    "dora": "DoRA",
    "loha": "LoHa",
    "lokr": "LoKr",
    "mora": "MoRA",
    "ia3": "(IA)³",
}
STRUCTURE = {
    **dict.fromkeys(("lora", "rslora", "vera"), "paired"),
    **dict.fromkeys(("dora", "loha", "lokr"), "neither"),
    **dict.fromkeys(("lora_fa", "mora", "ia3"), "zero"),
}
"""The sign structure of H_Drift that each map has where no factor is zero."""


@dataclass(frozen=True)
class Config(Setting):
    """Measure every map over seeds."""

    seeds: int = 3
    """Independent draws of all that is random."""
    multiples: tuple[float, ...] = (0.25, 1.0, 4.0, 16.0, 64.0, 256.0, 1024.0)
    """Values of α over the default, 8, of which the one with the lowest final loss is the tuned α of a seed."""
    learning_rate: float = 1e-2
    """η of Adam, of every map."""
    steps: int = 100
    """Training steps."""
    tolerance: float = 1e-2
    """Residual of an eigenvalue over ‖H‖ at which a search stops, where there are no full spectra."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "steps")
        check_ascending(self, "multiples")
        if min(self.multiples, default=0) <= 0 or 1.0 not in self.multiples:
            raise OptionError(f"multiples: must be positive and contain 1, the default α, got {self.multiples}")


def configure(problem: Problem) -> Config:
    """Take the paper's model at d = 12, where every matrix of every map fits; of a costly problem one draw."""
    if problem.paper:
        return Config(problem.resized(12))
    return Config(problem, seeds=1, multiples=(1.0, 16.0)) if problem.costly else Config(problem)


def points(config: Config) -> list[Point]:
    return [{"map": name, "seed": seed} for name in NAMES for seed in range(config.seeds)]


def measure(config: Config, map: str, seed: int) -> xr.Dataset:
    """Measure drift over signal, the losses, H_Drift's structure, and every statement where matrices fit."""
    dtype: Dtype = "float64" if config.problem.dense else "float32"
    drawn, start = config.problem.draw(seed, dtype), begun(map, config.problem, seed, dtype)
    runs = trained(config, drawn, start, seed, dtype)
    best = min(runs, key=lambda alpha: runs[alpha].loss if np.isfinite(runs[alpha].loss) else np.inf)
    found = {}
    for alpha in {ALPHA, best}:
        for state, theta in zip(STATES, (start.theta, runs[alpha].theta), strict=True):
            parts = sd.decompose_map(drawn.loss, drawn.base, theta, start.at(alpha))
            found[alpha, state] = drift_over_signal(config, parts)
    ratios, kinds = zip(*(found[x] for x in product((ALPHA, best), STATES)), strict=True)
    shape = (len(CHOICES), len(STATES))
    return xr.Dataset(
        {
            "ratio": (("choice", "state", "norm"), np.reshape(ratios, (*shape, len(NORMS)))),
            "structure": (("choice", "state"), np.reshape(kinds, shape)),
            "loss": ("choice", [runs[alpha].loss for alpha in (ALPHA, best)]),
            "alpha": best if start.scaled else np.nan,
            "parameters": ravel_pytree(start.theta)[0].size,
        },
        coords={"choice": list(CHOICES), "state": list(STATES), "norm": list(NORMS)},
    ).merge(checked(config, drawn, start, seed))


class Trained(NamedTuple):
    """Hold θ after a run, and the loss there."""

    theta: Theta
    loss: float


def trained(config: Config, drawn: Drawn, start: Start, seed: int, dtype: Dtype) -> dict[float, Trained]:
    """Train from the start with Adam at every α, at the default alone where there is none."""
    training = config.problem.training(seed, config.steps, dtype)
    rate = jnp.asarray(config.learning_rate, dtype)
    found = {}
    for alpha in (ALPHA * m for m in config.multiples) if start.scaled else (ALPHA,):
        maps = start.at(alpha)
        theta = _run(training.loss, drawn.base, start.theta, maps, rate, training.batches, steps=config.steps)
        weights = {k: f(drawn.base[k], theta[k]) for k, f in maps.items()}
        found[alpha] = Trained(theta, float(training.fit(weights)))
    return found


@partial(jax.jit, static_argnames="steps")
def _run(
    loss: Partial,
    base: Mapping[str, Array],
    theta: Theta,
    maps: Mapping[str, Partial],
    rate: Array,
    batches: Any,
    *,
    steps: int,
) -> Theta:
    """Return θ after so many steps of Adam on ℓ(w(θ))."""
    optimizer = optax.adam(rate)

    def value(theta: Theta, batch: Any) -> Array:
        weights = {k: f(base[k], theta[k]) for k, f in maps.items()}
        return loss(weights) if batch is None else loss(weights, batch)

    def step(carry: tuple[Theta, Any], batch: Any) -> tuple[tuple[Theta, Any], None]:
        theta, state = carry
        updates, state = optimizer.update(jax.grad(value)(theta, batch), state)
        return (jax.tree.map(jnp.add, theta, updates), state), None

    (theta, _), _ = jax.lax.scan(step, (theta, optimizer.init(theta)), batches, length=steps)
    return theta


def drift_over_signal(config: Config, parts: sd.Decomposition) -> tuple[list[float], str]:
    """Return ‖H_Drift‖/‖H_Signal‖ in both norms, and the sign structure of H_Drift.

    From all eigenvalues where they are affordable; otherwise from certified ends alone, and nothing else is known.
    """
    if not config.problem.dense:
        drift, signal = (_reach(op, config.tolerance) for op in (parts.drift, parts.signal))
        return [drift / signal, np.nan], ""
    drift, signal = sd.eigenvalues(parts.drift), sd.eigenvalues(parts.signal)
    norms = [np.max(np.abs(drift)) / np.max(np.abs(signal)), np.linalg.norm(drift) / np.linalg.norm(signal)]
    return [float(x) for x in norms], structure(np.diag(drift))


def _reach(op: sd.SymmetricOperator, tolerance: float) -> float:
    return float(np.max(np.abs(certified(op, "both", tolerance).values)))


def checked(config: Config, drawn: Drawn, start: Start, seed: int) -> xr.Dataset:
    """Hold every statement against the map at both places; against none where matrices do not fit."""
    checks = [[p(x) for p in MAP_PROPOSITIONS] for x in instances(drawn, start, seed)] if config.problem.dense else []
    dims, words = ("place", "check"), checks[0] if checks else []

    def every(value: Any) -> tuple[tuple[str, ...], np.ndarray]:
        return dims, np.array([[value(c) for c in here] for here in checks], float).reshape(len(checks), len(words))

    return xr.Dataset(
        {
            "error": every(lambda c: c.error),
            "tolerance": every(lambda c: c.tolerance.value),
            "control_error": every(lambda c: c.control_error),
            "applicable": every(lambda c: c.applicable),
            "measured": every(lambda c: c.measured),
        },
        coords={
            "place": list(PLACES[: len(checks)]),
            "check": [p.__name__.replace("_", " ") for p in MAP_PROPOSITIONS[: len(words)]],
            "claim": ("check", [c.claim for c in words]),
            "statement": ("check", [c.statement for c in words]),
            "control": ("check", [c.control for c in words]),
            "rule": ("check", [c.tolerance.rule for c in words]),
        },
    )


def instances(drawn: Drawn, start: Start, seed: int) -> list[MapInstance]:
    """Return the map at the default α where it begins, and where every factor has moved, with a step to be taken."""
    draw = np.random.default_rng(seed)
    move, delta = (jax.tree.map(partial(_drawn_like, draw), start.theta) for _ in range(2))
    x = MapInstance(drawn.loss, drawn.base, start.theta, start.at(ALPHA), delta)
    return [x, replace(x, theta=jax.tree.map(jnp.add, start.theta, move))]


def _drawn_like(draw: np.random.Generator, x: Array) -> Array:
    """Normal numbers half as large as those of x, of 0.1 where those are 0."""
    size = float(jnp.sqrt(jnp.mean(x**2))) / 2 or 0.1
    return jnp.asarray(size * draw.standard_normal(x.shape), x.dtype)


def report(config: Config, data: xr.Dataset) -> Report:
    rows = []
    for name, word in NAMES.items():
        here = data.sel(map=name)
        rows.append(Row(f"X17  {word}: sign structure of H_Drift, start / trained", "–", _structures(here), "–"))
        choices = (CHOICES if _scaled(here) else CHOICES[:1]) if _drifts(here) else ()
        for norm, choice, state in product(_known(data), choices, STATES):
            found = geometric_mean_of(here.ratio.sel(norm=norm, choice=choice, state=state).values)
            label = f"     {word}: ‖H_Drift‖/‖H_Signal‖, {norm}, {choice} α, {state}"
            rows.append(Row(label, "–", str(found), found.interval()))
        rows.append(_losses(here, word))
    rows += [_row(data, i) for i in range(data.sizes["check"])]
    rows += [_orders(data, name) for name in NAMES if data.sizes["check"] and len(_fitted(data, name))]
    return Report(rows, _sentences(data), {"adapter_atlas": partial(_figure, config, data)})


def _losses(here: xr.Dataset, word: str) -> Row:
    found = [str(geometric_mean_of(here.loss.sel(choice=choice).values)) for choice in CHOICES]
    if not _scaled(here):
        return Row(f"     {word}: final loss; no α", "–", found[0], "–")
    alphas = ", ".join(f"{x:g}" for x in here.alpha.values)
    return Row(f"     {word}: final loss at default / tuned α; tuned: {alphas}", "–", " / ".join(found), "–")


def _drifts(here: xr.Dataset) -> bool:
    """Whether there is a drift, or one that no search certifies."""
    return bool((here.ratio != 0).any())


def _structures(here: xr.Dataset) -> str:
    found = [", ".join(sorted(set(here.structure.sel(state=state).values.ravel()))) or "–" for state in STATES]
    return " / ".join(found)


def _known(data: xr.Dataset) -> list[str]:
    """The norms that were measured."""
    return [norm for norm in NORMS if data.ratio.sel(norm=norm).notnull().any()]


def _scaled(here: xr.Dataset) -> bool:
    return bool(np.isfinite(here.alpha).all())


def _row(data: xr.Dataset, i: int) -> Row:
    """One statement: by how much it holds wherever its assumptions are met, and by how much its control does not."""
    check = data.isel(check=i)
    met = check.applicable.values.astype(bool)
    right, wrong = (
        xr.apply_ufunc(over, check[name], check.tolerance, vectorize=True).values[met]
        for name in ("error", "control_error")
    )
    quantity = f"{check.claim.item():<4} {check.statement.item()} [control: {check.control.item()}], error / tolerance"
    measured = f"{np.max(right):.2g} [{np.min(wrong):.2g}] on {met.sum()} of {met.size}" if met.any() else "nowhere"
    return Row(quantity, "≤ 1 [> 1]", measured, "–")


def _orders(data: xr.Dataset, name: str) -> Row:
    found = ", ".join(f"{low:.6g} to {high:.6g}" for low, high in _fitted(data, name))
    return Row(f"X19  {NAMES[name]}: fitted orders of the odd and the even part of the remainder", "3, 4", found, "–")


def _fitted(data: xr.Dataset, name: str) -> list[tuple[float, float]]:
    """The least and the largest exponent of each part of the remainder that the map has."""
    orders = (
        data.sel(map=name).where(data.check.isin(["remainder is cubic", "remainder is quartic"]), drop=True).measured
    )
    known = [orders.isel(check=i).values for i in range(orders.sizes["check"])]
    return [(float(np.min(x)), float(np.max(x))) for x in known if np.isfinite(x).all()]


def _sentences(data: xr.Dataset) -> list[str]:
    """Name the maps with a drift, the largest after training first, and those without."""
    trained = data.ratio.sel(norm="spectral", choice="default", state="trained")
    sizes = {
        NAMES[name]: geometric_mean_of(trained.sel(map=name).values) for name in NAMES if _drifts(data.sel(map=name))
    }
    ranked = sorted(sizes, key=lambda word: -sizes[word].value)
    none = [word for word in NAMES.values() if word not in sizes]
    return [
        f"After training at the default α, ‖H_Drift‖₂/‖H_Signal‖₂ is {', '.join(f'{k} {sizes[k]}' for k in ranked)}.",
        f"There is no drift in {', '.join(none)}.",
    ]


def _figure(config: Config, data: xr.Dataset) -> plotting.Figure:
    norms = _known(data)
    title = f"Drift over signal of every adapter map: {config.problem.label}, {config.over_seeds}"
    figure, panels = plotting.panels(len(norms), title, height=5.6, width=6.6)
    for panel, norm in zip(panels, norms, strict=True):
        for y, name in enumerate(NAMES):
            _draw_map(panel, y, data.sel(map=name, norm=norm))
        panel.axvline(1, color=plotting.COLOR["prediction"], ls="--", label="as large as the signal")
        panel.set(xscale="log", xlabel=rf"$\|H_{{Drift}}\|\,/\,\|H_{{Signal}}\|$, {norm} norm")
        panel.set(yticks=range(len(NAMES)), ylim=(len(NAMES) - 0.5, -0.5))
        panel.set_yticklabels(NAMES.values())
    for choice, state in product(CHOICES, STATES):
        panels[0].plot([], [], **_style(choice, state), label=f"{choice} α, {state}")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure


def _draw_map(panel: Axes, y: int, here: xr.Dataset) -> None:
    """One row: a mark for every seed, or in words that there is no drift."""
    if not _drifts(here):
        panel.text(0.02, y, "no drift", va="center", transform=panel.get_yaxis_transform())
        return
    for k, (choice, state) in enumerate(product(CHOICES if _scaled(here) else CHOICES[:1], STATES)):
        x = here.ratio.sel(choice=choice, state=state).values
        panel.plot(x, np.full(len(x), y + 0.18 * (k - 1.5)), **_style(choice, state))


def _style(choice: str, state: str) -> dict[str, Any]:
    color = plotting.COLOR["signal" if choice == "default" else "drift"]
    fill = "none" if state == "start" else color
    return {"ls": "", "ms": 8, "marker": "o" if choice == "default" else "D", "mec": color, "mfc": fill}


CAPTIONS = {
    "adapter_atlas": (
        "How large H_Drift is beside H_Signal for every adapter map, a mark for each draw: where training begins "
        "(hollow) and ends (filled), at the default α (circles) and at the best of a few (diamonds). VeRA has no α. "
        "Right of the dashed line the drift is the larger."
    ),
}


EXPERIMENT = Experiment(
    name="adapter_atlas",
    title="X17–X19: drift over signal of every adapter map; the form of its drift, its gauge, its remainder.",
    configure=configure,
    points=points,
    measure=measure,
    report=report,
    tiny={"seeds": 1, "multiples": (1.0, 4.0), "steps": 3},
    captions=CAPTIONS,
)
