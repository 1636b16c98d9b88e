"""Judge the claims on single steps and on optimizers: P4-update, A1-sgd, L1, X4."""

from functools import partial

import numpy as np
import xarray as xr

from experiments.analysis.divergence import CRITERIA
from experiments.analysis.intervals import exactly_known, geometric_mean_of
from experiments.claims.lora_alpha.dynamics import APP_E, TRAJECTORIES
from experiments.dynamics import signal_descent, stability, update_scaling
from experiments.dynamics import trajectories as dynamics
from experiments.dynamics.eta_against_alpha import FAMILIES, Families, purity, ratio_over_x14, slope
from experiments.dynamics.one_step import FORGETFUL, OPTIMIZERS, READ_OFF
from experiments.dynamics.update_scaling import fitted
from experiments.gauge import gauge_breaking, optimizer_gauge
from experiments.ledger.claim import OWN, Claim, Evidence, Reading
from experiments.ledger.verdict import (
    MAGNITUDE,
    Band,
    Finding,
    at_least,
    at_most,
    below,
    exactly,
    magnitude,
    near,
    power,
)


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
    share = float(signal_descent.ascending(data).sel(momentum=b1).mean())
    words = f"at {share:.2%} of all steps of all seeds the signal ascends, β₁ = {b1:g}"
    return [Finding(f"share of steps with ⟨Δw_Signal, −g⟩ < 0, β₁ = {b1:g}", exactly(0.0), exactly_known(share), words)]


def critical_on_quadratic(config: stability.Config, data: xr.Dataset, factor: float = 1.0) -> list[Finding]:
    """Judge whether critical η · λmax/2 on ½wᵀHw is, at every seed, between 1 and what the number of steps resolves."""
    low, high = config.bracket
    resolution = float(np.log(high / low) / 2**stability.QUADRATIC_HALVINGS)
    why, margin = "up to what the bisection resolves", 0.005
    least, most = data.quadratic - factor, data.quadratic - factor * data.quadratic_bound
    steps = f"what {config.quadratic_steps} steps resolve (proved)"
    return [
        Finding(
            "critical η · λmax/2 on a quadratic less 1, the smallest over seeds",
            at_least(-resolution, why, margin),
            exactly_known(float(least.min())),
        ),
        Finding(
            f"critical η · λmax/2 on a quadratic less {steps}, the largest over seeds",
            at_most(resolution, why, margin),
            exactly_known(float(most.max())),
        ),
    ]


def critical_at_start(config: stability.Config, data: xr.Dataset, band: Band) -> list[Finding]:
    """Judge critical η · λmax/2 of full fine-tuning and of LoRA at every α, for every meaning of unstable."""
    full = [
        Finding(f"critical η · λmax/2, full fine-tuning, {c}", band, geometric_mean_of(x.sel(criterion=c).values))
        for c in CRITERIA
        for x in [data.full * data.task / 2]
    ]
    lora = [
        Finding(
            f"critical η · λmax/2, LoRA at α = {a:g}, {c}", band, geometric_mean_of(x.sel(criterion=c, alpha=a).values)
        )
        for a in config.alphas
        for c in CRITERIA
        for x in [data.measured * data.lora / 2]
    ]
    return full + lora


def apart(
    pairs: tuple[str, ...], config: optimizer_gauge.Config, data: xr.Dataset, *, least: bool = False
) -> list[Finding]:
    """Judge the largest distance of both trajectories of w over steps: at the worst seed, or at the `least` apart."""
    far = data.distance.max("step").sel(pair=list(pairs))
    band = exactly(0.0)._replace(why="powers of two scale every rounding")
    if least:
        return [Finding("distance of w, the least of all pairs and seeds", band, exactly_known(float(far.min())))]
    return [
        Finding(f"{pair}: largest distance of w", band, exactly_known(float(far.sel(pair=pair).max())))
        for pair in pairs
    ]


def to_rounding(config: optimizer_gauge.Config, data: xr.Dataset) -> list[Finding]:
    """Judge how far factors that are no powers of two drive w apart, over what one unit of rounding in A₀ does."""
    far = data.distance.max("step")
    quotient = far.sel(pair=optimizer_gauge.INEXACT) / far.sel(pair=optimizer_gauge.YARDSTICK)
    band = at_most(MAGNITUDE, "of the order of one unit of rounding: no more than √10 times as far", margin=MAGNITUDE)
    name = f"{optimizer_gauge.INEXACT} over {optimizer_gauge.YARDSTICK}: largest distance of w"
    return [Finding(name, band, geometric_mean_of(quotient.values))]


def broken_by_epsilon(config: gauge_breaking.Config, data: xr.Dataset) -> list[Finding]:
    if gauge_breaking.DEFAULT_EPSILON not in config.epsilons:
        return []
    far = data.epsilon.sel(epsilon_value=gauge_breaking.DEFAULT_EPSILON)
    band = at_most(
        gauge_breaking.NOTICED, "a distance of 1% of the way is a break that matters", gauge_breaking.NOTICED
    )
    return [Finding("α×c against η_B×c with ε = 1e-8: largest distance of w", band, geometric_mean_of(far.values))]


def first_drift(state: str, config: update_scaling.Config, data: xr.Dataset) -> list[Finding]:
    """Judge the largest ‖Δw_Drift‖ of the very first step, over seeds, η and α."""
    values = data.norm.sel(step=1, part="drift", state=state)
    return [
        Finding(
            f"‖Δw_Drift‖ of the first step, {name}, largest",
            exactly(0.0),
            exactly_known(float(values.sel(optimizer=name).max())),
        )
        for name in OPTIMIZERS
    ]


def tends_to_two_steps(
    config: Families, data: xr.Dataset, factor: float = 1.0, runs: tuple[str, ...] = ()
) -> list[Finding]:
    """Judge signal to drift over 2(t − 1), the geometric mean over the steps past σ_A/(3η), run by run (X14)."""
    band = Band(0.8 * factor, 1.25 * factor, "a limit, seen after finitely many steps: to 25%")
    return [
        Finding(f"signal/drift over 2(t − 1), {run}", band, geometric_mean_of(values))
        for run, values in ratio_over_x14(config, data).items()
        if not runs or run in runs
    ]


def persists(config: Families, data: xr.Dataset) -> str:
    """Ask for a run that goes on past σ_A/(3η)."""
    return "" if ratio_over_x14(config, data) else "no run is longer than σ_A/(3η) steps"


UPDATES, DYNAMICS, GAUGE = update_scaling.EXPERIMENT, dynamics.EXPERIMENT, optimizer_gauge.EXPERIMENT
STABILITY, DESCENT = stability.EXPERIMENT, signal_descent.EXPERIMENT
SCALES = "‖Δw_Signal‖ = Θ(αη), ‖Δw_Drift‖ = Θ(αη²), and their ratio Θ(1/η), independent of α"

CLAIMS = [
    Claim(
        "P4-update",
        "one step",
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
        figure="update_scaling",
        formula=r"\|\Delta w_{Signal}\|=\Theta(\alpha\eta),\quad\|\Delta w_{Drift}\|=\Theta(\alpha\eta^2)",
        measured_on=APP_E,
        measurement="one step of six optimizers",
    ),
    Claim(
        "A1-sgd",
        "one step",
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
        figure="update_scaling",
        measured_on=APP_E,
        measurement="one step of six optimizers",
    ),
    Claim(
        "L1-stability",
        "one step",
        ("a quadratic, H ⪰ 0",),
        "Eq. 41–42",
        (
            Evidence(
                Reading(
                    "on a quadratic", "Gradient descent is stable iff η ≤ 2/λmax(H).", STABILITY, critical_on_quadratic
                ),
                Reading(
                    "control",
                    "It is stable iff η ≤ 1.99/λmax(H).",
                    STABILITY,
                    partial(critical_on_quadratic, factor=0.995),
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
        figure="stability",
        formula=r"\text{stable}\iff\eta\le\frac{2}{\lambda_{max}(H)}",
        measurement="critical learning rates",
    ),
    Claim(
        "X3",
        "one step",
        ("B = 0", "no weight decay: that of A moves A, and AdamW's first drift is not zero"),
        OWN,
        (
            Evidence(
                Reading(
                    "as stated",
                    "From B = 0 the first step of gradient descent, sign descent, Adam and Muon has ΔA = 0, so that "
                    "its drift is exactly zero.",
                    UPDATES,
                    partial(first_drift, "second"),
                ),
                Reading(
                    "control", "So is the drift of the first step from B ≠ 0.", UPDATES, partial(first_drift, "generic")
                ),
            ),
        ),
        figure="update_scaling",
        measured_on=APP_E,
        measurement="one step of six optimizers",
    ),
    Claim(
        "X4",
        "one step",
        ("Adam with ε → 0", "no weight decay, no clipping"),
        OWN,
        (
            Evidence(
                Reading(
                    "as stated",
                    "(α, σ_A, η_A, η_B) and (α/(pq), p·σ_A, p·η_A, q·η_B) give the same trajectory of w; from B = 0, "
                    "α×c equals η_B×c, and both rates ×c equal α×c² with A₀/c.",
                    GAUGE,
                    partial(apart, optimizer_gauge.EXACT),
                ),
                Reading(
                    "control",
                    "α×c is a tied learning rate ×c (and three other pairs that X4 does not join).",
                    GAUGE,
                    partial(apart, optimizer_gauge.FALSE, least=True),
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
        figure="optimizer_gauge",
        formula=r"(\alpha,\sigma_A,\eta_A,\eta_B)\sim\left(\tfrac{\alpha}{pq},\,p\sigma_A,\,p\eta_A,\,q\eta_B\right)",
        measurement="pairs of trajectories",
    ),
    Claim(
        "X14",
        "training",
        ("updates that persist: t past σ_A/(3η)", "Adam"),
        OWN,
        (
            Evidence(
                Reading(
                    "as stated",
                    "‖Δw_Signal‖/‖Δw_Drift‖ at step t tends to 2(t − 1), whatever η and α: Θ(1/η) is a statement about "
                    "the first steps.",
                    DYNAMICS,
                    tends_to_two_steps,
                    persists,
                ),
                Reading(
                    "control", "It tends to 3(t − 1).", DYNAMICS, partial(tends_to_two_steps, factor=1.5), persists
                ),
            ),
        ),
        (
            Reading(
                "at the largest rates",
                "At 64·η₀ and 128·η₀ ‖Δw_Signal‖/‖Δw_Drift‖ at step t tends to 2(t − 1).",
                DYNAMICS,
                partial(tends_to_two_steps, runs=("64·η₀", "128·η₀")),
                persists,
            ),
        ),
        figure="purity",
        formula=r"\frac{\|\Delta w_{Signal}\|}{\|\Delta w_{Drift}\|}\to 2(t-1)",
        measurement=TRAJECTORIES,
    ),
]
