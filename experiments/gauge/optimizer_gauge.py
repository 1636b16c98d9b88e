"""Measure X4: (α, A₀, η_A, η_B) and (α/(pq), p·A₀, p·η_A, q·η_B) give Adam with ε → 0 the same trajectory of w.

With A' = pA, B' = qB and s' = s/(pq) the weights agree, ∇_A' = ∇_A/p and ∇_B' = ∇_B/q. Adam forgets the size of each
entry's gradient, so that ΔA' = p·ΔA and ΔB' = q·ΔB, step after step. At B₀ = 0, (p, q) = (1, 1/c) makes α×c the same as
η_B×c alone, and (1/c, 1/c) makes both rates ×c the same as α×c² with A₀/c: α differs from a tied learning rate only.

If p and q are powers of two, every rounding is scaled exactly, and the two trajectories agree bit by bit: the tolerance
is zero. Otherwise rounding differs and grows along training as any perturbation does; the yardstick is the same run
with A₀ multiplied by 1 + 2⁻⁵². ε is not exactly 0 (0/0 at the exact zeros of ∇_A at B = 0) but vanishing beside any √v̂.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import xarray as xr

from experiments.analysis.intervals import mean_of
from experiments.gauge.runs import FLOOR, Knobs, Runs, distance, gauge, trajectory
from experiments.lab.experiment import Experiment, Point, Report, Row
from signal_drift import plotting


@dataclass(frozen=True)
class Config(Runs):
    """Compare pairs of trajectories that must coincide, and pairs that must not."""

    def pairs(self) -> dict[str, tuple[Knobs, Knobs]]:
        """Return the statements of X4, each with the two runs it compares; the last four are false."""
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


def points(config: Config) -> list[Point]:
    return [{"seed": seed} for seed in range(config.seeds)]


def measure(config: Config, seed: int) -> xr.Dataset:
    """Measure how far apart the trajectories of w of every pair are, and their losses."""
    pairs = config.pairs()
    runs = {knobs: trajectory(config, seed, knobs) for knobs in dict.fromkeys(sum(pairs.values(), ()))}
    found = [(runs[left], runs[right]) for left, right in pairs.values()]
    return xr.Dataset(
        {
            "distance": (("pair", "step"), np.array([distance(left, right) for left, right in found])),
            "loss": (("pair", "side", "time"), np.array([[left.loss, right.loss] for left, right in found])),
        },
        coords={"pair": list(pairs)},
    )


def report(config: Config, data: xr.Dataset) -> Report:
    rows, furthest = [], data.distance.max("step")
    for pair in config.pairs():
        stated = "0 exactly" if pair in EXACT else "> 0" if pair in FALSE else "rounding"
        far = mean_of(furthest.sel(pair=pair).values)
        rows.append(Row(f"X4   {pair}: largest distance of w", stated, f"{far.value:.3g}", far.interval()))
    return Report(rows, _sentences(config, data), {"optimizer_gauge": partial(_figure, config, data)})


def _sentences(config: Config, data: xr.Dataset) -> list[str]:
    far = data.distance.max("step")
    same, control = float(far.sel(pair=list(EXACT)).max()), float(far.sel(pair=list(FALSE)).min())
    rounding, yardstick = (float(far.sel(pair=pair).max()) for pair in (INEXACT, YARDSTICK))
    holds = "α is η_B in other units, no tied learning rate." if same == 0 < control else "X4 FAILS here."
    return [
        f"Factors that are powers of two: the two trajectories of w differ by {same:g} over {config.steps} steps and "
        f"{config.over_seeds}; the pairs that X4 does not join differ by at least {control:.2g}. {holds}",
        f"Other factors: {rounding:.1e}, where changing A₀ by one unit of rounding grows to {yardstick:.1e}.",
    ]


def _figure(config: Config, data: xr.Dataset) -> plotting.Figure:
    """Draw losses that lie on one another, and the distance of w for every pair."""
    sizes = f"{config.problem.label}, r = {config.problem.rank}, c = {config.factor:g}"
    title = f"X4  α is no tied learning rate: Adam, ε → 0, {sizes}"
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


CAPTIONS = {
    "optimizer_gauge": (
        "Losses of runs that X4 expects to lie on one another, with controls that must not (left, middle), and "
        "how far the weights of each pair are apart (right): 0 is expected of powers of two, rounding of other "
        "factors."
    ),
}
"""What to see in the figure, what is expected, and which side is better."""

EXPERIMENT = Experiment(
    name="optimizer_gauge",
    title="X4: what leaves Adam's trajectory of w unchanged: alpha is a learning rate of B, and no tied one.",
    configure=Config,
    points=points,
    measure=measure,
    report=report,
    tiny={"seeds": 2, "steps": 20},
    captions=CAPTIONS,
)
