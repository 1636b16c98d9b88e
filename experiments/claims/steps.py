"""Judge the claims on single steps and on optimizers: P4-update, A1-sgd, L1, X4."""

from functools import partial

import numpy as np
import xarray as xr

from experiments.analysis.divergence import CRITERIA
from experiments.analysis.intervals import bootstrap, extent, mean_interval
from experiments.dynamics import gauge_breaking, optimizer_gauge, signal_descent, stability, update_scaling
from experiments.dynamics import trajectories as dynamics
from experiments.dynamics.eta_against_alpha import FAMILIES, Families, purity, slope
from experiments.dynamics.one_step import FORGETFUL, OPTIMIZERS, READ_OFF
from experiments.dynamics.update_scaling import fitted
from experiments.ledger.claim import Claim, Evidence, Reading
from experiments.ledger.verdict import MAGNITUDE, Band, Finding, at_most, below, exactly, magnitude, near, power


def scaling_of(
    optimizer: str, config: update_scaling.Config, data: xr.Dataset, powers: dict[str, tuple[int, int]] = FORGETFUL
) -> list[Finding]:
    """Judge the exponents of η and α in ‖Δw_Signal‖, ‖Δw_Drift‖ and their ratio, at B = 0 and at B ≠ 0."""
    return [
        Finding(
            f"exponent of {family} in {part}, {READ_OFF[state][1]}",
            power(exponent),
            fitted(data, optimizer, state, part, family),
        )
        for state in READ_OFF
        for part, stated in powers.items()
        for family, exponent in zip(FAMILIES, stated, strict=True)
    ]


DRIFT_LIKE_SIGNAL = {"signal": (1, 1), "drift": (1, 1), "ratio": (0, 0)}


def ratio_along_training(config: Families, data: xr.Dataset) -> list[Finding]:
    """Judge the exponents of the geometric mean of the signal-to-drift ratio over all steps."""
    ratio = purity(data.drop_sel(run="FFT"))
    return [
        Finding(
            f"exponent of {family} in the signal-to-drift ratio, all steps",
            power(stated),
            slope(config, ratio, family),
        )
        for family, stated in zip(FAMILIES, FORGETFUL["ratio"], strict=True)
    ]


def depends_on_alpha(config: update_scaling.Config, data: xr.Dataset, *, as_under_adam: bool = False) -> list[Finding]:
    """Judge whether under gradient descent the exponent of α in the signal-to-drift ratio is not 0."""
    band = power(0) if as_under_adam else below(power(0).low)
    return [
        Finding(f"exponent of α in signal/drift, GD, {name}", band, fitted(data, "GD", state, "ratio", "α"))
        for state, (_, name) in READ_OFF.items()
    ]


def ascends_never(config: signal_descent.Config, data: xr.Dataset, momentum: int) -> list[Finding]:
    """Judge the share of all steps at which ⟨Δw_Signal, −g⟩ < 0; `momentum` picks β₁ from the configuration."""
    b1 = config.momenta[momentum]
    steps = signal_descent.ascending(data).sel(momentum=b1).mean(["family", "multiplier"])
    return [Finding(f"share of steps with ⟨Δw_Signal, −g⟩ < 0, β₁ = {b1:g}", exactly(0.0), mean_interval(steps.values))]


def critical_on_quadratic(config: stability.Config, data: xr.Dataset, factor: float = 1.0) -> list[Finding]:
    """Judge whether critical η · λmax/2 on ½wᵀHw is, at every seed, between 1 and what the number of steps resolves."""
    low, high = config.bracket
    resolution = np.log(high / low) / 2**stability.QUADRATIC_HALVINGS
    largest = float(data.quadratic_bound.max())
    why = f"1, below it the bisection's {resolution:.1g}, above it what {config.quadratic_steps} steps resolve (proved)"
    band = Band(factor * (1 - resolution), factor * largest, why)
    return [Finding("critical η · λmax/2 on a quadratic, range over seeds", band, extent(data.quadratic.values))]


def critical_at_start(config: stability.Config, data: xr.Dataset, band: Band) -> list[Finding]:
    """Judge critical η · λmax/2 of full fine-tuning and of LoRA at every α, for every meaning of unstable."""
    full = [
        Finding(f"critical η · λmax/2, full fine-tuning, {c}", band, mean_interval(x.sel(criterion=c).values))
        for c in CRITERIA
        for x in [data.full * data.task / 2]
    ]
    lora = [
        Finding(f"critical η · λmax/2, LoRA at α = {a:g}, {c}", band, mean_interval(x.sel(criterion=c, alpha=a).values))
        for a in config.alphas
        for c in CRITERIA
        for x in [data.measured * data.lora / 2]
    ]
    return full + lora


def furthest(pairs: tuple[str, ...], band: Band, config: optimizer_gauge.Config, data: xr.Dataset) -> list[Finding]:
    """Judge the largest distance of the two trajectories of w, over steps."""
    far = data.distance.max("step")
    return [Finding(f"{pair}: largest distance of w", band, mean_interval(far.sel(pair=pair).values)) for pair in pairs]


def to_rounding(config: optimizer_gauge.Config, data: xr.Dataset) -> list[Finding]:
    """Judge how far factors that are no powers of two drive w apart, over what one unit of rounding in A₀ does."""
    pairs = [optimizer_gauge.INEXACT, optimizer_gauge.YARDSTICK]
    far = data.distance.max("step").sel(pair=pairs).transpose("seed", "pair").values
    band = at_most(MAGNITUDE, "of the order of one unit of rounding: no more than √10 times as far")
    return [Finding(f"{pairs[0]} over {pairs[1]}: largest distance of w", band, bootstrap(_quotient, far))]


def _quotient(pairs: np.ndarray) -> float:
    return float(np.divide(*pairs.mean(0)))


def broken_by_epsilon(config: gauge_breaking.Config, data: xr.Dataset) -> list[Finding]:
    if gauge_breaking.DEFAULT_EPSILON not in config.epsilons:
        return []
    far = data.epsilon.sel(epsilon_value=gauge_breaking.DEFAULT_EPSILON)
    band = at_most(gauge_breaking.NOTICED, "a distance of 1% of the way is a break that matters")
    return [Finding("α×c against η_B×c with ε = 1e-8: largest distance of w", band, mean_interval(far.values))]


def first_drift(state: str, config: update_scaling.Config, data: xr.Dataset) -> list[Finding]:
    """Judge ‖Δw_Drift‖ of the very first step, over optimizers, seeds, η and α."""
    values = data.norm.sel(step=1, part="drift", state=state)
    return [
        Finding(f"‖Δw_Drift‖ of the first step, {name}", exactly(0.0), extent(values.sel(optimizer=name).values))
        for name in OPTIMIZERS
    ]


UPDATES, DYNAMICS, GAUGE = update_scaling.EXPERIMENT, dynamics.EXPERIMENT, optimizer_gauge.EXPERIMENT
STABILITY, DESCENT = stability.EXPERIMENT, signal_descent.EXPERIMENT
SCALES = "‖Δw_Signal‖ = Θ(αη), ‖Δw_Drift‖ = Θ(αη²), and their ratio Θ(1/η), independent of α"

CLAIMS = [
    Claim(
        "P4-update",
        ("one step, at fixed weights", "B = 0 (the second step) or B ≠ 0 (the first)"),
        "Eq. 48–50",
        (
            Evidence(
                Reading(
                    "Adam, ε → 0, as derived", f"{SCALES}, in one step of Adam.", UPDATES, partial(scaling_of, "Adam")
                ),
                Reading(
                    "control",
                    "The drift is Θ(αη), like the signal.",
                    UPDATES,
                    partial(scaling_of, "Adam", powers=DRIFT_LIKE_SIGNAL),
                ),
            ),
        ),
        (
            *(
                Reading(name, f"{SCALES}, in one step of {what}.", UPDATES, partial(scaling_of, name))
                for name, what in (
                    ("Adam-1e-8", "Adam with ε = 1e-8"),
                    ("sign", "sign descent"),
                    ("Muon", "Muon without momentum"),
                    ("optax-Muon", "Muon with momentum and Newton–Schulz"),
                    ("GD", "gradient descent"),
                )
            ),
            Reading(
                "along training",
                "‖Δw_Signal‖/‖Δw_Drift‖ = Θ(1/η), independent of α, over 100 steps of Adam.",
                DYNAMICS,
                ratio_along_training,
            ),
        ),
        figures=("update_scaling", "purity"),
    ),
    Claim(
        "A1-sgd",
        ("one step, at fixed weights",),
        "App. A",
        (
            Evidence(
                Reading(
                    "as derived",
                    "Under gradient descent the signal-to-drift ratio depends on α: it falls.",
                    UPDATES,
                    depends_on_alpha,
                ),
                Reading(
                    "control",
                    "Under gradient descent it does not depend on α, as under Adam.",
                    UPDATES,
                    partial(depends_on_alpha, as_under_adam=True),
                ),
            ),
        ),
        figures=("update_scaling",),
    ),
    Claim(
        "L1-stability",
        ("a quadratic, H ⪰ 0",),
        "Eq. 41–42",
        (
            Evidence(
                Reading(
                    "on a quadratic", "Gradient descent is stable iff η ≤ 2/λmax(H).", STABILITY, critical_on_quadratic
                ),
                Reading(
                    "control", "It is stable iff η ≤ 1/λmax(H).", STABILITY, partial(critical_on_quadratic, factor=0.5)
                ),
            ),
        ),
        (
            Reading(
                "at initialisation",
                "The same at initialisation of the model, for every meaning of unstable, to 10%.",
                STABILITY,
                partial(critical_at_start, band=near(1.0, 0.1, "what a practitioner would call the same rate")),
            ),
            Reading(
                "at initialisation, roughly",
                "The same at initialisation of the model, in order of magnitude.",
                STABILITY,
                partial(critical_at_start, band=magnitude(1.0)),
            ),
        ),
        figures=("stability",),
    ),
    Claim(
        "X3",
        ("B = 0",),
        "our own",
        (
            Evidence(
                Reading(
                    "as stated",
                    "From B = 0 the first step of every optimizer has ΔA = 0, so that its drift is exactly zero.",
                    UPDATES,
                    partial(first_drift, "second"),
                ),
                Reading(
                    "control", "So is the drift of the first step from B ≠ 0.", UPDATES, partial(first_drift, "generic")
                ),
            ),
        ),
        figures=("update_scaling",),
    ),
    Claim(
        "X4",
        ("Adam with ε → 0", "no weight decay, no clipping"),
        "our own",
        (
            Evidence(
                Reading(
                    "as stated",
                    "(α, σ_A, η_A, η_B) and (α/(pq), p·σ_A, p·η_A, q·η_B) give the same trajectory of w; from B = 0, "
                    "α×c equals η_B×c, and both rates ×c equal α×c² with A₀/c.",
                    GAUGE,
                    partial(
                        furthest, optimizer_gauge.EXACT, exactly(0.0)._replace(why="powers of two scale every rounding")
                    ),
                ),
                Reading(
                    "control",
                    "α×c is a tied learning rate ×c (and three other pairs that X4 does not join).",
                    GAUGE,
                    partial(furthest, optimizer_gauge.FALSE, exactly(0.0)),
                ),
            ),
        ),
        (
            Reading(
                "other factors",
                "Factors that are no powers of two leave the trajectory of w where it is, to rounding.",
                GAUGE,
                to_rounding,
            ),
            Reading(
                "with Adam's default ε",
                "α×c equals η_B×c to 1% with ε = 1e-8.",
                gauge_breaking.EXPERIMENT,
                broken_by_epsilon,
            ),
        ),
        figures=("optimizer_gauge", "gauge_breaking"),
    ),
]
