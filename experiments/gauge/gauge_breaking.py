"""Break X4: max_t ‖w_t − w'_t‖/‖w_t − w_0‖ between α×c and η_B×c under Adam's ε, weight decay and clipping.

ε is compared to √v̂, which shrinks with 1/q. Decoupled decay shrinks B by η_B·λ a step, so that another η_B is another
decay. Clipping scales ∇_A and ∇_B by one factor, which depends on the two of them together. Without any of the three
the distance is exactly zero (X4).
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import xarray as xr

from experiments.analysis.intervals import exponents, mean_of
from experiments.gauge.runs import FLOOR, Knobs, Runs, distance, trajectory
from experiments.lab.experiment import Experiment, Point, Report, Row
from signal_drift import plotting

NAMES = {"epsilon": "Adam's ε", "decay": "weight decay", "clip": "clipping threshold"}
NOTICED = 0.01
"""A distance of 1% of the way is a break that matters."""
FITTED = (1e-12, 1e-2)
"""The break is fitted as a power where it lies between rounding and order one."""
DEFAULT_EPSILON = 1e-8


@dataclass(frozen=True)
class Config(Runs):
    """Compare α×c with η_B×c over the size of what breaks their equality."""

    epsilons: tuple[float, ...] = tuple(10.0**k for k in range(-16, -1, 2))
    """ε of Adam."""
    decays: tuple[float, ...] = tuple(10.0**k for k in range(-6, 2))
    """Weight decay of AdamW."""
    clips: tuple[float, ...] = tuple(10.0**k for k in range(-8, 1))
    """Thresholds of the global norm of the gradient."""

    def values(self) -> dict[str, tuple[float, ...]]:
        return {"epsilon": self.epsilons, "decay": self.decays, "clip": self.clips}


def points(config: Config) -> list[Point]:
    return [{"seed": seed} for seed in range(config.seeds)]


def measure(config: Config, seed: int) -> xr.Dataset:
    """Measure the largest distance along training for every value of the three."""

    def broken(**what: float) -> float:
        left, right = Knobs(alpha=config.factor, **what), Knobs(eta_b=config.factor, **what)
        return float(distance(trajectory(config, seed, left), trajectory(config, seed, right)).max())

    return xr.Dataset(
        {kind: (f"{kind}_value", [broken(**{kind: x}) for x in values]) for kind, values in config.values().items()},
        coords={f"{kind}_value": list(values) for kind, values in config.values().items()},
    )


def report(config: Config, data: xr.Dataset) -> Report:
    rows = []
    for kind, name in NAMES.items():
        for x in config.values()[kind]:
            far = mean_of(data[kind].sel({f"{kind}_value": x}).values)
            row = Row(f"X4   {name} {x:g}: α×c against η_B×c", "0 without", f"{far.value:.3g}", far.interval())
            rows.append(row)
    return Report(rows, _sentences(config, data), {"gauge_breaking": partial(_figure, config, data)})


def _sentences(config: Config, data: xr.Dataset) -> list[str]:
    sentences = []
    for kind, name in NAMES.items():
        values, far = np.array(config.values()[kind]), data[kind].transpose("seed", f"{kind}_value").values
        noticed = values[far.max(0) > NOTICED]
        between = f"from {noticed.min():g} to {noticed.max():g}" if noticed.size else "at none of the values tried"
        sentences.append(f"{name}: the break exceeds {NOTICED:.0%} {between}{_power(values, far)}.")
    if DEFAULT_EPSILON in config.epsilons:
        default = data.epsilon.sel(epsilon_value=DEFAULT_EPSILON)
        sentences.append(f"At the default ε = 1e-8 it is {float(default.min()):.1e} to {float(default.max()):.1e}.")
    return sentences


def _power(values: np.ndarray, far: np.ndarray) -> str:
    """Say with what power of its parameter the break grows where every seed's lies in `FITTED`."""
    small = ((far > FITTED[0]) & (far < FITTED[1])).all(0)
    if small.sum() < 2:
        return ""
    fit = mean_of(exponents(values[small], far[:, small]))
    return f" and, while small, grows with the power {fit.value:.3g} of it, {fit.interval()}"


def _figure(config: Config, data: xr.Dataset) -> plotting.Figure:
    sizes = f"{config.problem.label}, {config.steps} steps, {config.over_seeds}"
    title = f"X4 broken: α×c against η_B×c, c = {config.factor:g}: {sizes}"
    figure, axes = plotting.panels(3, title)
    for panel, (kind, name), letter in zip(axes, NAMES.items(), "abc", strict=True):
        y = np.maximum(data[kind].transpose(f"{kind}_value", "seed").values, FLOOR)
        panel.plot(config.values()[kind], y, "o", color=plotting.COLOR["drift"], alpha=0.5)
        panel.plot(config.values()[kind], np.median(y, 1), color=plotting.COLOR["drift"], label="median over seeds")
        panel.axhline(FLOOR, ls="--", color=plotting.COLOR["prediction"], label="X4: exactly 0")
        if kind == "epsilon":
            panel.axvline(DEFAULT_EPSILON, ls=":", color=plotting.COLOR["task"], label="default ε")
        plotting.log_axis(panel, name, "largest ‖w − w′‖ / ‖w − w₀‖", log_x=10)
        panel.set(title=f"({letter}) {name}", ylim=(FLOOR / 5, 10))
        panel.legend(
            loc="center right" if kind == "clip" else "lower right", bbox_to_anchor=(1, 0.1 if kind != "clip" else 0.5)
        )
    return figure


CAPTIONS = {
    "gauge_breaking": (
        "How far α×c and η_B×c drive the weights apart once Adam has an ε, weight decay or clipping: X4 expects "
        "exactly 0 without them, the dashed line; lower is nearer to X4."
    ),
}
"""What to see in the figure, what is expected, and which side is better."""

EXPERIMENT = Experiment(
    name="gauge_breaking",
    title="X4 broken: how far epsilon, weight decay and clipping drive alpha and the learning rate of B apart.",
    configure=Config,
    points=points,
    measure=measure,
    report=report,
    tiny={
        "seeds": 2,
        "steps": 20,
        "epsilons": (1e-12, 1e-10, 1e-2),
        "decays": (1e-4, 1e-3, 10.0),
        "clips": (1e-6, 1e3),
    },
    captions=CAPTIONS,
)
